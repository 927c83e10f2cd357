//! Answers kept under the keys that commands carried, for whoever asks again.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Store, StoreError,
    writer::{BatchNumber, WriteTx, commit_point},
};
use crate::domain::CommitPoint;

/// Under what an answer is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnceKey {
    /// Who asks.
    pub principal: std::sync::Arc<str>,
    /// Method and template of the path.
    pub route: std::sync::Arc<str>,
    pub key: std::sync::Arc<str>,
}

/// An answer that is kept.
#[derive(Clone, Debug)]
pub struct KeptAnswer {
    /// A hash of the request it was given to.
    pub fingerprint: Uuid,
    pub status: i16,
    pub body: Bytes,
    /// The commit it was given with, if there was one.
    pub as_of: Option<CommitPoint>,
}

/// An answer to be kept.
#[derive(Clone, Debug)]
pub struct NewAnswer<'a> {
    pub key: &'a OnceKey,
    pub fingerprint: Uuid,
    pub status: i16,
    pub body: &'a Bytes,
    /// Of the commit that it is given with.
    pub batch: Option<BatchNumber>,
}

/// Most old answers that are dropped at once.
const DROPPED_MAX: i64 = 10_000;

impl WriteTx<'_> {
    /// The answers kept under these keys, each beside its place among them. One older than a day is none.
    pub async fn kept_answers(
        &mut self,
        keys: &[&OnceKey],
    ) -> Result<Vec<(usize, KeptAnswer)>, StoreError> {
        let principals: Vec<String> = keys.iter().map(|k| k.principal.to_string()).collect();
        let routes: Vec<String> = keys.iter().map(|k| k.route.to_string()).collect();
        let texts: Vec<String> = keys.iter().map(|k| k.key.to_string()).collect();
        let rows = sqlx::query!(
            r#"select k.place as "place!", i.fingerprint, i.status, i.body, c.version as "version?", c.tag as "tag?"
            from unnest($1::text[], $2::text[], $3::text[]) with ordinality as k (principal, route, key, place)
            join idempotency_keys i on i.principal = k.principal and i.route = k.route and i.key = k.key
            left join stock_commits c on c.batch = i.batch
            where i.created_at > now() - interval '24 hours'"#,
            &principals,
            &routes,
            &texts
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        rows.into_iter()
            .map(|row| {
                let place = usize::try_from(row.place - 1);
                let place = place.map_err(|_| StoreError::Inconsistent("a place"))?;
                let as_of = row.version.zip(row.tag);
                let answer = KeptAnswer {
                    fingerprint: row.fingerprint,
                    status: row.status,
                    body: row.body.into(),
                    as_of: as_of.map(|(v, tag)| commit_point(v, tag)).transpose()?,
                };
                Ok((place, answer))
            })
            .collect()
    }

    /// Keeps answers. False if another transaction has kept one under one of the keys meanwhile: then nothing of this one must be
    /// committed. `answers` is sorted by key.
    pub async fn keep_answers(&mut self, answers: &[NewAnswer<'_>]) -> Result<bool, StoreError> {
        let principals: Vec<String> = answers
            .iter()
            .map(|a| a.key.principal.to_string())
            .collect();
        let routes: Vec<String> = answers.iter().map(|a| a.key.route.to_string()).collect();
        let keys: Vec<String> = answers.iter().map(|a| a.key.key.to_string()).collect();
        let fingerprints: Vec<Uuid> = answers.iter().map(|a| a.fingerprint).collect();
        let statuses: Vec<i16> = answers.iter().map(|a| a.status).collect();
        let bodies: Vec<Vec<u8>> = answers.iter().map(|a| a.body.to_vec()).collect();
        let batches = answers.iter().map(|a| a.batch.map(|batch| batch.0));
        let kept = sqlx::query!(
            "insert into idempotency_keys as i (principal, route, key, fingerprint, status, body, batch, created_at)
            select a.principal, a.route, a.key, a.fingerprint, a.status, a.body, a.batch, now()
            from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::smallint[], $6::bytea[], $7::bigint[])
                as a (principal, route, key, fingerprint, status, body, batch)
            order by a.principal, a.route, a.key
            on conflict (principal, route, key) do update set fingerprint = excluded.fingerprint, status = excluded.status,
                body = excluded.body, batch = excluded.batch, created_at = excluded.created_at
            where i.created_at <= now() - interval '24 hours'",
            &principals,
            &routes,
            &keys,
            &fingerprints,
            &statuses,
            &bodies,
            &batches.collect::<Vec<_>>() as _
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(usize::try_from(kept.rows_affected()) == Ok(answers.len()))
    }
}

impl Store {
    /// The answer kept under this key, if one is.
    pub async fn kept_answer(&self, key: &OnceKey) -> Result<Option<KeptAnswer>, StoreError> {
        let row = sqlx::query!(
            r#"select i.fingerprint, i.status, i.body, c.version as "version?", c.tag as "tag?"
            from idempotency_keys i left join stock_commits c on c.batch = i.batch
            where i.principal = $1 and i.route = $2 and i.key = $3 and i.created_at > now() - interval '24 hours'"#,
            &*key.principal,
            &*key.route,
            &*key.key
        )
        .fetch_optional(&self.reads)
        .await?;
        row.map(|row| {
            let as_of = row.version.zip(row.tag);
            Ok(KeptAnswer {
                fingerprint: row.fingerprint,
                status: row.status,
                body: row.body.into(),
                as_of: as_of.map(|(v, tag)| commit_point(v, tag)).transpose()?,
            })
        })
        .transpose()
    }

    /// Drops answers that are older than a day, some at a time; whether there may be more.
    pub async fn drop_old_answers(&self) -> Result<bool, StoreError> {
        let dropped = sqlx::query!(
            "delete from idempotency_keys where ctid = any(array(
                select ctid from idempotency_keys where created_at <= now() - interval '24 hours' limit $1
            ))",
            DROPPED_MAX
        )
        .execute(&self.scans)
        .await?;
        Ok(i64::try_from(dropped.rows_affected()) == Ok(DROPPED_MAX))
    }
}
