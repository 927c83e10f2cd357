//! Answers queries: through the cache where the rule allows it, else from the database.
//!
//! Invariant: an answer holds every commit up to the one it names, and that one is at least the one the caller wants.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::{Inventory, catalogue::page_rows};
use crate::{
    cache::{CacheKey, Entry, Lookup, Seat, Tier},
    domain::{
        CommitPoint, Movement, MovementId, Product, ProductId, ReservationId, StockKey, StockLevel,
        WarehouseId, commit::WantedCommit, decide::TagOf, stock::ProductStock,
    },
    store::{
        AsOf, StoreError,
        history::{LedgerEntry, LedgerPlace},
        reservations::Reservation,
        stock::{LowLevel, Selection},
    },
};

/// How long a caller waits for a commit it wants.
pub const WAIT_FOR_COMMIT_MAX: Duration = Duration::from_secs(1);
/// How often a caller joins another's read before it reads by itself.
const JOINS_MAX: usize = 2;

/// An answer to a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `None`: there is no such thing.
    pub body: Option<Bytes>,
    /// The answer is true as of this commit.
    pub as_of: CommitPoint,
    pub source: Source,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Hit(Tier),
    Miss,
    /// The cache could not be asked.
    Bypass,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The commit the caller wants was not reached in time.
    #[error("version {} is not reached yet", .0.version)]
    NotReached(WantedCommit),
    /// The version is there with another tag: the commit the caller saw was undone by a restore.
    #[error("version {} of this database is another commit", .0.version)]
    Undone(WantedCommit),
}

/// How far a wanted commit has come.
pub(super) enum Reached {
    /// This process has followed it: the cache may answer.
    Followed,
    /// The database has it.
    InDatabase,
}

/// How answers are written: the documents are cached as the bytes that clients get.
#[derive(Clone, Copy, Debug)]
pub struct Documents {
    pub stock: fn(StockKey, &StockLevel) -> Bytes,
    /// The tag that clients get with it.
    pub stock_tag: TagOf,
    pub movement: fn(&Movement) -> Bytes,
}

impl Inventory {
    /// What stands of a product in a warehouse.
    pub async fn stock(
        &self,
        key: StockKey,
        wanted: Option<WantedCommit>,
    ) -> Result<Answer, QueryError> {
        self.answer(CacheKey::Stock(key), wanted).await
    }

    /// What happened to a movement.
    pub async fn movement(
        &self,
        id: MovementId,
        wanted: Option<WantedCommit>,
    ) -> Result<Answer, QueryError> {
        self.answer(CacheKey::Movement(id), wanted).await
    }

    /// Products with all their levels.
    pub async fn product_stock(
        &self,
        selection: Selection<'_>,
    ) -> Result<AsOf<Vec<ProductStock>>, StoreError> {
        self.retried(|| self.store.product_stock(selection)).await
    }

    /// A product with all its levels.
    pub async fn stock_of(&self, id: ProductId) -> Result<AsOf<Option<ProductStock>>, StoreError> {
        self.retried(|| self.store.stock_of(id)).await
    }

    /// A reservation; `None` if there never was one of this id.
    pub async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<AsOf<Option<Reservation>>, StoreError> {
        self.retried(|| self.store.reservation(id)).await
    }

    /// How many products there are.
    pub async fn products_total(&self) -> Result<i64, StoreError> {
        self.retried(|| self.store.products_total()).await
    }

    /// The first product by sku.
    pub async fn first_product(&self) -> Result<Option<ProductId>, StoreError> {
        self.retried(|| self.store.first_product()).await
    }

    /// The levels of these keys, in their order.
    pub async fn levels_of(&self, keys: &[StockKey]) -> Result<AsOf<Vec<StockLevel>>, StoreError> {
        self.retried(|| self.store.levels_of(keys)).await
    }

