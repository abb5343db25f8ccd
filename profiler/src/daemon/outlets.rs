//! What leaves the daemon while it runs: the page, and the exports. Changed by reloads, ended with the daemon.

use std::sync::Arc;

use super::{config::Settings, status::Status};
use crate::{
    error::Error,
    export::Exports,
    web::{self, Server, Sources},
};

/// Both of them.
pub(super) struct Outlets {
    pub(super) exports: Exports,
    server: Option<Server>,
    listen_publicly: bool,
    status: Arc<Status>,
}

impl Outlets {
    /// As configured. `listen_publicly` is the word of the command line.
    pub(super) fn start(
        settings: &Settings,
        listen_publicly: bool,
        status: Arc<Status>,
    ) -> Result<Self, Error> {
        let mut outlets = Self {
            exports: Exports::default(),
            server: None,
            listen_publicly,
            status,
        };
        outlets
            .exports
            .configure(&settings.state, &settings.export)?;
        outlets.server = outlets.serve(settings)?;
        Ok(outlets)
    }

    /// Changes what differs. Where the new page cannot be served the old one is, as the old configuration holds.
    pub(super) fn apply(&mut self, settings: &Settings, before: &Settings) -> Result<(), Error> {
        let moved = settings.state != before.state;
        if settings.web != before.web || moved {
            // An address can be had only when it has been given up.
            self.server = None;
            match self.serve(settings) {
                Ok(server) => self.server = server,
                Err(error) => {
                    self.server = self.serve(before).ok().flatten();
                    return Err(error);
                }
            }
        }
        if settings.export != before.export || moved {
            self.exports.configure(&settings.state, &settings.export)?;
        }
        Ok(())
    }

    fn serve(&self, settings: &Settings) -> Result<Option<Server>, Error> {
        web::check(settings.web.as_ref(), self.listen_publicly)?;
        let Some(web) = &settings.web else {
            return Ok(None);
        };
        let top = usize::try_from(web.top_queries).unwrap_or(usize::MAX);
        self.status.queries().set_top(top);
        let sources = Sources {
            state: settings.state.clone(),
            status: Arc::clone(&self.status),
            exports: self.exports.clone(),
        };
        Server::start(web, sources).map(Some)
    }
}
