//! The headers around a cached document: `ETag`, `Cache-Status`, `Stock-Version`, and what a request asks of them.

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::error::{ApiError, problem};
use crate::{
    cache::Tier,
    domain::commit::WantedCommit,
    inventory::query::{Answer, Source},
};

/// As of which commit an answer is true.
pub(super) const STOCK_VERSION: HeaderName = HeaderName::from_static("stock-version");
/// Which commit an answer must hold at least.
pub(super) const STOCK_MIN_VERSION: HeaderName = HeaderName::from_static("stock-min-version");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The commit that the request wants to be covered, if it wants one.
pub(super) struct MinVersion(pub(super) Option<WantedCommit>);

impl<S: Sync> FromRequestParts<S> for MinVersion {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(STOCK_MIN_VERSION) else {
            return Ok(Self(None));
        };
        let wanted = value.to_str().ok().and_then(|text| text.parse().ok());
        wanted.map(Some).map(Self).ok_or(ApiError::BadRequest(
            "Stock-Min-Version must be a version such as 812 or 812-5f3a9c01",
        ))
    }
}

/// The document, or 304 if the client has it already, or 404 with this detail if there is none.
pub(super) fn respond(answer: Answer, request: &HeaderMap, not_found: &'static str) -> Response {
    let version = HeaderValue::try_from(answer.as_of.to_string());
    let mut response = match answer.body {
        None => problem(StatusCode::NOT_FOUND, not_found),
        Some(body) => document(body, request),
    };
    let headers = response.headers_mut();
    if let Ok(version) = version {
        headers.insert(STOCK_VERSION, version);
    }
    headers.insert(CACHE_STATUS, cache_status(answer.source));
    response
}

fn document(body: Bytes, request: &HeaderMap) -> Response {
    let etag = format!("\"{:032x}\"", xxh3_128(&body));
    let is_known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|known| matches_etag(known, &etag));
    let mut response = if is_known {
        // What it varies by, as the answer that it stands for would say.
        (
            StatusCode::NOT_MODIFIED,
            [(header::VARY, "accept-encoding")],
        )
            .into_response()
    } else {
        let mut response = Body::from(body).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        response
    };
    let headers = response.headers_mut();
    // A client may keep it, and must ask whether it is still true.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// A compressed body is another representation of the same thing: its tag is weak (RFC 9110, 8.8.3).
pub(super) async fn weaken_etag(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(strong) = headers
            .get(header::ETAG)
            .and_then(|etag| etag.to_str().ok())
        && let Ok(weak) = HeaderValue::try_from(format!("W/{strong}"))
    {
        headers.insert(header::ETAG, weak);
    }
    response
}

/// RFC 9110, 13.1.2: a list of tags, compared weakly, or `*` for any.
fn matches_etag(known: &str, etag: &str) -> bool {
    known
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// RFC 9211.
fn cache_status(source: Source) -> HeaderValue {
    HeaderValue::from_static(match source {
        Source::Hit(Tier::Memory) => "stockyard; hit; detail=memory",
        Source::Hit(Tier::Redis) => "stockyard; hit; detail=redis",
        Source::Miss => "stockyard; fwd=miss",
        Source::Bypass => "stockyard; fwd=bypass",
    })
}

#[cfg(test)]
mod tests {
    use super::matches_etag;

    #[test]
    fn a_tag_is_found_in_its_list() {
        for known in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "\"b\" ,W/\"a\"", "*"] {
            assert!(matches_etag(known, "\"a\""), "{known}");
        }
        for known in ["", "a", "\"ab\"", "\"A\"", "\"b\""] {
            assert!(!matches_etag(known, "\"a\""), "{known}");
        }
    }
}
