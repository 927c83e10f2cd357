//! The frames of contracts: one JSON document each.

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::ring::{Item, Shown, What};
use crate::{
    domain::{
        CommitPoint, Product, ProductId, Revision, StockKey, Timestamp, Warehouse, WarehouseId,
        catalogue::{Code, Name, Threshold},
        change::{Amounts, ChangeKind},
    },
    inventory::feed::{Crossing, FollowedLevel, Names, Reorder, Risk},
    store::catalogue::CatalogueChange,
};

/// An update as one client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: ChangeKind,
    /// The quantity now minus the one this client last had.
    pub(super) change: i64,
    /// The key leaves what this client looks at.
    pub(super) has_left: bool,
}

impl Told {
    /// As everybody gets it who keeps up and looks at all levels.
    pub(super) fn to_all(level: &FollowedLevel) -> Self {
        let change = &level.change;
        Self {
            kind: change.kind,
            change: change.after.quantity() - change.before.quantity(),
            has_left: false,
        }
    }
}

#[derive(Serialize)]
struct Frame<D> {
    r#type: &'static str,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(flatten)]
    rest: D,
}

#[derive(Serialize)]
struct Data<D> {
    data: D,
}

#[derive(Serialize)]
struct Update<'f> {
    product_id: Id<'f>,
    warehouse: Id<'f>,
    warehouse_id: Uuid,
    quantity: i64,
    on_hand: i64,
    reserved: i64,
    available_stock: i64,
    change: i64,
    #[serde(rename = "update_type")]
    kind: &'static str,
    revision: i64,
    timestamp: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    left: bool,
}

#[derive(Serialize)]
struct Alert<'f> {
    product_id: Id<'f>,
    warehouse_id: Uuid,
    warehouse: Id<'f>,
    current_quantity: i64,
    min_stock: Option<i64>,
    product_name: Option<&'f str>,
    timestamp: String,
}

/// The sku or code where there is one, else the UUID.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Id<'f> {
    Code(&'f str),
    Uuid(Uuid),
}

pub(super) fn product_id(id: ProductId, product: Option<&Product>) -> Id<'_> {
    let sku = product.and_then(|product| product.sku.as_ref());
    sku.map_or(Id::Uuid(id.uuid()), |sku| Id::Code(sku.as_str()))
}

pub(super) fn warehouse(id: WarehouseId, warehouse: Option<&Warehouse>) -> Id<'_> {
    let code = warehouse.and_then(|warehouse| warehouse.code.as_ref());
    code.map_or(Id::Uuid(id.uuid()), |code| Id::Code(Code::as_str(code)))
}

fn write(frame: &impl Serialize) -> Bytes {
    // Text and numbers: nothing that JSON cannot hold.
    serde_json::to_vec(frame)
        .map(Bytes::from)
        .unwrap_or_default()
}

/// A frame about something that a commit did.
fn tell(
    shown: &Shown,
    r#type: &'static str,
    cursor: Option<CommitPoint>,
    rest: impl Serialize,
) -> Bytes {
    write(&Frame {
        r#type,
        version: shown.point.version.number(),
        cursor: cursor.map(|cursor| cursor.to_string()),
        rest,
    })
}

fn name(known: Option<&Product>) -> Option<&str> {
    known?.name.as_ref().map(Name::as_str)
}

fn min_stock(known: Option<&Product>) -> Option<i64> {
    known?.min_stock.map(Threshold::units)
}

/// The frame of an item as everybody gets it.
pub(super) fn item(shown: &Shown, item: &Item, cursor: Option<CommitPoint>) -> Bytes {
    match &item.what {
        What::Level(level) => update(shown, level, Told::to_all(level), cursor),
        What::Low(crossing) => low(shown, crossing, cursor),
        What::Reorder(reorder) => self::reorder(shown, reorder, cursor),
        What::Risk(risk) => self::risk(shown, risk, cursor),
        What::Words(change) => words(shown, change, cursor),
    }
}

