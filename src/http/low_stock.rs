//! What is low: levels at or below their minimum, products at or below their reorder point.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::{listed, next},
    error::{ApiError, Problem},
    input::Page,
};
use crate::{
    domain::{
        Product, ProductId, StockKey, WarehouseId,
        catalogue::{Name, Threshold},
    },
    inventory::catalogue::PAGE_MAX,
    store::stock::LowLevel,
};

/// A level at or below its minimum.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LowBody {
    /// The sku where there is one, else the UUID.
    product_id: String,
    product_name: Option<String>,
    warehouse_id: Uuid,
    /// The code where there is one, else the UUID.
    warehouse: String,
    #[schema(minimum = 0)]
    current_quantity: i64,
    min_stock: Option<i64>,
}

impl LowBody {
    fn new(low: &LowLevel) -> Self {
        let (product, warehouse) = (&low.product, &low.placed.warehouse);
        Self {
            product_id: product.label(),
            product_name: product.name.as_ref().map(Name::to_string),
            warehouse_id: warehouse.id.uuid(),
            warehouse: warehouse.label(),
            current_quantity: low.placed.level.quantity(),
            min_stock: product.min_stock.map(Threshold::units),
        }
    }
}

/// A product of which so few are available that it is to be ordered again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReorderBody {
    /// The sku where there is one, else the UUID.
    product_id: String,
    product_name: Option<String>,
    /// In all warehouses.
    #[schema(minimum = 0)]
    available_stock: i64,
    reorder_point: Option<i64>,
}

impl ReorderBody {
    fn new((product, available_stock): &(Product, i64)) -> Self {
        Self {
            product_id: product.label(),
            product_name: product.name.as_ref().map(Name::to_string),
            available_stock: *available_stock,
            reorder_point: product.reorder_point.map(Threshold::units),
        }
    }
}

/// A page of what is low.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LowStockBody {
    low_stock: Vec<LowBody>,
    /// By product; on the first page, and at most as many as a page has entries (`/summary` has their number). As of the page's
    /// commit or later.
    reorder_needed: Vec<ReorderBody>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<String>,
}

/// A level as the place of a page.
pub(super) struct KeyCursor(StockKey);

impl FromStr for KeyCursor {
    type Err = ();

    fn from_str(cursor: &str) -> Result<Self, ()> {
        let (product, warehouse) = cursor.split_once('.').ok_or(())?;
        let id = |text| Uuid::try_parse(text).map_err(drop);
        Ok(Self(StockKey {
            product: ProductId::new(id(product)?).ok_or(())?,
            warehouse: WarehouseId::new(id(warehouse)?).ok_or(())?,
        }))
    }
}

impl Display for KeyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.product, self.0.warehouse)
    }
}

/// What is at or below its minimum
#[utoipa::path(
    get,
    path = "/inventory/low-stock",
    tag = "inventory",
    params(
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 1000 if it is left out")
    ),
    responses(
        (status = 200, description = "A page, by product and warehouse", body = LowStockBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    page: Page<KeyCursor>,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let limit = page.limit.unwrap_or(PAGE_MAX);
    let after = page.after.as_ref().map(|cursor| cursor.0);
    let read = inventory.low_levels(after, limit).await?;
    let to_reorder = match after {
        None => inventory.to_reorder(limit).await?,
        Some(_) => Vec::new(),
    };
    let next = next(&read.value, limit, |low| {
        KeyCursor(StockKey {
            product: low.product.id,
            warehouse: low.placed.warehouse.id,
        })
    });
    let body = LowStockBody {
        low_stock: read.value.iter().map(LowBody::new).collect(),
        reorder_needed: to_reorder.iter().map(ReorderBody::new).collect(),
        next_cursor: next.as_ref().map(KeyCursor::to_string),
    };
    Ok(listed(&page, limit, &body, read.as_of, next))
}
