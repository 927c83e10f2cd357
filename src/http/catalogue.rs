//! The catalogue: names, codes and minima, stored and listed.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::{document, listed, next},
    error::{ApiError, Problem},
    input::{self, Body, Page},
};
use crate::{
    domain::{
        Product, ProductId, Warehouse, WarehouseId,
        catalogue::{Code, Name, Threshold},
    },
    inventory::catalogue::{Entry, PutError, Stored},
    store::catalogue::Put,
};

const INVALID_PRODUCT: &str = "Invalid product ID";
const INVALID_WAREHOUSE: &str = "Invalid warehouse ID";

/// What is to be known of a product. What is left out or `null` is not known any more.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ProductEntry {
    /// Stands in paths in place of the id. 1 to 64 characters; not like a UUID.
    #[schema(example = "OLJCESPC7Z", min_length = 1, max_length = 64)]
    sku: Option<String>,
    #[schema(example = "Widget A", min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A warehouse's stock of it is low at or below this many units.
    #[schema(example = 10, minimum = 0)]
    min_stock: Option<i64>,
    /// It is to be ordered again when what is available in all warehouses is at or below this many units.
    #[schema(example = 50, minimum = 0)]
    reorder_point: Option<i64>,
}

impl ProductEntry {
    fn into_product(self, id: ProductId) -> Result<Product, ApiError> {
        let sku = self.sku.as_deref().map(Code::new).transpose();
        let name = self.name.as_deref().map(Name::new).transpose();
        let min_stock = self.min_stock.map(Threshold::new).transpose();
        let reorder_point = self.reorder_point.map(Threshold::new).transpose();
        Ok(Product {
            id,
            sku: sku.map_err(ApiError::unprocessable)?,
            name: name.map_err(ApiError::unprocessable)?,
            min_stock: min_stock.map_err(ApiError::unprocessable)?,
            reorder_point: reorder_point.map_err(ApiError::unprocessable)?,
        })
    }
}

/// What is to be known of a warehouse. What is left out or `null` is not known any more.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct WarehouseEntry {
    /// Stands in paths in place of the id. 1 to 64 characters; not like a UUID.
    #[schema(example = "US-WEST", min_length = 1, max_length = 64)]
    code: Option<String>,
    #[schema(example = "Oakland", min_length = 1, max_length = 200)]
    name: Option<String>,
}

impl WarehouseEntry {
    fn into_warehouse(self, id: WarehouseId) -> Result<Warehouse, ApiError> {
        let code = self.code.as_deref().map(Code::new).transpose();
        let name = self.name.as_deref().map(Name::new).transpose();
        Ok(Warehouse {
            id,
            code: code.map_err(ApiError::unprocessable)?,
            name: name.map_err(ApiError::unprocessable)?,
        })
    }
}

/// A product in the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProductBody {
    id: Uuid,
    sku: Option<String>,
    name: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
}

impl From<&Product> for ProductBody {
    fn from(product: &Product) -> Self {
        Self {
            id: product.id.uuid(),
            sku: product.sku.as_ref().map(Code::to_string),
            name: product.name.as_ref().map(Name::to_string),
            min_stock: product.min_stock.map(Threshold::units),
            reorder_point: product.reorder_point.map(Threshold::units),
        }
    }
}

/// A warehouse in the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WarehouseBody {
    id: Uuid,
    code: Option<String>,
    name: Option<String>,
}

impl From<&Warehouse> for WarehouseBody {
    fn from(warehouse: &Warehouse) -> Self {
        Self {
            id: warehouse.id.uuid(),
            code: warehouse.code.as_ref().map(Code::to_string),
            name: warehouse.name.as_ref().map(Name::to_string),
        }
    }
}

/// A page of products.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProductsBody {
    products: Vec<ProductBody>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<Uuid>,
}

/// A page of warehouses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WarehousesBody {
    warehouses: Vec<WarehouseBody>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<Uuid>,
}

