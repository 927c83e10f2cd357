//! Keys of those who may use the API, and tickets for one connection each. Of both only hashes are kept.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{PgTime, Store, StoreError};
use crate::domain::{
    Timestamp, WarehouseId,
    access::{Principal, Reach, Scope},
};

/// SHA-256 of a key or a ticket.
pub type Hash = [u8; 32];

/// Most keys there can be: every process holds all of them.
pub const KEYS_MAX: i64 = 10_000;

/// A key as it was made.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub principal: Principal,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// A ticket that is used up.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub principal: Principal,
    /// Of the key it was given for; `None` for a token.
    pub key: Option<Hash>,
}

impl Store {
    /// Every key that is not revoked, by its hash; also those that have expired lately, so that their owners are told so.
    pub async fn api_keys(&self) -> Result<Vec<(Hash, Arc<Principal>)>, StoreError> {
        let rows = sqlx::query!(
            r#"select hash, name, scopes, warehouses, expires_at as "expires_at: PgTime"
            from api_keys where revoked_at is null and (expires_at is null or expires_at > now() - interval '30 days')
            order by created_at limit $1"#,
            KEYS_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let keys = rows.into_iter().map(|row| {
            let expires_at = row.expires_at.map(|at| at.0);
            let principal = principal(&row.name, &row.scopes, row.warehouses, expires_at);
            Ok((hash(&row.hash)?, Arc::new(principal)))
        });
        keys.collect()
    }

    /// How many keys are not revoked.
    pub async fn api_keys_count(&self) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from api_keys where revoked_at is null"#
        )
        .fetch_one(&self.reads)
        .await?;
        Ok(count)
    }

    /// Every key there ever was, by name, the newest of a name last.
    pub async fn all_api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows = sqlx::query!(
            r#"select name, scopes, warehouses, created_at as "created_at: PgTime", expires_at as "expires_at: PgTime",
                revoked_at as "revoked_at: PgTime"
            from api_keys order by name, created_at limit $1"#,
            KEYS_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let keys = rows.into_iter().map(|row| ApiKey {
            principal: principal(
                &row.name,
                &row.scopes,
                row.warehouses,
                row.expires_at.map(|at| at.0),
            ),
            created_at: row.created_at.0,
            revoked_at: row.revoked_at.map(|at| at.0),
        });
        Ok(keys.collect())
    }

    /// Keeps a key; `false` if one of that name is in use. As the owner.
    pub async fn put_api_key(
        &self,
        hash: &Hash,
        principal: &Principal,
    ) -> Result<bool, StoreError> {
        let (scopes, warehouses) = columns(principal);
        let made = sqlx::query!(
            "insert into api_keys (hash, name, scopes, warehouses, expires_at) values ($1, $2, $3, $4, $5)
            on conflict do nothing",
            hash,
            &*principal.name,
            &scopes,
            warehouses.as_deref(),
            principal.expires_at.map(PgTime) as Option<PgTime>
        )
        .execute(&self.reads)
        .await
        .map_err(StoreError::of_data)?;
        Ok(made.rows_affected() == 1)
    }

    /// Revokes the key of that name; `false` if there is none in use. As the owner.
    pub async fn revoke_api_key(&self, name: &str) -> Result<bool, StoreError> {
        let revoked = sqlx::query!(
            "update api_keys set revoked_at = now() where name = $1 and revoked_at is null",
            name
        )
        .execute(&self.reads)
        .await?;
        Ok(revoked.rows_affected() == 1)
    }

    /// Keeps a ticket for so long, and drops those whose time is over; when its time will be, by the database's clock.
    pub async fn put_ticket(
        &self,
        hash: &Hash,
        ticket: &Ticket,
        lasts: Duration,
    ) -> Result<Timestamp, StoreError> {
        let principal = &ticket.principal;
        let (scopes, warehouses) = columns(principal);
        let expires_at = sqlx::query_scalar!(
            r#"with dropped as (
                delete from live_tickets where ctid = any(array(
                    select ctid from live_tickets where expires_at <= now() limit 100
                ))
            )
            insert into live_tickets (hash, principal, scopes, warehouses, principal_expires_at, key_hash, expires_at)
            values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
            returning expires_at as "expires_at: PgTime""#,
            hash,
            &*principal.name,
            &scopes,
            warehouses.as_deref(),
            principal.expires_at.map(PgTime) as Option<PgTime>,
            ticket.key.as_ref().map(<[u8; 32]>::as_slice),
            lasts.as_secs_f64()
        )
        .fetch_one(&self.reads)
        .await?;
        Ok(expires_at.0)
    }

    /// Uses a ticket up; `None` if it is not there, not any more, or too old.
    pub async fn take_ticket(&self, hash: &Hash) -> Result<Option<Ticket>, StoreError> {
        let row = sqlx::query!(
            r#"with taken as (delete from live_tickets where hash = $1 returning *)
            select principal as "principal!", scopes as "scopes!", warehouses,
                principal_expires_at as "principal_expires_at: PgTime", key_hash
            from taken where expires_at > now()"#,
            hash
        )
        .fetch_optional(&self.reads)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let expires_at = row.principal_expires_at.map(|at| at.0);
        Ok(Some(Ticket {
            principal: principal(&row.principal, &row.scopes, row.warehouses, expires_at),
            key: row.key_hash.as_deref().map(self::hash).transpose()?,
        }))
    }
}

fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
    let hash = bytes.try_into();
    hash.map_err(|_| StoreError::Inconsistent("the hash of a key"))
}

fn principal(
    name: &str,
    scopes: &[String],
    warehouses: Option<Vec<Uuid>>,
    expires_at: Option<Timestamp>,
) -> Principal {
    let scopes = scopes.iter().filter_map(|name| Scope::named(name));
    let only = |ids: Vec<Uuid>| Reach::Only(ids.into_iter().filter_map(WarehouseId::new).collect());
    Principal {
        name: name.into(),
        scopes: scopes.collect::<BTreeSet<_>>(),
        reach: warehouses.map_or(Reach::All, only),
        expires_at,
    }
}

/// Scopes and warehouses as the tables hold them.
fn columns(principal: &Principal) -> (Vec<String>, Option<Vec<Uuid>>) {
    let scopes = principal
        .scopes
        .iter()
        .map(|scope| scope.as_str().to_owned());
    let warehouses = match &principal.reach {
        Reach::All => None,
        Reach::Only(warehouses) => Some(warehouses.iter().map(|w| w.uuid()).collect()),
    };
    (scopes.collect(), warehouses)
}