pub(super) fn update(
    shown: &Shown,
    level: &FollowedLevel,
    told: Told,
    cursor: Option<CommitPoint>,
) -> Bytes {
    let StockKey {
        warehouse: place,
        product,
    } = level.change.key;
    let Names {
        product: known,
        warehouse: known_place,
    } = &level.names;
    let Amounts { on_hand, reserved } = level.change.after;
    tell(
        shown,
        "update",
        cursor,
        Data {
            data: Update {
                product_id: product_id(product, known.as_deref()),
                warehouse: warehouse(place, known_place.as_deref()),
                warehouse_id: place.uuid(),
                quantity: level.change.after.quantity(),
                on_hand,
                reserved,
                available_stock: level.change.after.available(),
                change: told.change,
                kind: told.kind.as_str(),
                revision: level.change.revision.0,
                timestamp: Timestamp::to_string(&shown.committed_at),
                left: told.has_left,
            },
        },
    )
}

pub(super) fn low(shown: &Shown, crossing: &Crossing, cursor: Option<CommitPoint>) -> Bytes {
    let StockKey {
        warehouse: place,
        product,
    } = crossing.key;
    let known = crossing.names.product.as_deref();
    tell(
        shown,
        crossing.name(),
        cursor,
        Alert {
            product_id: product_id(product, known),
            warehouse_id: place.uuid(),
            warehouse: warehouse(place, crossing.names.warehouse.as_deref()),
            current_quantity: crossing.amounts.quantity(),
            min_stock: min_stock(known),
            product_name: name(known),
            timestamp: shown.committed_at.to_string(),
        },
    )
}

#[derive(Serialize)]
struct ReorderAlert<'f> {
    product_id: Id<'f>,
    available_stock: i64,
    reorder_point: Option<i64>,
    product_name: Option<&'f str>,
    timestamp: String,
}

pub(super) fn reorder(shown: &Shown, reorder: &Reorder, cursor: Option<CommitPoint>) -> Bytes {
    let known = reorder.known.as_deref();
    tell(
        shown,
        reorder.name(),
        cursor,
        ReorderAlert {
            product_id: product_id(reorder.product, known),
            available_stock: reorder.available,
            reorder_point: known
                .and_then(|known| known.reorder_point)
                .map(Threshold::units),
            product_name: name(known),
            timestamp: shown.committed_at.to_string(),
        },
    )
}

#[derive(Serialize)]
struct RiskAlert<'f> {
    reservation_id: Uuid,
    product_id: Id<'f>,
    warehouse: Id<'f>,
    warehouse_id: Uuid,
    quantity: i64,
    timestamp: String,
}

pub(super) fn risk(shown: &Shown, risk: &Risk, cursor: Option<CommitPoint>) -> Bytes {
    let StockKey {
        warehouse: place,
        product,
    } = risk.key;
    tell(
        shown,
        risk.name(),
        cursor,
        RiskAlert {
            reservation_id: risk.reservation.uuid(),
            product_id: product_id(product, risk.names.product.as_deref()),
            warehouse: warehouse(place, risk.names.warehouse.as_deref()),
            warehouse_id: place.uuid(),
            quantity: risk.quantity,
            timestamp: shown.committed_at.to_string(),
        },
    )
}

#[derive(Serialize)]
struct Words<'f> {
    timestamp: String,
    data: Word<'f>,
}

/// What the catalogue says now.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Word<'f> {
    Product {
        id: Uuid,
        sku: Option<&'f str>,
        name: Option<&'f str>,
        min_stock: Option<i64>,
        reorder_point: Option<i64>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        archived: bool,
    },
    Warehouse {
        id: Uuid,
        code: Option<&'f str>,
        name: Option<&'f str>,
    },
}

