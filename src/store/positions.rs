//! How far each partition has been taken, as the database knows it.

use sqlx::PgConnection;

use super::{Store, StoreError};

/// A step of one partition: from where the consumer left it to where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advance {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// Moves each position on, but only from where it was left: a restored database and another consumer are noticed here.
pub(super) async fn advance(
    connection: &mut PgConnection,
    topic: &str,
    advances: &[Advance],
) -> Result<(), StoreError> {
    let partitions: Vec<i32> = advances.iter().map(|advance| advance.partition).collect();
    let from: Vec<i64> = advances.iter().map(|advance| advance.from).collect();
    let to: Vec<i64> = advances.iter().map(|advance| advance.to).collect();
    let moved = sqlx::query_scalar!(
        "update ingest_progress p set next_offset = a.next_offset
        from unnest($2::integer[], $3::bigint[], $4::bigint[]) as a (partition, left_at, next_offset)
        where p.topic = $1 and p.partition = a.partition and p.next_offset = a.left_at
        returning p.partition",
        topic,
        &partitions,
        &from,
        &to
    )
    .fetch_all(connection)
    .await?;
    match advances
        .iter()
        .find(|advance| !moved.contains(&advance.partition))
    {
        None => Ok(()),
        Some(stuck) => Err(StoreError::PositionMoved {
            topic: topic.to_owned(),
            partition: stuck.partition,
        }),
    }
}

impl Store {
    /// The next offset of each partition that has one: (partition, offset).
    pub async fn positions(&self, topic: &str) -> Result<Vec<(i32, i64)>, StoreError> {
        let rows = sqlx::query!(
            "select partition, next_offset from ingest_progress where topic = $1",
            topic
        )
        .fetch_all(&self.reads)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.partition, row.next_offset))
            .collect())
    }

    /// Sets positions outright: where a consumer that was just given the partitions begins.
    pub async fn set_positions(
        &self,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), StoreError> {
        let partitions: Vec<i32> = positions.iter().map(|(partition, _)| *partition).collect();
        let offsets: Vec<i64> = positions.iter().map(|(_, offset)| *offset).collect();
        sqlx::query!(
            "insert into ingest_progress (topic, partition, next_offset)
            select $1, partition, next_offset
            from unnest($2::integer[], $3::bigint[]) as p (partition, next_offset) order by partition
            on conflict (topic, partition) do update set next_offset = excluded.next_offset",
            topic,
            &partitions,
            &offsets
        )
        .execute(&self.reads)
        .await?;
        Ok(())
    }
}
