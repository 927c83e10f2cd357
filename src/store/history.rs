//! The ledger of one key, newest first.

use super::{AsOf, PgTime, Store, StoreError, kinds, writer::commit_point};
use crate::domain::{
    MovementId, Revision, StockKey, Timestamp, Version,
    change::{Amounts, ChangeKind},
};

/// A change of a level.
#[derive(Clone, Copy, Debug)]
pub struct LedgerEntry {
    pub revision: Revision,
    pub version: Version,
    pub kind: ChangeKind,
    pub delta: Amounts,
    /// The level after its whole commit.
    pub after: Amounts,
    pub movement: Option<MovementId>,
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
                g.on_hand_after as "on_hand?", g.reserved_after as "reserved?", g.cause_id, g.occurred_at as "occurred_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select g.*, k.version, k.committed_at from stock_ledger g join stock_commits k on k.batch = g.batch
                where g.inventory_id = (select inventory_id from stock_levels where warehouse_id = $1 and product_id = $2)
                    and g.revision <= $3
                order by g.revision desc, g.occurred_at desc, g.cause_id, g.kind
                offset $4 limit $5
            ) g on true
            order by g.revision desc, g.occurred_at desc, g.cause_id, g.kind"#,
            key.warehouse.uuid(),
            key.product.uuid(),
            from.map_or(i64::MAX, |place| place.revision.0),
            from.map_or(0, |place| place.given),
            limit
        )
        .fetch_all(&self.reads)
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
                movement: row
                    .cause_id
                    .filter(|_| row.kind.is_some_and(kinds::is_of_movement))
                    .and_then(MovementId::new),
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
