//! Products and orders as the orders API tells them; what changes a product there is a commit like any other.

use std::sync::PoisonError;

use tokio::time::timeout;

use super::{
    Inventory,
    catalogue::PutError,
    follow::{Changed, Handed},
};
use crate::{
    domain::{
        CommitPoint, ProductId,
        catalogue::{Code, Name},
        price::Price,
    },
    store::{
        AsOf, StoreError,
        listings::{self, Counted, Listing},
        orders::Order,
        writer::{WriteTx, Writer},
    },
};

/// What became of a product that was to be archived.
#[derive(Clone, Copy, Debug)]
pub enum Archived {
    Done(CommitPoint),
    NotThere,
    HasStock,
}

/// What is to be done to a listed product.
#[derive(Clone, Copy, Debug)]
enum Change<'c> {
    To(&'c Code, &'c Name, Price),
    Archive,
}

impl Inventory {
    /// So many products of the list after the first so many, and how many there are in all.
    pub async fn listings(
        &self,
        offset: i64,
        limit: i64,
    ) -> Result<AsOf<(Vec<Listing>, i64)>, StoreError> {
        let known = *self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self
            .retried(|| self.store.listings(offset, limit, known))
            .await?;
        let total = Counted {
            as_of: read.as_of,
            total: read.value.1,
        };
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(total);
        Ok(read)
    }

    /// The product with this number in the list, as it is listed.
    pub async fn listing(&self, number: i64) -> Result<AsOf<Option<Listing>>, StoreError> {
        self.retried(|| self.store.listing(number)).await
    }

    /// The product with this number in the list.
    pub async fn listed_product(&self, number: i64) -> Result<Option<ProductId>, StoreError> {
        self.retried(|| self.store.listed_product(number)).await
    }

    /// So many orders after the newest so many, and how many there are in all.
    pub async fn orders(
        &self,
        offset: i64,
        limit: i64,
    ) -> Result<AsOf<(Vec<Order>, i64)>, StoreError> {
        self.retried(|| self.store.orders(offset, limit)).await
    }

    /// The newest orders.
    pub async fn recent_orders(&self, limit: i64) -> Result<AsOf<Vec<Order>>, StoreError> {
        self.retried(|| self.store.recent_orders(limit)).await
    }

    /// The order with this number.
    pub async fn order(&self, number: i64) -> Result<AsOf<Option<Order>>, StoreError> {
        self.retried(|| self.store.order(number)).await
    }

    /// Changes what a listed product is called and costs; `None` if there is none.
    pub async fn change_listing(
        &self,
        number: i64,
        sku: &Code,
        name: &Name,
        price: Price,
    ) -> Result<Option<CommitPoint>, PutError> {
        match self.change(number, Change::To(sku, name, price)).await {
            Ok(Archived::Done(as_of)) => Ok(Some(as_of)),
            Ok(Archived::NotThere | Archived::HasStock) => Ok(None),
            Err(error) if error.is_taken() => Err(PutError::Taken),
            Err(error) => Err(error.into()),
        }
    }

    /// Archives a listed product of which nothing is anywhere.
    pub async fn archive_listing(&self, number: i64) -> Result<Archived, StoreError> {
        self.change(number, Change::Archive).await
    }

    async fn change(&self, number: i64, change: Change<'_>) -> Result<Archived, StoreError> {
        let limit = self.store.write_timeout();
        let done = async {
            let mut writer = self.catalogue_writer.lock().await;
            self.transact_change(&mut writer, number, change).await
        };
        timeout(limit, done)
            .await
            .unwrap_or(Err(StoreError::NoAnswer(limit)))
    }

    async fn transact_change(
        &self,
        writer: &mut Writer,
        number: i64,
        change: Change<'_>,
    ) -> Result<Archived, StoreError> {
        let span = self.traces.commit("list", 1, self.traces.cause());
        let mut tx = writer.begin().await?;
        tx.record(span.place());
        let changed = match write(&mut tx, number, change).await {
            Ok(changed) => changed,
            Err(error @ StoreError::DataRefused { .. }) => {
                tx.rollback().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let change = match changed {
            listings::Changed::Done(change) => change,
            listings::Changed::NotThere => {
                tx.rollback().await?;
                span.silent();
                return Ok(Archived::NotThere);
            }
            listings::Changed::HasStock => {
                tx.rollback().await?;
                span.silent();
                return Ok(Archived::HasStock);
            }
        };
        let published = tx.publish().await?;
        span.published(published.point);
        self.announce(Handed {
            published,
            changed: Changed::NOTHING,
            catalogue: vec![change],
        });
        Ok(Archived::Done(published.point))
    }
}

async fn write(
    tx: &mut WriteTx<'_>,
    number: i64,
    change: Change<'_>,
) -> Result<listings::Changed, StoreError> {
    match change {
        Change::To(sku, name, price) => tx.change_listing(number, sku, Some(name), price).await,
        Change::Archive => tx.archive_listing(number).await,
    }
}
