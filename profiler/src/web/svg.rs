//! The flamegraph as a document of its own, whose script and styles are its own and named by a nonce: nothing that
//! a name in it could say is run.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// Hash of `init(evt)`, the picture's only attribute with code in it.
const INIT: &str = "'unsafe-hashes' 'sha256-WiAVSnuYekflqQvM3Bgx4QYmF4g+iml28eRUaqE8Qeo='";

/// The answer.
pub(super) fn response(svg: &str) -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let nonce = BASE64_STANDARD.encode(random);
    let kind = (header::CONTENT_TYPE, "image/svg+xml; charset=utf-8");
    let mut response = ([kind], with_nonce(svg, &nonce)).into_response();
    if let Ok(policy) = HeaderValue::try_from(policy(&nonce)) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// For what stands in the place of a picture: words.
pub(super) fn words() -> HeaderValue {
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'self'")
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}' {INIT}; style-src 'nonce-{nonce}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'self'"
    )
}

/// Names the elements of the renderer and of the legend. Text of the profile is escaped, so that it holds no `<`.
fn with_nonce(svg: &str, nonce: &str) -> String {
    svg.replace("<script ", &format!("<script nonce=\"{nonce}\" "))
        .replace("<style ", &format!("<style nonce=\"{nonce}\" "))
}

#[cfg(test)]
mod tests {
    use super::{policy, with_nonce};
    use crate::{
        output::{Format, Options, example, render},
        profile::Profile,
    };

    fn drawn(profile: &Profile) -> String {
        String::from_utf8(render(profile, Format::Svg, &Options::default()).unwrap()).unwrap()
    }

    /// Every script and style is named, and there is no other code: no handler but the one whose hash is in the
    /// policy, no style attribute.
    #[test]
    fn all_code_is_named() {
        let svg = drawn(&example::profile());
        let named = with_nonce(&svg, "abc");
        assert_eq!(named.matches("<script").count(), 1);
        assert_eq!(named.matches("<script nonce=\"abc\" ").count(), 1);
        let styles = named.matches("<style").count();
        assert_eq!(named.matches("<style nonce=\"abc\" ").count(), styles);
        assert_eq!(svg.matches(" onload=\"init(evt)\"").count(), 1);
        let handlers = svg.split(" on").skip(1).filter(|rest| {
            let name = rest.split('=').next().unwrap_or_default();
            rest.contains("=\"") && name.len() < 20 && name.chars().all(|c| c.is_ascii_lowercase())
        });
        assert_eq!(handlers.count(), 1);
        assert!(!svg.contains(" style=\""));
        assert!(policy("abc").contains("'nonce-abc'") && !policy("abc").contains("unsafe-inline"));
    }

    /// A function whose name is a script is drawn as text, and gets no nonce.
    #[test]
    fn names_are_no_code() {
        let mut profile = example::profile();
        for location in &mut profile.locations {
            location.frames[0].name = "<script src=\"//evil\">".to_owned();
        }
        let named = with_nonce(&drawn(&profile), "abc");
        assert_eq!(named.matches("<script").count(), 1);
    }
}
