//! Who may ask, and what a page may do.
//!
//! A page of any site can make a browser ask an address of this machine, also under a name of that site's
//! (DNS rebinding): only requests that name this machine are answered. Where a token is wanted, nobody without it
//! gets anything, whatever name is given.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::{
    Web,
    listen::{Listen, WebError},
};
use crate::store::trusted;

/// Fewest characters of a token.
const TOKEN_MIN: usize = 16;

/// For all but the flamegraph, which has a policy of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; frame-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    // A connection answers one request: see `connections`.
    (header::CONNECTION, "close"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// Decides it.
#[derive(Clone)]
pub(super) struct Guard {
    token: Option<Arc<str>>,
    /// A unix socket has no name that a browser could be told.
    is_unix: bool,
}

impl Guard {
    pub(super) fn new(web: &Web) -> Result<Self, WebError> {
        let token = web.token_file.as_ref().map(|path| {
            let text = trusted::read_text(path).map_err(|source| WebError::Token {
                path: path.clone(),
                source,
            })?;
            let token = text.trim();
            if token.len() < TOKEN_MIN {
                return Err(WebError::ShortToken {
                    path: path.clone(),
                    least: TOKEN_MIN,
                });
            }
            Ok(Arc::from(token))
        });
        Ok(Self {
            token: token.transpose()?,
            is_unix: matches!(web.listen, Listen::Unix(_)),
        })
    }

    /// Why a request for this with these headers is not answered, if it is not. Pure.
    fn refusal(&self, uri: &Uri, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        if let Some(token) = &self.token {
            return (!shows(headers, token)).then_some((
                StatusCode::UNAUTHORIZED,
                "this page wants `Authorization: Bearer TOKEN`\n",
            ));
        }
        let is_ours = self.is_unix || is_for_this_machine(uri, headers);
        (!is_ours).then_some((
            StatusCode::MISDIRECTED_REQUEST,
            "ask for it as localhost or by a loopback address\n",
        ))
    }
}

/// Whether the token is there, in a time that does not depend on how much of it is right.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let value = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let shown = value.and_then(|value| {
        let (scheme, shown) = value.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(shown)
    });
    shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into())
}

/// Whether a request is for this machine, by all that says so: one `Host`, and the target where
/// that is a whole URL.
fn is_for_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let target = uri.authority().map(Authority::as_str);
    host.to_str().is_ok_and(names_this_machine) && target.is_none_or(names_this_machine)
}

/// Whether `host[:port]` is a name of this machine that no other site can have. Nothing else may
/// stand there: what reads it otherwise, such as a proxy before us, must not find another name in
/// it.
pub(crate) fn names_this_machine(host: &str) -> bool {
    let (address, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        (address.parse::<Ipv6Addr>().map(IpAddr::from), port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        if name.eq_ignore_ascii_case("localhost") {
            return is_port(port);
        }
        (name.parse::<Ipv4Addr>().map(IpAddr::from), port)
    };
    is_port(port) && address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether it is `:` and a number, or nothing.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

/// Around each answer.
pub(super) async fn watch(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(request.uri(), request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(POLICY));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
    use proptest::prelude::{prop_assert, proptest};

    use super::{Guard, Listen, Web, WebError, is_for_this_machine, names_this_machine};

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        std::iter::once((name, HeaderValue::from_str(value).unwrap())).collect()
    }

    /// Only names that no other site can have are ours.
    #[test]
    fn other_names_are_refused() {
        for host in [
            "localhost",
            "LOCALHOST:7979",
            "127.0.0.1:7979",
            "127.1.2.3",
            "[::1]:7979",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:7979",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "192.168.0.1",
            "[::2]",
            "[",
            "127.0.0.1@evil.example",
            "localhost:99@evil.example",
            "localhost:99#@evil.example",
            "localhost:",
            "localhost:+1",
            "localhost:65536",
            "localhost ",
            " localhost",
            "localhost%00",
            "localhost/",
            "localhost\\@evil.example",
            "localhost:1:2",
            "[::1]evil.example",
            "[::1]:1@evil.example",
            "[::1%25eth0]",
            "::1",
            "user@localhost",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
        let guard = Guard {
            token: None,
            is_unix: false,
        };
        assert!(
            guard
                .refusal(
                    &Uri::from_static("/"),
                    &headers(header::HOST, "localhost:1")
                )
                .is_none()
        );
        let refused = guard.refusal(
            &Uri::from_static("/"),
            &headers(header::HOST, "evil.example"),
        );
        assert_eq!(
            refused.map(|(status, _)| status),
            Some(StatusCode::MISDIRECTED_REQUEST)
        );
        assert!(guard.refusal(&Uri::default(), &HeaderMap::new()).is_some());
        let unix = Guard {
            token: None,
            is_unix: true,
        };
        assert!(unix.refusal(&Uri::default(), &HeaderMap::new()).is_none());
    }

    /// A request that names another machine as its target is not ours, and neither is one of two
    /// minds.
    #[test]
    fn every_name_must_be_ours() {
        let host = headers(header::HOST, "localhost");
        let is_ours = |target: &str| is_for_this_machine(&target.parse().unwrap(), &host);
        assert!(is_ours("/") && is_ours("http://127.0.0.1:7979/") && is_ours("http://[::1]/"));
        assert!(!is_ours("http://evil.example/") && !is_ours("http://a@localhost/"));
        let mut two = host.clone();
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!is_for_this_machine(&Uri::from_static("/"), &two));
    }

    proptest! {
        /// What passes is a name of ours and a port, and nothing else, in any reading.
        #[test]
        fn only_name_and_port_pass(
            before in "[a-z@.:%/\\[\\] ]{0,3}",
            name in "(localhost|LocalHost|127\\.0\\.0\\.100|\\[::1\\]|evil\\.example)",
            after in "[a-z0-9@.:#%/\\[\\] ]{0,8}",
        ) {
            let host = format!("{before}{name}{after}");
            if names_this_machine(&host) {
                prop_assert!(before.is_empty() && name != "evil.example", "{host}");
                let port = after.strip_prefix(':').map(str::parse::<u16>);
                prop_assert!(after.is_empty() || matches!(port, Some(Ok(_))), "{host}");
            }
        }
    }

    /// A token must be shown whole; then the name does not matter.
    #[test]
    fn token_opens() {
        let token = "0123456789abcdef";
        let guard = Guard {
            token: Some(Arc::from(token)),
            is_unix: false,
        };
        let is_open = |value: &str| {
            guard
                .refusal(&Uri::default(), &headers(header::AUTHORIZATION, value))
                .is_none()
        };
        assert!(is_open(&format!("Bearer {token}")) && is_open(&format!("bearer {token}")));
        for value in [
            "",
            token,
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdefg",
            "Basic 0123456789abcdef",
        ] {
            assert!(!is_open(value), "{value}");
        }
        assert!(
            guard
                .refusal(&Uri::default(), &headers(header::HOST, "localhost"))
                .is_some()
        );
    }

    /// A token that is missing or short is refused when the server starts.
    #[test]
    fn weak_tokens_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let web = Web {
            listen: Listen::Unix("/x".into()),
            token_file: Some(path.clone()),
            top_queries: 0,
        };
        assert!(matches!(Guard::new(&web), Err(WebError::Token { .. })));
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(Guard::new(&web), Err(WebError::ShortToken { .. })));
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Guard::new(&web).is_ok());
    }
}
