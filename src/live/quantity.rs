//! How much there is of one product in all warehouses, kept by listening to the feed as any client does.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::session::Frame;

/// A client of the feed of one product, who tells its quantity onwards.
#[derive(Debug)]
pub struct QuantityTeller {
    name: String,
    by_warehouse: HashMap<Uuid, i64>,
}

/// The frames that say something of it.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Heard {
    Snapshot {
        part: Option<u32>,
        data: Vec<HeardProduct>,
    },
    Update {
        data: HeardLevel,
    },
    Catalogue {
        data: HeardWords,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct HeardProduct {
    levels: Vec<HeardLevel>,
}

#[derive(Deserialize)]
struct HeardLevel {
    warehouse_id: Uuid,
    quantity: i64,
}

#[derive(Deserialize)]
struct HeardWords {
    product: Option<HeardName>,
}

#[derive(Deserialize)]
struct HeardName {
    id: Uuid,
    sku: Option<String>,
    name: Option<String>,
}

#[derive(Serialize)]
struct Told<'t> {
    product: &'t str,
    quantity: i64,
}

impl QuantityTeller {
    /// Of a product that is called so.
    pub fn new(name: String) -> Self {
        Self {
            name,
            by_warehouse: HashMap::new(),
        }
    }

    /// Takes a frame of that product's feed. With each that has a cursor the quantity is known and told.
    pub fn hear(&mut self, frame: &Frame) -> Option<Frame> {
        match serde_json::from_slice(&frame.text).unwrap_or(Heard::Other) {
            Heard::Snapshot { part, data } => {
                if part.unwrap_or(1) == 1 {
                    self.by_warehouse.clear();
                }
                for level in data.into_iter().flat_map(|product| product.levels) {
                    self.by_warehouse.insert(level.warehouse_id, level.quantity);
                }
            }
            Heard::Update { data } => {
                self.by_warehouse.insert(data.warehouse_id, data.quantity);
            }
            Heard::Catalogue { data } => {
                if let Some(HeardName { id, sku, name }) = data.product {
                    self.name = name.or(sku).unwrap_or_else(|| id.to_string());
                }
            }
            Heard::Other => {}
        }
        let cursor = frame.cursor?;
        let told = Told {
            product: &self.name,
            quantity: self.by_warehouse.values().sum(),
        };
        Some(Frame {
            // Text and a number: nothing that JSON cannot hold.
            text: Bytes::from(serde_json::to_vec(&told).unwrap_or_default()),
            cursor: Some(cursor),
            committed_at: frame.committed_at,
        })
    }
}
