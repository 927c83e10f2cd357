//! A small catalogue with stock, so that the examples of the documentation work on a new database.
//!
//! Loading it again changes nothing: entries that are there stay what they are, and only levels that never changed are stocked.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    domain::{
        CommandId, Product, ProductId, StockKey, Warehouse, WarehouseId,
        catalogue::{Code, Name, Threshold},
        command::{Adjustment, AdjustmentKind, Note, Request},
    },
    inventory::{
        Inventory,
        catalogue::{Entry, PutError},
        decide::{Command, CommandError, Rendered},
    },
    store::StoreError,
};

const WAREHOUSES: [(&str, &str); 4] = [
    ("US-WEST", "Oakland"),
    ("US-EAST", "Newark"),
    ("1", "Warehouse 1"),
    ("2", "Warehouse 2"),
];

/// A product of the demonstration and what stands of it where.
struct Demo {
    sku: &'static str,
    name: &'static str,
    min_stock: i64,
    reorder_point: i64,
    stock: &'static [(&'static str, i64)],
}

const PRODUCTS: [Demo; 5] = [
    // The first by sku: of it `GET /stock` tells when it is not told.
    Demo {
        sku: "000",
        name: "Product X",
        min_stock: 2,
        reorder_point: 5,
        stock: &[("US-WEST", 12)],
    },
    Demo {
        sku: "OLJCESPC7Z",
        name: "Sunglasses",
        min_stock: 10,
        reorder_point: 50,
        stock: &[("US-WEST", 150), ("US-EAST", 200)],
    },
    Demo {
        sku: "1",
        name: "Widget",
        min_stock: 10,
        reorder_point: 20,
        stock: &[("1", 100)],
    },
    Demo {
        sku: "45",
        name: "Widget A",
        min_stock: 10,
        reorder_point: 20,
        stock: &[("2", 150)],
    },
    Demo {
        sku: "66VCHSJNUP",
        name: "Tank Top",
        min_stock: 10,
        reorder_point: 30,
        stock: &[("US-WEST", 60), ("US-EAST", 25)],
    },
];

/// What was there before and what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub entries: usize,
    pub levels: usize,
}

/// Why it could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the demonstration itself is wrong: {0}")]
    Wrong(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Put(#[from] PutError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The same in every database.
fn id(kind: &str, code: &str) -> Uuid {
    Uuid::from_u128(xxh3_128(format!("{kind} {code}").as_bytes()))
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn wrong(why: impl ToString) -> DemoError {
    DemoError::Wrong(why.to_string())
}

/// Loads what is missing.
pub async fn load(inventory: &Arc<Inventory>) -> Result<Loaded, DemoError> {
    let mut loaded = Loaded::default();
    for (code, name) in WAREHOUSES {
        if inventory.warehouse_by_code(code).await?.is_none() {
            let warehouse = Warehouse {
                id: WarehouseId::new(id("warehouse", code)).ok_or_else(|| wrong(code))?,
                code: Some(Code::new(code).map_err(wrong)?),
                name: Some(Name::new(name).map_err(wrong)?),
            };
            inventory.put(Entry::Warehouse(&warehouse)).await?;
            loaded.entries += 1;
        }
    }
    for demo in &PRODUCTS {
        if inventory.product_by_sku(demo.sku).await?.is_none() {
            let product = Product {
                id: ProductId::new(id("product", demo.sku)).ok_or_else(|| wrong(demo.sku))?,
                sku: Some(Code::new(demo.sku).map_err(wrong)?),
                name: Some(Name::new(demo.name).map_err(wrong)?),
                min_stock: Some(Threshold::new(demo.min_stock).map_err(wrong)?),
                reorder_point: Some(Threshold::new(demo.reorder_point).map_err(wrong)?),
            };
            inventory.put(Entry::Product(&product)).await?;
            loaded.entries += 1;
        }
        for &(code, units) in demo.stock {
            loaded.levels += usize::from(stock(inventory, demo.sku, code, units).await?);
        }
    }
    Ok(loaded)
}

/// Restocks a level that never changed; whether it did.
async fn stock(
    inventory: &Arc<Inventory>,
    sku: &str,
    code: &str,
    units: i64,
) -> Result<bool, DemoError> {
    let product = inventory.product_by_sku(sku).await?;
    let warehouse = inventory.warehouse_by_code(code).await?;
    let key = warehouse.zip(product);
    let (warehouse, product) = key.ok_or_else(|| wrong(sku))?;
    let key = StockKey { warehouse, product };
    let level = inventory.levels_of(&[key]).await?.value.into_iter().next();
    if level.is_some_and(|level| level.revision.0 > 0) {
        return Ok(false);
    }
    let command = CommandId::new(Uuid::now_v7()).ok_or_else(|| wrong("an id"))?;
    let note = Note {
        reason: Some("Opening stock".into()),
        ..Note::default()
    };
    let restock = Adjustment::new(command, key, AdjustmentKind::Restock, units, note);
    inventory
        .decide(Command {
            request: Request::Adjust {
                adjustment: restock.map_err(wrong)?,
                expected: None,
            },
            once: None,
            creates: None,
            shows: None,
            render: Box::new(|_| Rendered {
                status: 200,
                body: Bytes::new(),
            }),
        })
        .await?;
    Ok(true)
}
