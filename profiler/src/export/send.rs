//! One request, by HTTP, and what its answer means.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse,
    profiles::v1development::ExportProfilesServiceResponse,
};
use prost::Message;

use super::{Kind, Signal, Target};
use crate::store::trusted;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time for all of a request.
const WHOLE: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 1 << 16;
/// Most characters of an answer that are logged.
const WORDS_MAX: usize = 200;

/// Sends to one place.
pub(super) struct Agent {
    target: Target,
    signal: Signal,
    http: ureq::Agent,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has arrived.
    Taken,
    /// It will never be taken.
    Refused(String),
    /// Perhaps another time.
    Failed {
        why: String,
        /// The least time to wait, if the other side says.
        wait: Option<Duration>,
    },
}

impl Agent {
    pub(super) fn new(target: Target, signal: Signal) -> Self {
        // Another one may have been chosen already, by an agent before this one: it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(WHOLE))
            .user_agent(concat!("profiler/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self {
            target,
            signal,
            http: config.new_agent(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.target.url
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Answer {
        let failed = |why| Answer::Failed { why, wait: None };
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(why) => return failed(why),
        };
        let kind = self.target.kind;
        let mut request = self
            .http
            .post(format!("{}{}", self.target.url, kind.path(self.signal)));
        request = match kind {
            Kind::Otlp => request
                .header("Content-Type", "application/x-protobuf")
                .header("Content-Encoding", "gzip"),
            Kind::Pyroscope | Kind::Parca => request.header("Content-Type", "application/json"),
        };
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        match request.send(bytes) {
            Ok(mut response) => {
                let wait = response.headers().get("retry-after");
                let wait = wait.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
                let status = response.status().as_u16();
                let body = response
                    .body_mut()
                    .with_config()
                    .limit(ANSWER_MAX)
                    .read_to_vec();
                judge(
                    (kind, self.signal),
                    status,
                    &body.unwrap_or_default(),
                    wait.map(Duration::from_secs),
                )
            }
            Err(error) => failed(error.to_string()),
        }
    }

    /// As they are now: tokens are renewed.
    fn headers(&self) -> Result<Vec<(String, String)>, String> {
        let Some(path) = &self.target.headers_file else {
            return Ok(Vec::new());
        };
        let text = trusted::read_text(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        parse_headers(&text).map_err(|line| format!("{}:{line}: no `Name: value`", path.display()))
    }
}

/// The names and values, or the number of the first line that is none. The line itself is a secret.
fn parse_headers(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut headers = Vec::new();
    for (position, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(position + 1)?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(headers)
}

/// What an answer means. Only what says that this very request is wrong refuses it: a place that is not there
/// (404), does not know us (401, 403) or is not the right one may be mended before the queue gives up. Pure.
fn judge(
    (kind, signal): (Kind, Signal),
    status: u16,
    body: &[u8],
    wait: Option<Duration>,
) -> Answer {
    let words: String = String::from_utf8_lossy(body)
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS_MAX)
        .collect();
    let why = format!("status {status} {words}").trim_end().to_owned();
    match status {
        200..=299 if kind == Kind::Otlp => {
            partial(signal, body).map_or(Answer::Taken, Answer::Refused)
        }
        200..=299 => Answer::Taken,
        400 | 413 | 415 | 422 => Answer::Refused(why),
        _ => Answer::Failed { why, wait },
    }
}

/// Why a Collector that said yes has rejected something, if it has.
fn partial(signal: Signal, body: &[u8]) -> Option<String> {
    let (count, why) = match signal {
        Signal::Profiles => {
            let response = ExportProfilesServiceResponse::decode(body).ok()?;
            let partial = response.partial_success?;
            (partial.rejected_profiles, partial.error_message)
        }
        Signal::Metrics => {
            let response = ExportMetricsServiceResponse::decode(body).ok()?;
            let partial = response.partial_success?;
            (partial.rejected_data_points, partial.error_message)
        }
    };
    let what = match signal {
        Signal::Profiles => "profiles",
        Signal::Metrics => "data points",
    };
    (count > 0).then(|| format!("{count} {what} rejected: {why}"))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::{
        metrics::v1::ExportMetricsPartialSuccess,
        profiles::v1development::ExportProfilesPartialSuccess,
    };

    use super::{
        Answer, Duration, ExportMetricsServiceResponse, ExportProfilesServiceResponse, Kind,
        Message, Signal, judge, parse_headers,
    };

    /// Only a wrong request is refused; everything else is worth another attempt.
    #[test]
    fn answers_are_judged() {
        let of = |status| judge((Kind::Parca, Signal::Profiles), status, b"no\n", None);
        assert_eq!(of(200), Answer::Taken);
        assert_eq!(of(400), Answer::Refused("status 400 no".to_owned()));
        for status in [302, 401, 403, 404, 429, 500, 503] {
            assert!(matches!(of(status), Answer::Failed { .. }), "{status}");
        }
        let wait = Some(Duration::from_secs(7));
        let later = judge((Kind::Otlp, Signal::Profiles), 429, b"", wait);
        assert!(matches!(later, Answer::Failed { wait: Some(wait), .. } if wait.as_secs() == 7));
    }

    /// A Collector that takes a request and rejects what is in it has not taken it.
    #[test]
    fn partial_success_is_no_success() {
        let answer = |rejected_profiles| {
            let response = ExportProfilesServiceResponse {
                partial_success: Some(ExportProfilesPartialSuccess {
                    rejected_profiles,
                    error_message: "too old".to_owned(),
                }),
            };
            judge(
                (Kind::Otlp, Signal::Profiles),
                200,
                &response.encode_to_vec(),
                None,
            )
        };
        let response = ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: 3,
                error_message: "no".to_owned(),
            }),
        };
        assert_eq!(
            judge(
                (Kind::Otlp, Signal::Metrics),
                200,
                &response.encode_to_vec(),
                None
            ),
            Answer::Refused("3 data points rejected: no".to_owned())
        );
        assert_eq!(answer(0), Answer::Taken);
        assert_eq!(
            answer(2),
            Answer::Refused("2 profiles rejected: too old".to_owned())
        );
        assert_eq!(
            judge((Kind::Otlp, Signal::Profiles), 200, b"", None),
            Answer::Taken
        );
    }

    /// Headers are a line each; a line that is none is named by its number alone.
    #[test]
    fn headers_are_lines() {
        let text = "# for us\nX-Scope-OrgID: a\n\nAuthorization: Bearer x:y\n";
        let headers = parse_headers(text).unwrap();
        assert_eq!(
            headers[1],
            ("Authorization".to_owned(), "Bearer x:y".to_owned())
        );
        assert_eq!(headers.len(), 2);
        assert_eq!(parse_headers("A: b\nsecret"), Err(2));
    }
}
