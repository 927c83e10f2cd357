//! The `OpenAPI` 3.1 document, made from the handlers.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{Context, api_routes, ops_routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stockyard",
        description = "What stands in which warehouse, at every moment. Errors are RFC 9457 problem documents.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "stock", description = "How much of this is there"),
        (name = "catalogue", description = "What products and warehouses are called"),
        (name = "movements", description = "What happened to this movement"),
        (name = "inventory", description = "Products and what stands of them"),
        (name = "commands", description = "What is asked of stock, and may be refused"),
        (name = "orders", description = "Products with prices, and orders of them"),
        (name = "summary", description = "What there is in all"),
        (name = "live", description = "Every change, as it happens"),
        (name = "operations", description = "How the service is")
    )
)]
struct Document;

/// The document as indented JSON with a newline at its end: what `stockyard openapi` prints and the service serves.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let routes: OpenApiRouter<Context> = OpenApiRouter::with_openapi(Document::openapi())
            .merge(api_routes())
            .merge(ops_routes());
        // The document is made of text and numbers, which JSON can always hold.
        let mut text = routes.into_openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}
