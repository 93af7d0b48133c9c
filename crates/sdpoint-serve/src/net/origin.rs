//! Requests from web pages. A page of another origin must not use the server through the
//! browser of a user who can reach it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::protocol::error::{ApiError, Kind};

/// An origin whose pages may use the server, such as `https://app.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Option<Uri> = text.parse().ok();
        let is_origin = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some()
                && uri.path() == "/"
                && uri.query().is_none()
                && !text.ends_with('/')
        });
        if is_origin {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(format!(
                "'{text}' is not an origin; expected one such as https://app.example"
            ))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The web pages that may use the server.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Other origins that are allowed.
    pub allowed: Vec<Origin>,
    /// Whether the server's own pages must have a local host name. Any other name that
    /// resolves to this machine is a DNS rebinding attack.
    pub local: bool,
}

impl Pages {
    /// Checks the origin of a request. Returns it if it is another, allowed origin, which
    /// the response has to name.
    ///
    /// # Errors
    /// If the request is from a page that may not use the server.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(None);
        };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if self.allowed.iter().any(|allowed| allowed.0 == text) {
            return Ok(Some(origin.clone()));
        }
        if self.own(&text, headers) {
            return Ok(None);
        }
        Err(ApiError::new(
            Kind::Forbidden,
            "pages of other origins may not use this server; allow one with --allow-origin",
        ))
    }

    /// Checks the host of a request for what the server's own page shows. Browsers send no
    /// origin when a page fetches from its own server, which a page of an attacker becomes
    /// by DNS rebinding.
    ///
    /// # Errors
    /// If the server's pages must have a local host name, and this is another.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let named = |host: &str| {
            let host = host.to_ascii_lowercase();
            let named = |origin: &Origin| origin.0.split_once("://").is_some_and(|o| o.1 == host);
            self.allowed.iter().any(named)
        };
        if !self.local || host.is_none_or(|host| is_local(host) || named(host)) {
            return Ok(());
        }
        Err(ApiError::new(
            Kind::Forbidden,
            "without a token, this server shows its page only under a local name, such as \
             localhost; allow another with --allow-origin",
        ))
    }

    fn own(&self, origin: &str, headers: &HeaderMap) -> bool {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let (Some(host), Some(authority)) = (host, authority) else {
            return false;
        };
        host.eq_ignore_ascii_case(authority) && (!self.local || is_local(authority))
    }
}

/// Whether a host can only be this machine: an IP address, or a name that DNS does not
/// resolve.
fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

/// The response to a CORS preflight request; none for any other request.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
    let asks =
        method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    asks.then(|| {
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type, inference-header-content-length",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        (StatusCode::NO_CONTENT, allowed).into_response()
    })
}

/// Lets a page of an allowed origin read a response.
pub fn name_origin(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("inference-header-content-length, retry-after"),
    );
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pages: &Pages, origin: &str, host: &str) -> Result<Option<HeaderValue>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        pages.check(&headers)
    }

    #[test]
    fn other_origins_may_not() {
        let pages = Pages {
            allowed: vec![],
            local: true,
        };
        assert_eq!(pages.check(&HeaderMap::new()), Ok(None));
        for own in [
            "127.0.0.1:8080",
            "localhost:8080",
            "[::1]:8080",
            "a.localhost:8080",
        ] {
            assert_eq!(
                check(&pages, &format!("http://{own}"), own),
                Ok(None),
                "{own}"
            );
        }
        for (origin, host) in [
            ("https://evil.example", "127.0.0.1:8080"),
            // DNS rebinding.
            ("http://evil.example:8080", "evil.example:8080"),
            ("http://127.0.0.1:3000", "127.0.0.1:8080"),
            ("null", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
        ] {
            let error = check(&pages, origin, host).unwrap_err();
            assert_eq!(error.kind, Kind::Forbidden, "{origin}");
        }
        let reachable = Pages {
            allowed: vec![],
            local: false,
        };
        let named = check(&reachable, "https://sdpoint.example", "sdpoint.example");
        assert_eq!(named, Ok(None));
    }

    #[test]
    fn pages_have_a_local_host_name() {
        let check = |local, host: &str| {
            let allowed = vec!["https://app.example".parse().unwrap()];
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            Pages { allowed, local }.check_host(&headers)
        };
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]", "App.example"] {
            assert_eq!(check(true, host), Ok(()), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", ""] {
            assert!(check(true, host).is_err(), "{host}");
            assert_eq!(check(false, host), Ok(()), "{host}");
        }
    }

    #[test]
    fn some_may_if_they_are_named() {
        let allowed = vec!["https://app.example".parse().unwrap()];
        let pages = Pages {
            allowed,
            local: true,
        };
        let origin = check(&pages, "https://app.example", "127.0.0.1:8080").unwrap();
        assert_eq!(origin.unwrap(), "https://app.example");
        assert!(check(&pages, "https://app.example.evil", "127.0.0.1:8080").is_err());
        for bad in [
            "app.example",
            "https://app.example/",
            "https://a/b",
            "ftp://a",
            "*",
            "null",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
