//! The dashboard page, whose files are in the binary: no build step, no other host.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;

use super::{Context, answer::unless_known, error::ApiError};

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
    "access.js",
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
    // Another version of the service has another page, so a browser that keeps it has to ask.
    let mut response = unless_known(
        Bytes::from_static(asset.text.as_bytes()),
        content_type(name),
        headers.get_all(header::IF_NONE_MATCH),
    );
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
