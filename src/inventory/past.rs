//! Answers what the ledger knows: how a level was at a moment, and what it is made of. Nothing of it is cached.

use super::{
    Inventory,
    query::{QueryError, at_least},
};
use crate::{
    domain::{
        StockKey, StockLevel,
        commit::WantedCommit,
        explain::Explanation,
        past::{Basis, Moment},
    },
    store::{AsOf, StoreError},
};

impl Inventory {
    /// What stood of a product in a warehouse at a moment. One that is yet to come is like now.
    pub async fn stock_at(
        &self,
        key: StockKey,
        moment: Moment,
        wanted: Option<WantedCommit>,
    ) -> Result<AsOf<StockLevel>, QueryError> {
        if let Some(wanted) = wanted {
            self.await_commit(wanted).await?;
        }
        let Moment { at, basis } = moment;
        let read = match basis {
            Basis::Recorded => self.retried(|| self.store.level_recorded(key, at)).await?,
            Basis::Occurred => self.retried(|| self.store.level_occurred(key, at)).await?,
        };
        at_least(wanted, read.as_of)?;
        Ok(read)
    }

    /// What a level is made of.
    pub async fn explain(&self, key: StockKey) -> Result<AsOf<Explanation>, StoreError> {
        self.retried(|| self.store.explain(key)).await
    }
}