    /// A page of the levels at or below their minimum, by product and warehouse, after that key.
    pub async fn low_levels(
        &self,
        after: Option<StockKey>,
        limit: usize,
    ) -> Result<AsOf<Vec<LowLevel>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.low_levels(after, limit)).await
    }

    /// The first products, by id, that are to be ordered again, and how much of them is available.
    pub async fn to_reorder(&self, limit: usize) -> Result<Vec<(Product, i64)>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.to_reorder(limit)).await
    }

    /// A page of the levels of a warehouse, by product, after that one.
    pub async fn levels_in(
        &self,
        warehouse: WarehouseId,
        after: Option<ProductId>,
        limit: usize,
    ) -> Result<AsOf<Vec<(ProductId, StockLevel)>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.levels_in(warehouse, after, limit))
            .await
    }

    /// A page of the changes of a key, the newest first.
    pub async fn history(
        &self,
        key: StockKey,
        from: Option<LedgerPlace>,
        limit: usize,
    ) -> Result<AsOf<Vec<LedgerEntry>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.history(key, from, limit)).await
    }

    /// The products with these skus in the catalogue.
    pub async fn products_by_sku(
        &self,
        skus: &[String],
    ) -> Result<HashMap<String, ProductId>, StoreError> {
        self.retried(|| self.store.products_by_sku(skus)).await
    }

    /// The warehouses with these codes in the catalogue.
    pub async fn warehouses_by_code(
        &self,
        codes: &[String],
    ) -> Result<HashMap<String, WarehouseId>, StoreError> {
        self.retried(|| self.store.warehouses_by_code(codes)).await
    }

    /// The warehouse with this code in the catalogue.
    pub async fn warehouse_by_code(&self, code: &str) -> Result<Option<WarehouseId>, StoreError> {
        self.retried(|| self.store.warehouse_by_code(code)).await
    }

    /// The product with this sku in the catalogue.
    pub async fn product_by_sku(&self, sku: &str) -> Result<Option<ProductId>, StoreError> {
        self.retried(|| self.store.product_by_sku(sku)).await
    }

    /// Whether there is such a product.
    pub async fn has_product(&self, id: ProductId) -> Result<bool, StoreError> {
        self.retried(|| self.store.has_product(id)).await
    }

    /// Whether the catalogue has that warehouse.
    pub async fn has_warehouse(&self, id: WarehouseId) -> Result<bool, StoreError> {
        self.retried(|| self.store.has_warehouse(id)).await
    }

    /// The newest commit, once the wanted one is reached.
    pub async fn reached_commit(
        &self,
        wanted: Option<WantedCommit>,
    ) -> Result<CommitPoint, QueryError> {
        if let Some(wanted) = wanted {
            self.await_commit(wanted).await?;
        }
        Ok(self.newest_commit().await?)
    }

    /// Whether the database answers and its schema is that of this program or a later one.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        self.retried(|| self.store.is_migrated()).await
    }

    pub(super) async fn newest_commit(&self) -> Result<CommitPoint, StoreError> {
        self.retried(|| self.store.newest_commit()).await
    }

    async fn answer(
        &self,
        key: CacheKey,
        wanted: Option<WantedCommit>,
    ) -> Result<Answer, QueryError> {
        let reached = match wanted {
            Some(wanted) => self.await_commit(wanted).await?,
            None => Reached::Followed,
        };
        let answer = match reached {
            Reached::InDatabase => from_entry(self.read(key).await?, Source::Bypass),
            Reached::Followed => match self.cache.look_up(key).await {
                Lookup::Hit {
                    entry,
                    tier,
                    position,
                } => Answer {
                    body: entry.body,
                    as_of: position,
                    source: Source::Hit(tier),
                },
                Lookup::Bypass => from_entry(self.read(key).await?, Source::Bypass),
                Lookup::Miss => from_entry(self.read_once(key).await?, Source::Miss),
            },
        };
        at_least(wanted, answer.as_of)?;
        Ok(answer)
    }

    /// Reads and fills the cache, or shares the read of another caller as far as the rule lets it.
    async fn read_once(&self, key: CacheKey) -> Result<Entry, StoreError> {
        let seen = self.cache.rule().seen();
        for _ in 0..JOINS_MAX {
            match self.cache.flights().board(key) {
                Seat::Leader(lead) => {
                    let entry = self.read(key).await?;
                    self.cache.fill(key, &entry);
                    lead.land(&entry);
                    return Ok(entry);
                }
                Seat::Joiner(joined) => {
                    self.metrics.cache_joined_total.inc();
                    if let Some(entry) = joined.result().await
                        && self.cache.rule().admits_joined(
                            key,
                            entry.as_of,
                            entry.valid_until,
                            seen,
                        )
                    {
                        return Ok(entry);
                    }
                }
            }
        }
        self.read(key).await
    }

    /// Reads the thing from the database, as the document that is cached.
    async fn read(&self, key: CacheKey) -> Result<Entry, StoreError> {
        match key {
            CacheKey::Stock(key) => {
                let read = self.retried(|| self.store.read_stock(key)).await?;
                let body = (self.documents.stock)(key, &read.value.level);
                Ok(Entry {
                    as_of: read.as_of,
                    valid_until: read.value.expires_next,
                    body: Some(body),
                    level: Some(read.value.level),
                })
            }
            CacheKey::Movement(id) => {
                let read = self.retried(|| self.store.read_movement(id)).await?;
                let body = read.value.as_ref().map(self.documents.movement);
                Ok(Entry {
                    as_of: read.as_of,
                    valid_until: None,
                    body,
                    level: None,
                })
            }
        }
    }

    /// Waits for the commit, and makes sure that it is the one the caller means.
    pub(super) async fn await_commit(&self, wanted: WantedCommit) -> Result<Reached, QueryError> {
        let rule = self.cache.rule();
        let is_followed = || {
            rule.is_followed()
                && rule
                    .position()
                    .is_some_and(|at| at.version >= wanted.version)
        };
        let reached = if is_followed() {
            Reached::Followed
        } else if self.newest_commit().await?.version >= wanted.version {
            Reached::InDatabase
        } else if timeout(WAIT_FOR_COMMIT_MAX, rule.reach(wanted.version))
            .await
            .is_ok()
        {
            Reached::Followed
        } else {
            return Err(QueryError::NotReached(wanted));
        };
        let Some(tag) = wanted.tag else {
            return Ok(reached);
        };
        let mut known = match reached {
            Reached::Followed => rule.tag_of(wanted.version),
            Reached::InDatabase => None,
        };
        if known.is_none() {
            let commit = self.retried(|| self.store.commit(wanted.version)).await?;
            known = commit.map(|commit| commit.tag);
        }
        if known == Some(tag) {
            Ok(reached)
        } else {
            Err(QueryError::Undone(wanted))
        }
    }

    /// Again on another connection if this one had gone stale: after a restart of the database all of the pool's have.
    /// Where none answers, that is the answer.
    pub(super) async fn retried<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        read: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        self.store.in_time(self.tried_again(read)).await
    }

    /// The same, for as long as it takes.
    pub(super) async fn tried_again<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        read: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        for _ in 0..self.store.read_connections_max() {
            match read().await {
                Err(error) if error.is_lost_connection() => {}
                result => return result,
            }
        }
        read().await
    }
}

/// An answer that does not hold the wanted commit is none.
pub(super) fn at_least(wanted: Option<WantedCommit>, as_of: CommitPoint) -> Result<(), QueryError> {
    match wanted {
        Some(wanted) if as_of.version < wanted.version => Err(QueryError::NotReached(wanted)),
        _ => Ok(()),
    }
}

fn from_entry(entry: Entry, source: Source) -> Answer {
    Answer {
        body: entry.body,
        as_of: entry.as_of,
        source,
    }
}
