//! The dashboard page, whose files are in the binary: no build step, no other host.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::{Context, answer::matches_etag, error::ApiError};

/// A file of the page.
struct Asset {
    name: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal),+ $(,)?) => {
        &[$(Asset { name: $name, text: include_str!(concat!("../../web/dashboard/", $name)) }),+]
    };
}

const ASSETS: &[Asset] = assets![
    "address.js",
    "alerts.js",
    "api.js",
    "chart.js",
    "differences.js",
    "dom.js",
    "feed.js",
    "format.js",
    "history.js",
    "index.html",
    "lists.js",
    "main.js",
    "model.js",
    "notify.js",
    "order.js",
    "scope.js",
    "style.css",
    "summary.js",
    "table.js",
    "theme.js",
];

/// The page may load and ask for nothing but what this service has, and nobody may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { show("index.html", &headers) }),
        )
        .route("/dashboard/{name}", get(file))
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    show(&name, &headers)
}

fn show(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or(ApiError::NotFound("The dashboard has no such file"))?;
    let hash = xxh3_128(asset.text.as_bytes());
    let etag = format!("\"{}\"", Uuid::from_u128(hash).as_simple());
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| matches_etag(known, &etag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type(name))], asset.text).into_response()
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    out.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    out.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    // Kept by the browser, and asked for again: another version of the service has another page.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        out.insert(header::ETAG, etag);
    }
    Ok(response)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_page_is_in_the_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dashboard");
        let there: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let known = ASSETS.iter().map(|asset| asset.name.to_owned());
        assert_eq!(known.collect::<BTreeSet<_>>(), there);
    }
}
