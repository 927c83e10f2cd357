//! Finds products by what they are called, without asking the database each time.
//!
//! Invariant: that a sku or a number once led to a product is only a hint. What counts is what the product itself is called, which is
//! read through the cache like everything else: a commit that renames or archives it is known within a second, and to who made
//! it at once. Both are unique, so if the hint's product is called so, it is the one.

use std::collections::HashMap;

use bytes::Bytes;
use moka::sync::Cache as MokaCache;

use super::Inventory;
use crate::{
    cache::{CacheKey, rule::Rule},
    domain::{ProductId, Version},
    store::{StoreError, catalogue::CatalogueChange},
};

/// Hints of each kind that are kept, about 100 bytes each.
const HINTS_MAX: u64 = 100_000;

/// Where products were last found.
#[derive(Debug)]
pub(super) struct Hints {
    by_sku: MokaCache<String, ProductId>,
    by_number: MokaCache<i64, ProductId>,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            by_sku: MokaCache::new(HINTS_MAX),
            by_number: MokaCache::new(HINTS_MAX),
        }
    }
}

/// What a product is called, as it is cached.
pub(super) fn called(number: i64, sku: &str) -> Bytes {
    [&number.to_be_bytes(), sku.as_bytes()].concat().into()
}

/// What a change of the catalogue makes old.
pub(super) fn mark(rule: &Rule, change: &CatalogueChange, version: Version) {
    if let Some(product) = change.product() {
        rule.mark(CacheKey::Called(product.id), version);
        rule.mark(CacheKey::ListedTotal, version);
    }
}

impl Inventory {
    /// The product with this sku in the catalogue.
    pub async fn product_by_sku(&self, sku: &str) -> Result<Option<ProductId>, StoreError> {
        if let Some(hinted) = self.hinted(sku).await? {
            return Ok(Some(hinted));
        }
        let found = self.retried(|| self.store.product_by_sku(sku)).await?;
        if let Some(id) = found {
            self.hints.by_sku.insert(sku.to_owned(), id);
        }
        Ok(found)
    }

    /// The products with these skus in the catalogue.
    pub async fn products_by_sku(
        &self,
        skus: &[String],
    ) -> Result<HashMap<String, ProductId>, StoreError> {
        let mut known = HashMap::with_capacity(skus.len());
        let mut unknown = Vec::new();
        for sku in skus {
            match self.hinted(sku).await? {
                Some(id) => {
                    known.insert(sku.clone(), id);
                }
                None => unknown.push(sku.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok(known);
        }
        let found = self
            .retried(|| self.store.products_by_sku(&unknown))
            .await?;
        for (sku, id) in &found {
            self.hints.by_sku.insert(sku.clone(), *id);
        }
        known.extend(found);
        Ok(known)
    }

    /// The product with this number in the list.
    pub async fn listed_product(&self, number: i64) -> Result<Option<ProductId>, StoreError> {
        if let Some(id) = self.hints.by_number.get(&number) {
            let called = self.called(id).await?;
            if called.is_some_and(|called| called.starts_with(&number.to_be_bytes())) {
                return Ok(Some(id));
            }
        }
        let found = self.retried(|| self.store.listed_product(number)).await?;
        if let Some(id) = found {
            self.hints.by_number.insert(number, id);
        }
        Ok(found)
    }

    /// How many products are listed.
    pub async fn listed_total(&self) -> Result<i64, StoreError> {
        let counted = self.cached(CacheKey::ListedTotal).await?.body;
        let bytes = counted.as_deref().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(i64::from_be_bytes)
            .ok_or(StoreError::Inconsistent("the number of products"))
    }

    /// Where the hint leads, if that is still so.
    async fn hinted(&self, sku: &str) -> Result<Option<ProductId>, StoreError> {
        let Some(id) = self.hints.by_sku.get(sku) else {
            return Ok(None);
        };
        let called = self.called(id).await?;
        let own = called
            .as_deref()
            .and_then(|called| called.get(size_of::<i64>()..));
        Ok((own == Some(sku.as_bytes())).then_some(id))
    }

    /// A product's number and sku; `None` where it has no sku or is archived.
    async fn called(&self, id: ProductId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.cached(CacheKey::Called(id)).await?.body)
    }
}
