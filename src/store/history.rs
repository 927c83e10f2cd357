//! The ledger of one key, newest first.

use uuid::Uuid;

use super::{AsOf, PgTime, Store, StoreError, kinds, writer::commit_point};
use crate::domain::{
    Revision, StockKey, Timestamp, Version,
    change::{Amounts, ChangeKind},
};

/// What a change is because of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Movement(Uuid),
    Reservation(Uuid),
    /// The command itself.
    Command(Uuid),
}

/// A change of a level.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    pub revision: Revision,
    pub version: Version,
    pub kind: ChangeKind,
    pub delta: Amounts,
    /// The level after its whole commit.
    pub after: Amounts,
    pub cause: Option<Cause>,
    /// Who did it and why, where somebody said so.
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub reference: Option<String>,
    pub occurred_at: Timestamp,
    /// When it was committed.
    pub recorded_at: Timestamp,
}

/// Where a page goes on: within a revision, whose rows are all of one commit and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPlace {
    pub revision: Revision,
    /// Rows of that revision that were given already.
    pub given: i64,
}

impl Store {
    /// At most `limit` changes of a key, the newest first, from that place on.
    pub async fn history(
        &self,
        key: StockKey,
        from: Option<LedgerPlace>,
        limit: i64,
    ) -> Result<AsOf<Vec<LedgerEntry>>, StoreError> {
        let rows = sqlx::query!(
            r#"select c.version as newest, c.tag, g.version as "version?", g.committed_at as "committed_at?: PgTime",
                g.revision as "revision?", g.kind as "kind?", g.on_hand_delta as "on_hand_delta?", g.reserved_delta as "reserved_delta?",
                g.on_hand_after as "on_hand?", g.reserved_after as "reserved?", g.cause_id, g.occurred_at as "occurred_at?: PgTime",
                n.actor as "actor?", n.reason as "reason?", n.reference as "reference?"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select g.*, k.version, k.committed_at from stock_ledger g join stock_commits k on k.batch = g.batch
                where g.inventory_id = (select inventory_id from stock_levels where warehouse_id = $1 and product_id = $2)
                    and g.revision <= $3
                order by g.revision desc, g.occurred_at desc, g.cause_id, g.kind
                offset $4 limit $5
            ) g on true
            left join stock_notes n on n.cause_id = g.cause_id and n.batch = g.batch and n.kind = g.kind
            order by g.revision desc, g.occurred_at desc, g.cause_id, g.kind"#,
            key.warehouse.uuid(),
            key.product.uuid(),
            from.map_or(i64::MAX, |place| place.revision.0),
            from.map_or(0, |place| place.given),
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        let as_of = commit_point(newest.newest, newest.tag)?;
        let amounts = |on_hand, reserved| Amounts { on_hand, reserved };
        let entries = rows.into_iter().filter_map(|row| {
            Some(LedgerEntry {
                revision: Revision(row.revision?),
                version: Version::new(row.version?)?,
                kind: kinds::named(row.kind?)?,
                delta: amounts(row.on_hand_delta?, row.reserved_delta?),
                after: amounts(row.on_hand?, row.reserved?),
                cause: row.cause_id.zip(row.kind).map(|(id, kind)| cause(kind, id)),
                actor: row.actor,
                reason: row.reason,
                reference: row.reference,
                occurred_at: row.occurred_at?.0,
                recorded_at: row.committed_at?.0,
            })
        });
        Ok(AsOf {
            as_of,
            value: entries.collect(),
        })
    }
}

/// What an id stands for in a row of that kind.
fn cause(kind: i16, id: Uuid) -> Cause {
    if kinds::is_of_movement(kind) {
        Cause::Movement(id)
    } else if kinds::is_of_reservation(kind) {
        Cause::Reservation(id)
    } else {
        Cause::Command(id)
    }
}
