//! The headers around a document: `ETag`, `Cache-Status`, `Stock-Version`, and what a request asks of them.

use std::fmt::Display;

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use super::{
    body::{etag, json},
    error::{ApiError, problem},
    input::Page,
};
use crate::{
    cache::Tier,
    domain::{CommitPoint, commit::WantedCommit},
    inventory::query::{Answer, Source},
};

/// Headers that a document has on its way out.
const HEADERS: usize = 10;
/// As of which commit an answer is true.
pub(super) const STOCK_VERSION: HeaderName = HeaderName::from_static("stock-version");
/// Which commit an answer must hold at least.
pub(super) const STOCK_MIN_VERSION: HeaderName = HeaderName::from_static("stock-min-version");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a request says of the answer it wants.
pub(super) struct Asked {
    /// The commit that is to be covered, if one is.
    pub(super) min_version: Option<WantedCommit>,
    /// Lists of tags of what the client has.
    if_none_match: Vec<HeaderValue>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let min_version = match parts.headers.get(STOCK_MIN_VERSION) {
            None => None,
            Some(value) => {
                let wanted = value.to_str().ok().and_then(|text| text.parse().ok());
                Some(wanted.ok_or(ApiError::BadRequest(
                    "Stock-Min-Version must be a version such as 812 or 812-5f3a9c01",
                ))?)
            }
        };
        let if_none_match = parts.headers.get_all(header::IF_NONE_MATCH);
        Ok(Self {
            min_version,
            if_none_match: if_none_match.iter().cloned().collect(),
        })
    }
}

/// A document as of a commit.
pub(super) fn document(status: StatusCode, body: &impl Serialize, as_of: CommitPoint) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let mut response = (status, [content_type], json(body)).into_response();
    set_version(&mut response, as_of);
    response
}

/// A page of so many entries, with a link to the next one.
pub(super) fn listed<C>(
    page: &Page<C>,
    limit: usize,
    body: &impl Serialize,
    as_of: CommitPoint,
    next: Option<impl Display>,
) -> Response {
    let mut response = document(StatusCode::OK, body, as_of);
    let rest = &page.rest;
    let link = next.map(|next| format!("<{rest}cursor={next}&limit={limit}>; rel=\"next\""));
    if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The place of the last entry of a full page: there may be more after it.
pub(super) fn next<T, C>(entries: &[T], limit: usize, place: impl Fn(&T) -> C) -> Option<C> {
    entries.last().filter(|_| entries.len() >= limit).map(place)
}

pub(super) fn set_version(response: &mut Response, as_of: CommitPoint) {
    if let Ok(version) = HeaderValue::try_from(as_of.to_string()) {
        response.headers_mut().insert(STOCK_VERSION, version);
    }
}

/// The document, or 304 if the client has it already, or 404 with this detail if there is none.
pub(super) fn respond(answer: Answer, asked: &Asked, not_found: &'static str) -> Response {
    let mut response = match answer.body {
        None => problem(StatusCode::NOT_FOUND, not_found),
        Some(body) => unless_known(body, "application/json", &asked.if_none_match),
    };
    set_version(&mut response, answer.as_of);
    let cache_status = cache_status(answer.source);
    response.headers_mut().insert(CACHE_STATUS, cache_status);
    response
}

/// A document with its tag, or 304 if the client has it already.
pub(super) fn unless_known<'h>(
    body: Bytes,
    content_type: &'static str,
    if_none_match: impl IntoIterator<Item = &'h HeaderValue>,
) -> Response {
    let etag = etag(&body);
    let is_known = if_none_match
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .any(|known| matches_etag(known, &etag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Body::from(body).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    // A client may keep it, and must ask whether it is still true.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// A compressed body is another representation of the same thing: its tag is weak (RFC 9110, 8.8.3).
pub(super) fn weaken_etag(mut response: Response) -> Response {
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
