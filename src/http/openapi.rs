//! The `OpenAPI` 3.1 document, made from the handlers.

use std::sync::LazyLock;

use axum::{
    http::{Method, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi,
    openapi::{
        Content, OpenApi as Specification, PathItem, Ref, RefOr, Response as Described,
        ResponseBuilder,
        path::Operation,
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    Context, api_routes, ops_routes,
    rights::{self, LIVE, Over, Right},
};

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
        let mut document = routes.into_openapi();
        say_rights(&mut document);
        // The document is made of text and numbers, which JSON can always hold.
        let mut text = document.to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// What proves who somebody is: a key or a token; for a live connection also a ticket.
const BEARER: &str = "bearer";
const TICKET: &str = "ticket";

/// Says of each operation what it asks for, as the guard does it.
fn say_rights(document: &mut Specification) {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some(
        "Where `access.enabled` is set: an API key (`stockyard key create`) or a token of the configured issuer, with the scope \
        that the operation names."
            .to_owned(),
    );
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    let ticket =
        ApiKeyValue::with_description("ticket", "What POST /api/tickets gave, for one connection.");
    components.add_security_scheme(TICKET, SecurityScheme::ApiKey(ApiKey::Query(ticket)));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            say_right(&method, path, operation);
        }
    }
}

fn say_right(method: &Method, path: &str, operation: &mut Operation) {
    let Right::Has(scope, over) = rights::of(method, path) else {
        return;
    };
    let mut requirements = vec![SecurityRequirement::new(BEARER, [scope.as_str()])];
    if LIVE.contains(&path) {
        requirements.push(SecurityRequirement::new(TICKET, [scope.as_str()]));
    }
    operation.security = Some(requirements);
    let refusals = [
        (
            "400",
            "Authorization is not Bearer and one key or token".to_owned(),
        ),
        (
            "429",
            "Too many requests, where http.requests_per_second is set: Retry-After says when"
                .to_owned(),
        ),
        ("503", "Who asks cannot be found out now".to_owned()),
        ("401", "No key or token, or one that is not good".to_owned()),
        (
            "403",
            match over {
                Over::Named => format!("The scope {scope} or this warehouse was not granted"),
                Over::All => format!("The scope {scope} or all warehouses were not granted"),
            },
        ),
    ];
    for (status, description) in refusals {
        let responses = &mut operation.responses.responses;
        // What a route says of its own refusals stays.
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(refusal(description)));
    }
}

/// A problem document with this meaning.
fn refusal(description: String) -> Described {
    let problem = Ref::from_schema_name("Problem");
    let content = Content::new(Some(RefOr::Ref(problem)));
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let each = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::DELETE, &mut item.delete),
    ];
    each.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
