//! Who may ask, and what a page may do.
//!
//! A page of any site can make a browser ask an address of this machine, also under a name of that site's
//! (DNS rebinding): only requests that name this machine are answered. Where a token is wanted, nobody without it
//! gets anything, whatever name is given.

use std::{fs, net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::{
    Web,
    listen::{Listen, WebError},
};

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
            let text = fs::read_to_string(path).map_err(|source| WebError::Token {
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

    /// Why a request with these headers is not answered, if it is not. Pure.
    fn refusal(&self, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        if let Some(token) = &self.token {
            return (!shows(headers, token)).then_some((
                StatusCode::UNAUTHORIZED,
                "this page wants `Authorization: Bearer TOKEN`\n",
            ));
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let is_ours = self.is_unix || host.is_some_and(names_this_machine);
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

/// Whether a `Host` header is a name of this machine that no other site can have.
pub(crate) fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Around each answer.
pub(super) async fn watch(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(request.headers()) {
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

    use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

    use super::{Guard, Listen, Web, WebError, names_this_machine};

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
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
        let guard = Guard {
            token: None,
            is_unix: false,
        };
        assert!(
            guard
                .refusal(&headers(header::HOST, "localhost:1"))
                .is_none()
        );
        let refused = guard.refusal(&headers(header::HOST, "evil.example"));
        assert_eq!(
            refused.map(|(status, _)| status),
            Some(StatusCode::MISDIRECTED_REQUEST)
        );
        assert!(guard.refusal(&HeaderMap::new()).is_some());
        let unix = Guard {
            token: None,
            is_unix: true,
        };
        assert!(unix.refusal(&HeaderMap::new()).is_none());
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
                .refusal(&headers(header::AUTHORIZATION, value))
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
        assert!(guard.refusal(&headers(header::HOST, "localhost")).is_some());
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
