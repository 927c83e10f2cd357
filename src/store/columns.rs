//! What the writer's statements take: arrays, one per column, and rows to be copied in.

use uuid::Uuid;

use super::{
    PgTime,
    writer::{BatchNumber, LevelAfter, kind},
};
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

/// The rows that `append_ledger` copies in, in `PostgreSQL`'s binary format (its documentation, `COPY`, "Binary Format"):
/// a header, for each row the number of fields and each field behind its length, and a trailer.
pub(super) struct LedgerRows(Vec<u8>);

impl LedgerRows {
    /// The columns, in the order of the fields.
    pub(super) const STATEMENT: &str = "copy stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, \
        on_hand_after, reserved_after, occurred_at, movement_id, kind) from stdin (format binary)";
    const FIELDS: i16 = 10;
    /// Signature, flags, length of the header's extension.
    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    const TRAILER: i16 = -1;
    const ROW_BYTES: usize = 2 + 10 * 4 + 8 * 8 + 16 + 2;

    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut bytes = Vec::with_capacity(Self::HEADER.len() + rows * Self::ROW_BYTES + 2);
        bytes.extend_from_slice(Self::HEADER);
        Self(bytes)
    }

    pub(super) fn push(&mut self, batch: BatchNumber, change: &Change, level: &LevelAfter) {
        self.0.extend_from_slice(&Self::FIELDS.to_be_bytes());
        for number in [
            batch.0,
            level.inventory_id,
            level.revision.0,
            change.on_hand_delta,
            0,
            level.on_hand,
            level.reserved,
            PgTime(change.occurred_at).since_2000(),
        ] {
            self.field(&number.to_be_bytes());
        }
        self.field(change.movement.uuid().as_bytes());
        self.field(&kind(change.side).to_be_bytes());
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&Self::TRAILER.to_be_bytes());
        self.0
    }

    fn field<const N: usize>(&mut self, bytes: &[u8; N]) {
        // Fields are 16 bytes at most.
        let length = i32::try_from(N).unwrap_or(0);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}