pub(super) fn words(shown: &Shown, change: &CatalogueChange, cursor: Option<CommitPoint>) -> Bytes {
    let data = match change {
        CatalogueChange::Product(product) | CatalogueChange::Archived(product) => Word::Product {
            id: product.id.uuid(),
            sku: product.sku.as_ref().map(Code::as_str),
            name: product.name.as_ref().map(Name::as_str),
            min_stock: product.min_stock.map(Threshold::units),
            reorder_point: product.reorder_point.map(Threshold::units),
            archived: matches!(change, CatalogueChange::Archived(_)),
        },
        CatalogueChange::Warehouse(warehouse) => Word::Warehouse {
            id: warehouse.id.uuid(),
            code: warehouse.code.as_ref().map(Code::as_str),
            name: warehouse.name.as_ref().map(Name::as_str),
        },
    };
    tell(
        shown,
        "catalogue",
        cursor,
        Words {
            timestamp: shown.committed_at.to_string(),
            data,
        },
    )
}

#[derive(Serialize)]
struct Nothing {}

/// Nothing happened up to that commit that was not told.
pub(super) fn heartbeat(at: CommitPoint) -> Bytes {
    write(&Frame {
        r#type: "heartbeat",
        version: at.version.number(),
        cursor: Some(at.to_string()),
        rest: Nothing {},
    })
}

#[derive(Serialize)]
struct Resync {
    r#type: &'static str,
    reason: &'static str,
}

/// What the client has may be wrong; a snapshot follows.
pub(super) fn resync(reason: &'static str) -> Bytes {
    write(&Resync {
        r#type: "resync",
        reason,
    })
}

/// An id in the flat dialect: a code that is a number is written as one.
#[derive(Serialize)]
#[serde(untagged)]
enum FlatId<'f> {
    Number(u64),
    Text(Id<'f>),
}

fn flat_id(id: Id<'_>) -> FlatId<'_> {
    match id {
        Id::Code(code) => match code.parse::<u64>() {
            // As it would be written again: no sign and no zeros before it.
            Ok(number) if number.to_string() == code => FlatId::Number(number),
            _ => FlatId::Text(id),
        },
        Id::Uuid(_) => FlatId::Text(id),
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Flat<'f> {
    InventoryUpdate {
        inventory_id: i64,
        product_id: FlatId<'f>,
        warehouse_id: FlatId<'f>,
        quantity: i64,
        action: &'static str,
        timestamp: String,
    },
    LowStockAlert {
        product_id: FlatId<'f>,
        warehouse_id: FlatId<'f>,
        current_quantity: i64,
        min_stock: Option<i64>,
        product_name: Option<&'f str>,
        timestamp: String,
    },
}

/// Product and warehouse.
fn flat_ids(key: StockKey, names: &Names) -> (FlatId<'_>, FlatId<'_>) {
    (
        flat_id(product_id(key.product, names.product.as_deref())),
        flat_id(warehouse(key.warehouse, names.warehouse.as_deref())),
    )
}

/// The frame of an item in the flat dialect, which knows changed levels and those that became low.
pub(super) fn flat(shown: &Shown, item: &Item) -> Option<Bytes> {
    let timestamp = shown.committed_at.to_string();
    let frame = match &item.what {
        What::Level(level) if !level.by_minimum || level.is_archived => {
            let (product_id, warehouse_id) = flat_ids(level.change.key, &level.names);
            Flat::InventoryUpdate {
                inventory_id: level.change.inventory_id.0,
                product_id,
                warehouse_id,
                quantity: level.change.after.quantity(),
                action: match level.change.kind {
                    _ if level.is_archived => "deleted",
                    _ if level.change.revision == Revision::FIRST => "created",
                    ChangeKind::Adjustment => "adjusted",
                    _ => "updated",
                },
                timestamp,
            }
        }
        What::Low(crossing) if crossing.is_low => {
            let (product_id, warehouse_id) = flat_ids(crossing.key, &crossing.names);
            let known = crossing.names.product.as_deref();
            Flat::LowStockAlert {
                product_id,
                warehouse_id,
                current_quantity: crossing.amounts.quantity(),
                min_stock: min_stock(known),
                product_name: name(known),
                timestamp,
            }
        }
        What::Level(_) | What::Low(_) | What::Reorder(_) | What::Risk(_) | What::Words(_) => {
            return None;
        }
    };
    Some(write(&frame))
}
