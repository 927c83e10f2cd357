//! The documents clients get. Their shape is a contract: fields are added, none is removed or renamed.

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::domain::{
    Movement, MovementLine, Side, SideReport, Status, StockKey, StockLevel, Timestamp,
};
use crate::inventory::query::Documents;

/// What stands of a product in a warehouse.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StockBody {
    /// What customers are shown: `on_hand`, never negative.
    #[schema(example = 40, minimum = 0)]
    pub(super) quantity: i64,
    pub(super) warehouse_id: Uuid,
    pub(super) product_id: Uuid,
    /// The stored number, deficits included.
    #[schema(example = 40)]
    pub(super) on_hand: i64,
    /// Promised units.
    #[schema(example = 2, minimum = 0)]
    pub(super) reserved: i64,
    /// What can still be promised, never negative.
    #[schema(example = 38, minimum = 0)]
    pub(super) available: i64,
    /// How often this level has changed; 0: never.
    #[schema(example = 17, minimum = 0)]
    pub(super) revision: i64,
    /// `null` where nothing ever changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) updated_at: Option<String>,
}

impl StockBody {
    pub(super) fn new(warehouse_id: Uuid, product_id: Uuid, level: &StockLevel) -> Self {
        Self {
            quantity: level.quantity(),
            warehouse_id,
            product_id,
            on_hand: level.on_hand,
            reserved: level.reserved,
            available: level.available(),
            revision: level.revision.0,
            updated_at: level.updated_at.as_ref().map(Timestamp::to_string),
        }
    }
}

/// How the cached documents are written.
pub const DOCUMENTS: Documents = Documents {
    stock: stock_json,
    stock_tag: |key, level| etag(&stock_json(key, level)),
    movement: movement_json,
};

/// The stock document as bytes.
fn stock_json(key: StockKey, level: &StockLevel) -> Bytes {
    json(&StockBody::new(
        key.warehouse.uuid(),
        key.product.uuid(),
        level,
    ))
}

/// One end of a movement.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SideBody {
    warehouse_id: Uuid,
    #[schema(value_type = String, format = DateTime, example = "2025-02-18T12:12:56Z")]
    at: String,
    #[schema(example = 100, minimum = 0)]
    quantity: i64,
}

impl SideBody {
    fn new(side: &SideReport) -> Self {
        Self {
            warehouse_id: side.warehouse.uuid(),
            at: side.at.to_string(),
            quantity: side.quantity.units(),
        }
    }
}

/// Where a movement stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StatusBody {
    InTransit,
    ArrivalOnly,
    Short,
    Over,
    Complete,
}

impl From<Status> for StatusBody {
    fn from(status: Status) -> Self {
        match status {
            Status::InTransit => Self::InTransit,
            Status::ArrivalOnly => Self::ArrivalOnly,
            Status::Short => Self::Short,
            Status::Over => Self::Over,
            Status::Complete => Self::Complete,
        }
    }
}

/// One product of a movement.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineBody {
    product_id: Uuid,
    /// The nil UUID while the departure is missing.
    warehouse_id_from: Uuid,
    /// The nil UUID while the arrival is missing.
    warehouse_id_to: Uuid,
    /// Seconds from departure to arrival, negative if it arrived earlier, 0 while a side is missing.
    time_diff: f64,
    /// Departed minus arrived, a missing side counting 0.
    quantity_diff: i64,
    status: StatusBody,
    departure: Option<SideBody>,
    arrival: Option<SideBody>,
}

impl LineBody {
    pub(super) fn new(line: &MovementLine) -> Self {
        let warehouse = |side: Option<SideReport>| side.map_or(Uuid::nil(), |s| s.warehouse.uuid());
        Self {
            product_id: line.product.uuid(),
            warehouse_id_from: warehouse(line.departure),
            warehouse_id_to: warehouse(line.arrival),
            time_diff: seconds(line.time_diff_us()),
            quantity_diff: line.quantity_diff(),
            status: line.status().into(),
            departure: line.departure.as_ref().map(SideBody::new),
            arrival: line.arrival.as_ref().map(SideBody::new),
        }
    }
}

/// What happened to a movement. With several products the totals run over all lines.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MovementBody {
    id: Uuid,
    /// The nil UUID while the departure is missing, or where the lines differ.
    warehouse_id_from: Uuid,
    /// The nil UUID while the arrival is missing, or where the lines differ.
    warehouse_id_to: Uuid,
    /// The nil UUID with several products.
    product_id: Uuid,
    /// Seconds from the earliest departure to the latest arrival, 0 until every line has both.
    time_diff: f64,
    /// Departed minus arrived, a missing side counting 0.
    quantity_diff: i64,
    status: StatusBody,
    /// `null` while it is missing, and with several products.
    departure: Option<SideBody>,
    /// `null` while it is missing, and with several products.
    arrival: Option<SideBody>,
    /// One per product.
    lines: Vec<LineBody>,
}

impl MovementBody {
    pub(super) fn new(movement: &Movement) -> Self {
        let warehouse = |side| {
            movement
                .warehouse(side)
                .map_or(Uuid::nil(), crate::domain::WarehouseId::uuid)
        };
        let only = movement.only_line();
        Self {
            id: movement.id.uuid(),
            warehouse_id_from: warehouse(Side::Departure),
            warehouse_id_to: warehouse(Side::Arrival),
            product_id: only.map_or(Uuid::nil(), |line| line.product.uuid()),
            time_diff: seconds(movement.time_diff_us()),
            quantity_diff: movement.quantity_diff(),
            status: movement.status().into(),
            departure: only
                .and_then(|line| line.departure.as_ref())
                .map(SideBody::new),
            arrival: only
                .and_then(|line| line.arrival.as_ref())
                .map(SideBody::new),
            lines: movement.lines.iter().map(LineBody::new).collect(),
        }
    }
}

/// The movement document as bytes.
fn movement_json(movement: &Movement) -> Bytes {
    json(&MovementBody::new(movement))
}

/// A century of microseconds is below 2^52, so no fraction is lost.
#[expect(
    clippy::cast_precision_loss,
    reason = "the times of facts lie within a century"
)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1_000_000.0
}

/// The tag of a document: a hash of its bytes.
pub(super) fn etag(body: &[u8]) -> String {
    format!("\"{}\"", Uuid::from_u128(xxh3_128(body)).as_simple())
}

/// Room for a document of the usual size.
const USUAL_BYTES: usize = 512;

/// These documents hold nothing that JSON cannot: no map with other keys than text, no failing `Serialize`.
pub(super) fn json(body: &impl Serialize) -> Bytes {
    let mut written = Vec::with_capacity(USUAL_BYTES);
    match serde_json::to_writer(&mut written, body) {
        // What caches keep of it is no larger than it is.
        Ok(()) => Bytes::copy_from_slice(&written),
        Err(_) => Bytes::new(),
    }
}
