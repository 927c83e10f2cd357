//! Lines of movements by their ids, and what was taken back of them.
//!
//! A side that is taken back leaves its line and is kept beside it as it was reported, in the same transaction: whoever holds the
//! line's lock knows both.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    PgTime, StoreError,
    columns::LineColumns,
    kinds,
    writer::{LineRow, WriteTx, line_id, side_report},
};
use crate::domain::{
    MovementId, MovementLine, Side, SideReport, Sides,
    batch::{LineId, Stored},
    void::{Reason, TakenBack},
};

impl WriteTx<'_> {
    /// What is stored of these lines, which are locked. Asked after [`WriteTx::upsert_movements`], as a statement of its own:
    /// the upsert does not see what another transaction committed while it waited, this one does.
    pub async fn read_lines(
        &mut self,
        lines: &[LineId],
    ) -> Result<HashMap<LineId, Stored>, StoreError> {
        let (movements, products) = columns(lines);
        let rows = sqlx::query!(
            r#"select movement_id as "movement_id!", product_id as "product_id!",
                departure_at as "departure_at: PgTime", departure_quantity, departure_warehouse_id,
                arrival_at as "arrival_at: PgTime", arrival_quantity, arrival_warehouse_id, sides_voided as "sides_voided!"
            from unnest($1::uuid[], $2::uuid[]) as wanted (movement_id, product_id)
            join movements using (movement_id, product_id)"#,
            &movements,
            &products
        )
        .fetch_all(self.connection())
        .await?;
        let mut stored = HashMap::with_capacity(rows.len());
        let mut with_voids = Vec::new();
        for row in rows {
            let line = LineRow {
                movement_id: row.movement_id,
                product_id: row.product_id,
                departure_at: row.departure_at,
                departure_quantity: row.departure_quantity,
                departure_warehouse_id: row.departure_warehouse_id,
                arrival_at: row.arrival_at,
                arrival_quantity: row.arrival_quantity,
                arrival_warehouse_id: row.arrival_warehouse_id,
            };
            let (id, line) = line.into_line()?;
            if Sides::from_bits(row.sides_voided) != Sides::NONE {
                with_voids.push(id);
            }
            let voided = Vec::new();
            stored.insert(id, Stored { line, voided });
        }
        if !with_voids.is_empty() {
            for (id, side, report) in self.read_voids(&with_voids).await? {
                if let Some(stored) = stored.get_mut(&id) {
                    stored.voided.push((side, report));
                }
            }
        }
        Ok(stored)
    }

    /// What was taken back of these lines.
    async fn read_voids(
        &mut self,
        lines: &[LineId],
    ) -> Result<Vec<(LineId, Side, SideReport)>, StoreError> {
        let (movements, products) = columns(lines);
        let rows = sqlx::query!(
            r#"select movement_id as "movement_id!", product_id as "product_id!", side as "side!",
                warehouse_id as "warehouse_id!", at as "at!: PgTime", quantity as "quantity!"
            from unnest($1::uuid[], $2::uuid[]) as wanted (movement_id, product_id)
            join movement_voids using (movement_id, product_id)"#,
            &movements,
            &products
        )
        .fetch_all(self.connection())
        .await?;
        let voids = rows.into_iter().map(|row| {
            let id = line_id(row.movement_id, row.product_id)?;
            let report = side_report(Some(row.at), Some(row.quantity), Some(row.warehouse_id))?;
            kinds::side(row.side)
                .zip(report)
                .map(|(side, report)| (id, side, report))
                .ok_or(StoreError::Inconsistent("a side that was taken back"))
        });
        voids.collect()
    }

    /// Sets sides that are missing of lines that are locked.
    pub async fn set_sides(&mut self, lines: &[(LineId, MovementLine)]) -> Result<(), StoreError> {
        let mut columns = LineColumns::with_capacity(lines.len());
        for (id, line) in lines {
            columns.push(*id, line);
        }
        let set = sqlx::query!(
            "update movements m set
                departure_at = coalesce(n.departure_at, m.departure_at),
                departure_quantity = coalesce(n.departure_quantity, m.departure_quantity),
                departure_warehouse_id = coalesce(n.departure_warehouse_id, m.departure_warehouse_id),
                arrival_at = coalesce(n.arrival_at, m.arrival_at),
                arrival_quantity = coalesce(n.arrival_quantity, m.arrival_quantity),
                arrival_warehouse_id = coalesce(n.arrival_warehouse_id, m.arrival_warehouse_id),
                sides_set_last = n.sides
            from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::uuid[],
                $6::timestamptz[], $7::bigint[], $8::uuid[], $9::smallint[])
                as n (movement_id, product_id, departure_at, departure_quantity, departure_warehouse_id,
                    arrival_at, arrival_quantity, arrival_warehouse_id, sides)
            where m.movement_id = n.movement_id and m.product_id = n.product_id",
            &columns.movements,
            &columns.products,
            &columns.departed_at as _,
            &columns.departed as _,
            &columns.departed_from as _,
            &columns.arrived_at as _,
            &columns.arrived as _,
            &columns.arrived_in as _,
            &columns.sides
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        all_there(set.rows_affected(), lines.len())
    }

    /// Locks the lines of a movement, in the order of their ids, and reads them.
    pub async fn lock_lines(
        &mut self,
        movement: MovementId,
    ) -> Result<Vec<MovementLine>, StoreError> {
        let rows = sqlx::query_as!(
            LineRow,
            r#"select movement_id, product_id,
                departure_at as "departure_at: PgTime", departure_quantity, departure_warehouse_id,
                arrival_at as "arrival_at: PgTime", arrival_quantity, arrival_warehouse_id
            from movements where movement_id = $1 order by product_id for update"#,
            movement.uuid()
        )
        .fetch_all(self.connection())
        .await?;
        let lines = rows.into_iter().map(LineRow::into_line);
        lines.map(|line| Ok(line?.1)).collect()
    }

    /// Keeps what is to be taken back as it was reported. The lines are locked and have the side.
    pub async fn keep_voided(&mut self, taken: &TakenBack) -> Result<(), StoreError> {
        let batch = self.batch().0;
        let (movements, products) = columns(&taken.lines);
        let kept = sqlx::query!(
            "insert into movement_voids (movement_id, product_id, side, warehouse_id, at, quantity, batch)
            select movement_id, product_id, $3::smallint,
                case when $3 = 1 then departure_warehouse_id else arrival_warehouse_id end,
                case when $3 = 1 then departure_at else arrival_at end,
                case when $3 = 1 then departure_quantity else arrival_quantity end, $4
            from unnest($1::uuid[], $2::uuid[]) as wanted (movement_id, product_id)
            join movements using (movement_id, product_id)",
            &movements,
            &products,
            kinds::of_side(taken.side),
            batch
        )
        .execute(self.connection())
        .await?;
        all_there(kept.rows_affected(), taken.lines.len())
    }

    /// Takes the side off the lines, which are locked.
    pub async fn clear_sides(&mut self, taken: &TakenBack) -> Result<(), StoreError> {
        let (movements, products) = columns(&taken.lines);
        let cleared = sqlx::query!(
            "update movements m set
                departure_at = case when $3::smallint <> 1 then departure_at end,
                departure_quantity = case when $3 <> 1 then departure_quantity end,
                departure_warehouse_id = case when $3 <> 1 then departure_warehouse_id end,
                arrival_at = case when $3 <> 2 then arrival_at end,
                arrival_quantity = case when $3 <> 2 then arrival_quantity end,
                arrival_warehouse_id = case when $3 <> 2 then arrival_warehouse_id end,
                sides_voided = sides_voided | $3
            from unnest($1::uuid[], $2::uuid[]) as wanted (movement_id, product_id)
            where m.movement_id = wanted.movement_id and m.product_id = wanted.product_id",
            &movements,
            &products,
            kinds::of_side(taken.side)
        )
        .execute(self.connection())
        .await?;
        all_there(cleared.rows_affected(), taken.lines.len())
    }

    /// Notes who took the side of a movement back, and why.
    pub async fn note_void(
        &mut self,
        movement: MovementId,
        side: Side,
        actor: Option<&str>,
        reason: &Reason,
    ) -> Result<(), StoreError> {
        let batch = self.batch().0;
        sqlx::query!(
            "insert into stock_notes (batch, cause_id, kind, actor, reason) values ($1, $2, $3, $4, $5)",
            batch,
            movement.uuid(),
            kinds::of_void(side),
            actor,
            reason.as_str()
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(())
    }
}

fn columns(lines: &[LineId]) -> (Vec<Uuid>, Vec<Uuid>) {
    let ids = lines.iter();
    ids.map(|(movement, product)| (movement.uuid(), product.uuid()))
        .unzip()
}

/// Lines that are locked do not go away.
fn all_there(rows: u64, lines: usize) -> Result<(), StoreError> {
    if usize::try_from(rows) == Ok(lines) {
        Ok(())
    } else {
        Err(StoreError::Inconsistent("a line that is not there"))
    }
}
