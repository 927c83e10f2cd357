//! How far each lane has taken its share of each partition, as the database knows it.
//!
//! A partition is taken up to the smallest position of its lanes. The number of lanes may change between two runs:
//! [`Store::set_positions`] says anew whose they are.

use std::collections::BTreeMap;

use super::{Store, StoreError};

/// A step of one partition: from where the consumer left it to where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advance {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// Which of a process's lanes: each takes the messages of some products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneNumber(pub i16);

/// A statement that moves each position on, but only from where it was left: a restored database and another consumer are noticed here.
/// It goes with the end of the transaction, which it keeps from committing.
pub(super) fn advance(topic: &str, lane: LaneNumber, advances: &[Advance]) -> String {
    let column = |of: fn(&Advance) -> i64| {
        let numbers: Vec<String> = advances.iter().map(|it| of(it).to_string()).collect();
        numbers.join(",")
    };
    format!(
        "call stock_advance('{}', {}::smallint, '{{{}}}', '{{{}}}', '{{{}}}'); ",
        topic.replace('\'', "''"),
        lane.0,
        column(|advance| advance.partition.into()),
        column(|advance| advance.from),
        column(|advance| advance.to)
    )
}

impl Store {
    /// The next offset of each lane in each partition that has one: by partition and lane.
    pub async fn positions(
        &self,
        topic: &str,
    ) -> Result<BTreeMap<(i32, LaneNumber), i64>, StoreError> {
        let rows = sqlx::query!(
            "select partition, lane, next_offset from ingest_progress where topic = $1",
            topic
        )
        .fetch_all(&self.reads)
        .await?;
        let position = rows
            .into_iter()
            .map(|row| ((row.partition, LaneNumber(row.lane)), row.next_offset));
        Ok(position.collect())
    }

    /// Sets positions outright, for so many lanes: where a consumer that was just given the partitions begins.
    pub async fn set_positions(
        &self,
        topic: &str,
        lanes: LaneNumber,
        positions: &[(i32, i64)],
    ) -> Result<(), StoreError> {
        let partitions: Vec<i32> = positions.iter().map(|(partition, _)| *partition).collect();
        let offsets: Vec<i64> = positions.iter().map(|(_, offset)| *offset).collect();
        sqlx::query!(
            "with fewer as (
                delete from ingest_progress p
                where p.topic = $1 and p.partition = any ($3) and p.lane >= $2::smallint
            )
            insert into ingest_progress (topic, partition, lane, next_offset)
            select $1, partition, lane, next_offset
            from unnest($3::integer[], $4::bigint[]) as p (partition, next_offset), generate_series(0, $2::smallint - 1) as lane
            order by partition, lane
            on conflict (topic, partition, lane) do update set next_offset = excluded.next_offset",
            topic,
            lanes.0,
            &partitions,
            &offsets
        )
        .execute(&self.reads)
        .await?;
        Ok(())
    }
}
