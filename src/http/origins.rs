//! Which web pages may call the service from a browser.

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    actor::STOCK_ACTOR,
    answer::{CACHE_STATUS, STOCK_MIN_VERSION, STOCK_VERSION},
    command::IDEMPOTENCY_KEY,
    rates::{RATE_LIMIT, RATE_LIMIT_POLICY},
};

/// Stands for every origin on this machine.
const LOOPBACK: &str = "loopback";
/// Stands for pages that were opened from a file.
const FILE: &str = "file";
/// What browsers say of those (and of sandboxed frames, wherever they are from).
const OPAQUE: &str = "null";

/// The answer to browsers, by the list of origins.
pub(super) fn cors(allowed: &[String]) -> CorsLayer {
    let allowed = allowed.to_vec();
    let is_allowed =
        move |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| allows(&allowed, origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed(origin)))
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            header::IF_MATCH,
            STOCK_MIN_VERSION,
            IDEMPOTENCY_KEY,
            STOCK_ACTOR,
        ])
        .expose_headers::<[HeaderName; 8]>([
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            header::WWW_AUTHENTICATE,
            header::RETRY_AFTER,
            header::ETAG,
            header::LINK,
            CACHE_STATUS,
            STOCK_VERSION,
        ])
}

pub(super) fn allows(allowed: &[String], origin: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.as_str() {
        LOOPBACK => is_loopback(origin),
        FILE => origin == OPAQUE,
        other => other.eq_ignore_ascii_case(origin),
    })
}

fn is_loopback(origin: &str) -> bool {
    let Some(host_and_port) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|host| {
        host_and_port.strip_prefix(host).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn a_file_is_allowed_where_it_is_named() {
        assert!(allows(&["file".to_owned()], "null"));
        assert!(!allows(&["file".to_owned()], "file"));
        assert!(!allows(&["loopback".to_owned()], "null"));
    }

    #[test]
    fn loopback_is_this_machine_and_nothing_that_looks_like_it() {
        let allowed = ["loopback".to_owned(), "https://shop.example".to_owned()];
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8443",
            "http://[::1]:80",
            "https://shop.example",
        ] {
            assert!(allows(&allowed, origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "null",
            "",
            "http://localhost:x",
            "https://shop.example.evil",
            "ftp://localhost",
        ] {
            assert!(!allows(&allowed, origin), "{origin}");
        }
    }
}
