//! The catalogue: what products and warehouses are called, and when somebody wants to be told.
//!
//! Invariant: every change of it is a commit like any other, so what is read later carries a version that holds it.

use tokio::time::timeout;

use super::{
    Inventory,
    follow::{Changed, Handed},
};
use crate::{
    domain::{CommitPoint, Product, ProductId, Warehouse, WarehouseId},
    store::{
        AsOf, StoreError,
        catalogue::{CatalogueChange, Put},
        writer::{WriteTx, Writer},
    },
};

/// Most entries of one page.
pub const PAGE_MAX: usize = 1_000;

/// What became of an entry, and the commit that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub put: Put,
    pub as_of: CommitPoint,
}

/// An entry of the catalogue to be stored.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'e> {
    Product(&'e Product),
    Warehouse(&'e Warehouse),
}

/// Why an entry was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Another one has this sku or code.
    #[error("taken")]
    Taken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Entry<'_>> for CatalogueChange {
    fn from(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Product(product) => Self::Product(product.clone()),
            Entry::Warehouse(warehouse) => Self::Warehouse(warehouse.clone()),
        }
    }
}

impl Inventory {
    /// Stores an entry, whatever was there of it. The same again changes nothing.
    pub async fn put(&self, entry: Entry<'_>) -> Result<Stored, PutError> {
        let limit = self.store.write_timeout();
        let mut writer = timeout(limit, self.catalogue_writer.lock())
            .await
            .map_err(|_| StoreError::NoAnswer(limit))?;
        let once = self.put_once(&mut writer, entry).await;
        match once {
            // Storing twice is storing once.
            Err(PutError::Store(error)) if error.is_lost_connection() => {
                self.put_once(&mut writer, entry).await
            }
            result => result,
        }
    }

    async fn put_once(&self, writer: &mut Writer, entry: Entry<'_>) -> Result<Stored, PutError> {
        let limit = self.store.write_timeout();
        timeout(limit, self.transact_put(writer, entry))
            .await
            .unwrap_or_else(|_| Err(StoreError::NoAnswer(limit).into()))
    }

    async fn transact_put(
        &self,
        writer: &mut Writer,
        entry: Entry<'_>,
    ) -> Result<Stored, PutError> {
        let span = self.traces.commit("put", 1, self.traces.cause());
        let mut tx = writer.begin().await?;
        tx.record(span.place());
        match write(&mut tx, entry).await {
            Ok(Put::Same) => {
                tx.rollback().await?;
                span.silent();
                let as_of = self.newest_commit().await?;
                Ok(Stored {
                    put: Put::Same,
                    as_of,
                })
            }
            Ok(put) => {
                let published = tx.publish().await?;
                span.published(published.point);
                self.announce(Handed {
                    published,
                    changed: Changed::NOTHING,
                    catalogue: vec![entry.into()],
                });
                Ok(Stored {
                    put,
                    as_of: published.point,
                })
            }
            Err(error @ StoreError::DataRefused { .. }) => {
                tx.rollback().await?;
                Err(if error.is_taken() {
                    PutError::Taken
                } else {
                    error.into()
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A page of the products, by id, after that one.
    pub async fn products(
        &self,
        after: Option<ProductId>,
        limit: usize,
    ) -> Result<AsOf<Vec<Product>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.products_after(after, limit))
            .await
    }

    /// A page of the warehouses, by id, after that one.
    pub async fn warehouses(
        &self,
        after: Option<WarehouseId>,
        limit: usize,
    ) -> Result<AsOf<Vec<Warehouse>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.warehouses_after(after, limit))
            .await
    }
}

async fn write(tx: &mut WriteTx<'_>, entry: Entry<'_>) -> Result<Put, StoreError> {
    match entry {
        Entry::Product(product) => tx.put_product(product).await,
        Entry::Warehouse(warehouse) => tx.put_warehouse(warehouse).await,
    }
}

/// A page of so many entries, within the bound.
pub(super) fn page_rows(limit: usize) -> i64 {
    i64::try_from(limit.min(PAGE_MAX)).unwrap_or(1)
}
