//! One line on a terminal while a recording runs; nothing where standard error is no terminal.

use std::{borrow::Cow, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line. Gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    limit: Cow<'static, str>,
}

impl Progress {
    /// Shows nothing yet.
    pub(crate) fn start(limit: Option<Duration>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(
            ProgressStyle::with_template("{msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let limit = limit.map_or(Cow::Borrowed(""), |limit| {
            format!(" of {:.0} s", limit.as_secs_f64()).into()
        });
        Self { bar, limit }
    }

    /// Shows how far the recording is.
    pub(crate) fn show(&mut self, elapsed: Duration, samples: u64) {
        self.bar.set_message(format!(
            "recording: {:.1} s{}, {samples} samples; Ctrl-C ends it and writes",
            elapsed.as_secs_f64(),
            self.limit
        ));
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
