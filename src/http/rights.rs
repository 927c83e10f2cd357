//! What each route asks for of whoever calls it. The guard goes by it, and so does the document: nothing else says it again.

use axum::http::Method;

use crate::domain::access::Scope;

/// Whose stock a route is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody's, or that of warehouses which the handler compares with those the caller reaches.
    Named,
    /// That of all: who is limited to some warehouses may not.
    All,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Everybody,
    Has(Scope, Over),
}

/// Where a page may prove by a ticket who it is for.
pub(super) const LIVE: [&str; 4] = ["/ws", "/ws/inventory", "/ws/stock", "/events"];

const RIGHTS: [(&str, Scope, Over); 52] = [
    ("GET /api/movements", Scope::Read, Over::All),
    ("GET /api/movements/{movement_id}", Scope::Read, Over::All),
    ("GET /api/differences", Scope::Read, Over::All),
    ("GET /api/products", Scope::Read, Over::Named),
    ("GET /api/warehouses", Scope::Read, Over::Named),
    (
        "GET /api/warehouses/{warehouse_id}/products",
        Scope::Read,
        Over::Named,
    ),
    (
        "GET /api/warehouses/{warehouse_id}/products/{product_id}",
        Scope::Read,
        Over::Named,
    ),
    (
        "GET /api/warehouses/{warehouse_id}/products/{product_id}/explain",
        Scope::Read,
        Over::Named,
    ),
    (
        "GET /api/warehouses/{warehouse_id}/products/{product_id}/history",
        Scope::Read,
        Over::Named,
    ),
    ("POST /api/stock/query", Scope::Read, Over::Named),
    (
        "GET /api/reservations/{reservation_id}",
        Scope::Read,
        Over::Named,
    ),
    ("POST /api/tickets", Scope::Read, Over::Named),
    ("GET /inventory", Scope::Read, Over::All),
    ("GET /inventory/low-stock", Scope::Read, Over::All),
    ("GET /inventory/{product_id}", Scope::Read, Over::All),
    ("GET /stock", Scope::Read, Over::All),
    ("GET /summary", Scope::Read, Over::All),
    ("GET /products", Scope::Read, Over::All),
    ("GET /products/", Scope::Read, Over::All),
    ("GET /products/{id}", Scope::Read, Over::All),
    ("GET /orders", Scope::Read, Over::All),
    ("GET /orders/", Scope::Read, Over::All),
    ("GET /orders/recent", Scope::Read, Over::All),
    ("GET /orders/{id}", Scope::Read, Over::All),
    ("GET /ws", Scope::Read, Over::Named),
    ("GET /ws/inventory", Scope::Read, Over::Named),
    ("GET /ws/stock", Scope::Read, Over::All),
    ("GET /events", Scope::Read, Over::Named),
    ("POST /api/adjustments", Scope::Adjust, Over::Named),
    ("POST /api/adjustments/bulk", Scope::Adjust, Over::Named),
    ("POST /inventory/adjust", Scope::Adjust, Over::Named),
    // Their answers tell of the product everywhere.
    (
        "POST /inventory/{product_id}/update",
        Scope::Adjust,
        Over::All,
    ),
    ("POST /products/{id}/stock/adjust", Scope::Adjust, Over::All),
    ("POST /api/reservations", Scope::Reserve, Over::Named),
    (
        "POST /api/reservations/{reservation_id}/confirm",
        Scope::Reserve,
        Over::Named,
    ),
    (
        "POST /api/reservations/{reservation_id}/extend",
        Scope::Reserve,
        Over::Named,
    ),
    (
        "POST /api/reservations/{reservation_id}/release",
        Scope::Reserve,
        Over::Named,
    ),
    (
        "POST /inventory/{product_id}/reserve",
        Scope::Reserve,
        Over::All,
    ),
    ("POST /orders", Scope::Reserve, Over::All),
    ("POST /orders/", Scope::Reserve, Over::All),
    ("POST /orders/{id}/cancel", Scope::Reserve, Over::All),
    ("POST /orders/{id}/pay", Scope::Reserve, Over::All),
    ("POST /orders/{id}/ship", Scope::Reserve, Over::All),
    (
        "POST /api/movements/{movement_id}/void",
        Scope::Admin,
        Over::All,
    ),
    ("PUT /api/products/{product_id}", Scope::Admin, Over::All),
    (
        "PUT /api/warehouses/{warehouse_id}",
        Scope::Admin,
        Over::All,
    ),
    ("POST /products", Scope::Admin, Over::All),
    ("POST /products/", Scope::Admin, Over::All),
    ("PUT /products/{id}", Scope::Admin, Over::All),
    ("DELETE /products/{id}", Scope::Admin, Over::All),
    ("GET /metrics", Scope::Admin, Over::All),
    ("GET /metrics/", Scope::Admin, Over::All),
];

/// Files that are the same for everybody.
const FILES: [&str; 6] = [
    "/",
    "/dashboard/{name}",
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{*rest}",
];

/// What load balancers ask for, which have no key, often and from one address.
pub(super) const PROBES: [&str; 4] = ["/livez", "/readyz", "/health", "/health/"];

/// What Prometheus asks for, which has no key where only those come who run the service.
pub(super) const METRICS: [&str; 2] = ["/metrics", "/metrics/"];

/// What the route asks for. One that nobody has thought of asks for everything.
pub(super) fn of(method: &Method, template: &str) -> Right {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    if method == Method::GET && (PROBES.contains(&template) || FILES.contains(&template)) {
        return Right::Everybody;
    }
    let is_it = |(route, ..): &&(&str, Scope, Over)| {
        let parts = route.split_once(' ');
        parts.is_some_and(|(of, path)| of == method.as_str() && path == template)
    };
    match RIGHTS.iter().find(is_it) {
        Some((_, scope, over)) => Right::Has(*scope, *over),
        None => Right::Has(Scope::Admin, Over::All),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_thought_of_asks_for_everything() {
        let everything = Right::Has(Scope::Admin, Over::All);
        assert_eq!(of(&Method::GET, "/api/forgotten"), everything);
        assert_eq!(of(&Method::DELETE, "/api/products"), everything);
        assert_eq!(of(&Method::POST, "/livez"), everything);
        assert_eq!(of(&Method::GET, "/livez"), Right::Everybody);
        let read = Right::Has(Scope::Read, Over::All);
        assert_eq!(of(&Method::HEAD, "/summary"), read);
    }
}
