//! The arrays that the writer's statements take, one per column.

use uuid::Uuid;

use super::{PgTime, kinds, writer::LevelAfter};
use crate::domain::{
    MovementLine,
    batch::{Change, LineId},
};

/// The columns that `upsert_movements` sends.
pub(super) struct LineColumns {
    pub(super) movements: Vec<Uuid>,
    pub(super) products: Vec<Uuid>,
    pub(super) departed_at: Vec<Option<PgTime>>,
    pub(super) departed: Vec<Option<i64>>,
    pub(super) departed_from: Vec<Option<Uuid>>,
    pub(super) arrived_at: Vec<Option<PgTime>>,
    pub(super) arrived: Vec<Option<i64>>,
    pub(super) arrived_in: Vec<Option<Uuid>>,
    pub(super) sides: Vec<i16>,
}

impl LineColumns {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            movements: Vec::with_capacity(rows),
            products: Vec::with_capacity(rows),
            departed_at: Vec::with_capacity(rows),
            departed: Vec::with_capacity(rows),
            departed_from: Vec::with_capacity(rows),
            arrived_at: Vec::with_capacity(rows),
            arrived: Vec::with_capacity(rows),
            arrived_in: Vec::with_capacity(rows),
            sides: Vec::with_capacity(rows),
        }
    }

    pub(super) fn push(&mut self, (movement, product): LineId, line: &MovementLine) {
        self.movements.push(movement.uuid());
        self.products.push(product.uuid());
        self.departed_at
            .push(line.departure.map(|side| PgTime(side.at)));
        self.departed
            .push(line.departure.map(|side| side.quantity.units()));
        self.departed_from
            .push(line.departure.map(|side| side.warehouse.uuid()));
        self.arrived_at
            .push(line.arrival.map(|side| PgTime(side.at)));
        self.arrived
            .push(line.arrival.map(|side| side.quantity.units()));
        self.arrived_in
            .push(line.arrival.map(|side| side.warehouse.uuid()));
        self.sides
            .push(i16::from(line.departure.is_some()) | i16::from(line.arrival.is_some()) << 1);
    }
}

/// The columns that `append_ledger` sends.
pub(super) struct LedgerColumns {
    pub(super) inventory_ids: Vec<i64>,
    pub(super) revisions: Vec<i64>,
    pub(super) deltas: Vec<i64>,
    pub(super) on_hand: Vec<i64>,
    pub(super) reserved: Vec<i64>,
    pub(super) occurred_at: Vec<PgTime>,
    pub(super) causes: Vec<Uuid>,
    pub(super) kinds: Vec<i16>,
}

impl LedgerColumns {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            inventory_ids: Vec::with_capacity(rows),
            revisions: Vec::with_capacity(rows),
            deltas: Vec::with_capacity(rows),
            on_hand: Vec::with_capacity(rows),
            reserved: Vec::with_capacity(rows),
            occurred_at: Vec::with_capacity(rows),
            causes: Vec::with_capacity(rows),
            kinds: Vec::with_capacity(rows),
        }
    }

    pub(super) fn push(&mut self, change: &Change, level: &LevelAfter) {
        self.inventory_ids.push(level.inventory_id);
        self.revisions.push(level.revision.0);
        self.deltas.push(change.on_hand_delta);
        self.on_hand.push(level.on_hand);
        self.reserved.push(level.reserved);
        self.occurred_at.push(PgTime(change.occurred_at));
        self.causes.push(change.movement.uuid());
        self.kinds.push(kinds::of_change(change));
    }
}
