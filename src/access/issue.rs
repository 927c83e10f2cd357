//! Keys as the owner of the database makes and ends them.

use std::{collections::BTreeSet, sync::Arc};

use uuid::Uuid;

use super::Secret;
use crate::{
    domain::{
        Timestamp, WarehouseId,
        access::{Principal, Reach, Scope},
    },
    store::{
        Store, StoreError,
        access::{ApiKey, KEYS_MAX},
    },
};

/// What a key is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<Scope>,
    /// By UUID or code; none: all.
    pub warehouses: Vec<String>,
    pub expires_at: Option<Timestamp>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "a name has 1 to {} printable characters, none of them a colon or a parenthesis",
        Principal::NAME_CHARS_MAX
    )]
    Name,
    #[error("{0} has a key already; revoke it first")]
    Taken(String),
    #[error("there are {KEYS_MAX} keys: revoke some")]
    Full,
    #[error("{0} has no key")]
    None(String),
    #[error("there is no warehouse {0}")]
    Warehouse(String),
    #[error("a key is limited to {} warehouses at most", Reach::WAREHOUSES_MAX)]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a key.
pub async fn create(store: &Store, new: &NewKey) -> Result<Secret, KeyError> {
    // What a token gives has a colon, and in the ledger parentheses have what Stock-Actor said: nobody can be taken for somebody else.
    let is_text = |c: char| !c.is_control() && ![':', '(', ')'].contains(&c);
    let chars = new.name.chars().count();
    if !(1..=Principal::NAME_CHARS_MAX).contains(&chars) || !new.name.chars().all(is_text) {
        return Err(KeyError::Name);
    }
    let principal = Principal {
        name: Arc::from(new.name.as_str()),
        scopes: new.scopes.iter().copied().collect(),
        reach: reach(store, &new.warehouses).await?,
        expires_at: new.expires_at,
    };
    if store.api_keys_count().await? >= KEYS_MAX {
        return Err(KeyError::Full);
    }
    let secret = Secret::key();
    if store.put_api_key(&secret.hash(), &principal).await? {
        Ok(secret)
    } else {
        Err(KeyError::Taken(new.name.clone()))
    }
}

/// Ends the key of that name.
pub async fn revoke(store: &Store, name: &str) -> Result<(), KeyError> {
    if store.revoke_api_key(name).await? {
        Ok(())
    } else {
        Err(KeyError::None(name.to_owned()))
    }
}

/// Every key there is or was.
pub async fn list(store: &Store) -> Result<Vec<ApiKey>, KeyError> {
    Ok(store.all_api_keys().await?)
}

async fn reach(store: &Store, warehouses: &[String]) -> Result<Reach, KeyError> {
    if warehouses.is_empty() {
        return Ok(Reach::All);
    }
    if warehouses.len() > Reach::WAREHOUSES_MAX {
        return Err(KeyError::TooMany);
    }
    let mut ids = BTreeSet::new();
    for text in warehouses {
        let id = match Uuid::try_parse(text) {
            Ok(id) => WarehouseId::new(id),
            Err(_) => store.warehouse_by_code(text).await?,
        };
        ids.insert(id.ok_or_else(|| KeyError::Warehouse(text.clone()))?);
    }
    Ok(Reach::Only(ids))
}
