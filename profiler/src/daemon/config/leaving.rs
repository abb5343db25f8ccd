//! What leaves the daemon: the page, and windows that are sent elsewhere.

use std::time::Duration;

use super::{
    file,
    value::{Bytes, Span},
};
use crate::{
    export::{Export, Kind, Limits, Signal, Target},
    web::{Listen, Web},
};

/// Statements with series of their own: some 30 series each.
const TOP_QUERIES: u32 = 50;
/// Most of them: Prometheus keeps each series in memory.
const TOP_QUERIES_MAX: u32 = 1000;
const QUEUE_BYTES: u64 = 100_000_000;
const QUEUE_AGE: Duration = Duration::from_secs(86_400);

/// The page, if an address is named.
pub(super) fn web(section: file::Web) -> Result<Option<Web>, String> {
    let file::Web {
        listen,
        public,
        token_file,
        top_queries,
    } = section;
    let top_queries = top_queries.unwrap_or(TOP_QUERIES);
    if top_queries > TOP_QUERIES_MAX {
        return Err(format!(
            "web.top_queries: {top_queries} is more than {TOP_QUERIES_MAX}"
        ));
    }
    let Some(listen) = listen else {
        return Ok(None);
    };
    let listen: Listen = listen.parse().map_err(|why| format!("web.listen: {why}"))?;
    let public = public.unwrap_or(false);
    if !listen.is_local() {
        if !public {
            return Err(format!(
                "web.listen: {listen} can be reached by others: set web.public = true and web.token_file, and \
                 start with --listen-publicly"
            ));
        }
        if token_file.is_none() {
            return Err(format!(
                "web.listen: {listen} can be reached by others and wants web.token_file"
            ));
        }
    }
    Ok(Some(Web {
        listen,
        token_file,
        top_queries,
    }))
}

/// Where windows are sent, each place once.
pub(super) fn export(
    destinations: Vec<file::Destination>,
    queue: &file::ExportQueue,
) -> Result<Export, String> {
    let mut targets: Vec<Target> = Vec::new();
    for destination in destinations {
        let file::Destination {
            kind,
            url,
            headers_file,
            signals,
        } = destination;
        let kind = kind.ok_or("each [[export]] wants a kind: otlp, pyroscope or parca")?;
        let url = url.ok_or("each [[export]] wants an url such as \"http://127.0.0.1:4318\"")?;
        let url = base_url(&url)?;
        if targets
            .iter()
            .any(|target| (target.kind, &target.url) == (kind, &url))
        {
            return Err(format!("two [[export]] of kind {} to {url}", kind.name()));
        }
        targets.push(Target {
            kind,
            url,
            headers_file,
            signals: taken(kind, signals)?,
        });
    }
    let limits = Limits {
        bytes: queue.size.unwrap_or(Bytes(QUEUE_BYTES)).0,
        age: queue.age.unwrap_or(Span(QUEUE_AGE)).0,
    };
    Ok(Export { targets, limits })
}

/// What is sent to a place of this kind: all that it takes, unless some of it is named.
fn taken(kind: Kind, signals: Option<Vec<Signal>>) -> Result<Vec<Signal>, String> {
    let Some(mut signals) = signals else {
        return Ok(kind.signals().to_vec());
    };
    signals.sort_unstable();
    signals.dedup();
    let foreign = signals
        .iter()
        .find(|signal| !kind.signals().contains(signal));
    match foreign {
        Some(signal) => Err(format!(
            "[[export]] of kind {} takes no {}",
            kind.name(),
            signal.name()
        )),
        None if signals.is_empty() => Err("[[export]] without any of its signals".to_owned()),
        None => Ok(signals),
    }
}

/// Without a slash at its end; what the protocol wants is put behind it. Secrets are for `headers_file`: an URL is
/// logged and shown.
fn base_url(url: &str) -> Result<String, String> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let host = rest
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    if host.is_empty() || url.contains(|c: char| c.is_whitespace() || "?#".contains(c)) {
        return Err(format!(
            "`{url}` is no url such as \"http://127.0.0.1:4318\""
        ));
    }
    if host.contains('@') {
        return Err("an url with a password is shown to everybody: use headers_file".to_owned());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::file::File, Signal, base_url, export, web};

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    /// Nothing is served unless an address is named, and to others only with all that it takes.
    #[test]
    fn public_addresses_want_more() {
        let web = |text: &str| web(file(text).web.unwrap_or_default());
        assert_eq!(web(""), Ok(None));
        assert!(web("[web]\nlisten = '127.0.0.1:7979'").unwrap().is_some());
        assert!(web("[web]\nlisten = 'unix:/run/p.sock'").unwrap().is_some());
        assert!(web("[web]\nlisten = 'localhost'").is_err());
        let public = "[web]\nlisten = '0.0.0.0:7979'";
        assert!(web(public).is_err());
        assert!(web(&format!("{public}\npublic = true")).is_err());
        assert!(web(&format!("{public}\ntoken_file = '/t'")).is_err());
        assert!(web(&format!("{public}\npublic = true\ntoken_file = '/t'")).is_ok());
    }

    /// Statements with series of their own are bounded, whether the page is served or not.
    #[test]
    fn series_are_bounded() {
        let web = |text: &str| web(file(text).web.unwrap_or_default());
        let listen = "[web]\nlisten = '127.0.0.1:7979'\n";
        assert_eq!(web(listen).unwrap().unwrap().top_queries, 50);
        let none = web(&format!("{listen}top_queries = 0")).unwrap().unwrap();
        assert_eq!(none.top_queries, 0);
        assert!(web("[web]\ntop_queries = 1001").is_err());
    }

    /// Destinations are complete, told apart, and hold no password.
    #[test]
    fn destinations_are_checked() {
        let export = |text: &str| {
            let file = file(text);
            export(
                file.export.unwrap_or_default(),
                &file.export_queue.unwrap_or_default(),
            )
        };
        let one = "[[export]]\nkind = 'otlp'\nurl = 'http://c:4318/'\n";
        let targets = export(one).unwrap().targets;
        assert_eq!(targets[0].url, "http://c:4318");
        assert_eq!(targets[0].signals, [Signal::Profiles, Signal::Metrics]);
        let metrics = export(&format!("{one}signals = ['metrics']")).unwrap();
        assert_eq!(metrics.targets[0].signals, [Signal::Metrics]);
        let parca = "[[export]]\nkind = 'parca'\nurl = 'http://p'\nsignals = ['metrics']";
        assert!(export(parca).is_err());
        assert!(export(&one.repeat(2)).is_err());
        assert!(export("[[export]]\nkind = 'otlp'").is_err());
        assert!(export("[[export]]\nurl = 'http://c'").is_err());
        for url in [
            "c:4318",
            "http://",
            "http://u:p@c",
            "http://c/?a=b",
            "ftp://c",
        ] {
            assert!(base_url(url).is_err(), "{url}");
        }
    }
}