/// Store a product
///
/// Under a UUID that is not there yet it is created. The whole entry is replaced; its stock stays what it is.
#[utoipa::path(
    put,
    path = "/api/products/{product_id}",
    tag = "catalogue",
    params(("product_id" = String, Path, description = "UUID, or the sku of one that is there")),
    request_body = ProductEntry,
    responses(
        (status = 200, description = "It is stored", body = ProductBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 201, description = "It is stored and was not there before", body = ProductBody),
        (status = 400, description = INVALID_PRODUCT, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another product has this sku", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field has no meaning", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn put_product(
    State(context): State<Context>,
    Path(product): Path<String>,
    Body(entry): Body<ProductEntry>,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let id = input::product(inventory, &product, INVALID_PRODUCT)
        .await?
        .ok_or(ApiError::BadRequest(INVALID_PRODUCT))?;
    let product = entry.into_product(id)?;
    let stored = inventory.put(Entry::Product(&product)).await;
    stored_as(
        stored,
        "Another product has this sku",
        &ProductBody::from(&product),
    )
}

/// Store a warehouse
///
/// Under a UUID that is not there yet it is created. The whole entry is replaced; its stock stays what it is.
#[utoipa::path(
    put,
    path = "/api/warehouses/{warehouse_id}",
    tag = "catalogue",
    params(("warehouse_id" = String, Path, description = "UUID, or the code of one that is there")),
    request_body = WarehouseEntry,
    responses(
        (status = 200, description = "It is stored", body = WarehouseBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 201, description = "It is stored and was not there before", body = WarehouseBody),
        (status = 400, description = INVALID_WAREHOUSE, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another warehouse has this code", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field has no meaning", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn put_warehouse(
    State(context): State<Context>,
    Path(warehouse): Path<String>,
    Body(entry): Body<WarehouseEntry>,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let id = input::warehouse(inventory, &warehouse, INVALID_WAREHOUSE)
        .await?
        .ok_or(ApiError::BadRequest(INVALID_WAREHOUSE))?;
    let warehouse = entry.into_warehouse(id)?;
    let stored = inventory.put(Entry::Warehouse(&warehouse)).await;
    stored_as(
        stored,
        "Another warehouse has this code",
        &WarehouseBody::from(&warehouse),
    )
}

/// The products, by id
#[utoipa::path(
    get,
    path = "/api/products",
    tag = "catalogue",
    params(
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page", body = ProductsBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn products(
    State(context): State<Context>,
    page: Page,
) -> Result<Response, ApiError> {
    let after = page.after.and_then(ProductId::new);
    let read = context.inventory.products(after, page.limit()).await?;
    let next_cursor = next(&read.value, page.limit(), |product| product.id.uuid());
    let body = ProductsBody {
        products: read.value.iter().map(ProductBody::from).collect(),
        next_cursor,
    };
    Ok(listed(&page, page.limit(), &body, read.as_of, next_cursor))
}

/// The warehouses, by id
#[utoipa::path(
    get,
    path = "/api/warehouses",
    tag = "catalogue",
    params(
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page", body = WarehousesBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn warehouses(
    State(context): State<Context>,
    page: Page,
) -> Result<Response, ApiError> {
    let after = page.after.and_then(WarehouseId::new);
    let read = context.inventory.warehouses(after, page.limit()).await?;
    let next_cursor = next(&read.value, page.limit(), |warehouse| warehouse.id.uuid());
    let body = WarehousesBody {
        warehouses: read.value.iter().map(WarehouseBody::from).collect(),
        next_cursor,
    };
    Ok(listed(&page, page.limit(), &body, read.as_of, next_cursor))
}

fn stored_as(
    stored: Result<Stored, PutError>,
    taken: &'static str,
    body: &impl Serialize,
) -> Result<Response, ApiError> {
    match stored {
        Ok(stored) => {
            let status = match stored.put {
                Put::Created => StatusCode::CREATED,
                Put::Changed | Put::Same => StatusCode::OK,
            };
            Ok(document(status, body, stored.as_of))
        }
        Err(PutError::Taken) => Err(ApiError::Conflict(taken)),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}
