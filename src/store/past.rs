//! The state of a key at a moment, by either clock, from the ledger.
//!
//! The functions in the database (`migrations/0014_ledger_questions.sql`) know which ranges of the ledger are closed and what is
//! summed up of them; each answer is one statement of one moment, whatever is closed meanwhile.

use super::{AsOf, PgTime, Store, StoreError, reads::joined_level, writer::commit_point};
use crate::domain::{StockKey, StockLevel, Timestamp};

impl Store {
    /// The level after its last commit up to that moment: what was known then.
    pub async fn level_recorded(
        &self,
        key: StockKey,
        until: Timestamp,
    ) -> Result<AsOf<StockLevel>, StoreError> {
        let row = sqlx::query!(
            r#"select c.version, c.tag, s.on_hand as "on_hand?", s.reserved as "reserved?",
                s.revision as "revision?", s.committed_at as "committed_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join stock_levels l on l.warehouse_id = $1 and l.product_id = $2
            left join lateral stock_recorded(l.inventory_id, $3) s on true"#,
            key.warehouse.uuid(),
            key.product.uuid(),
            PgTime(until) as PgTime
        )
        .fetch_optional(&self.scans)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        let value = joined_level(row.on_hand, row.reserved, row.revision, row.committed_at);
        Ok(AsOf {
            value,
            as_of: commit_point(row.version, row.tag)?,
        })
    }

    /// The sums of the changes that happened up to that moment, as they are known now: at the key's present revision, and
    /// updated when the last of them happened.
    pub async fn level_occurred(
        &self,
        key: StockKey,
        until: Timestamp,
    ) -> Result<AsOf<StockLevel>, StoreError> {
        let row = sqlx::query!(
            r#"select c.version, c.tag, l.revision as "revision?", s.on_hand as "on_hand?",
                s.reserved as "reserved?", s.occurred_at as "occurred_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join stock_levels l on l.warehouse_id = $1 and l.product_id = $2
            left join lateral stock_occurred(l.inventory_id, $3) s on true"#,
            key.warehouse.uuid(),
            key.product.uuid(),
            PgTime(until) as PgTime
        )
        .fetch_optional(&self.scans)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        let value = joined_level(row.on_hand, row.reserved, row.revision, row.occurred_at);
        Ok(AsOf {
            value,
            as_of: commit_point(row.version, row.tag)?,
        })
    }
}
