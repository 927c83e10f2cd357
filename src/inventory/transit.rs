//! What is under way: how long that usually takes, learned from what was completed, and the lists of movements.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inventory, catalogue::page_rows};
use crate::{
    clock::Beat,
    domain::transit::Usual,
    store::{
        AsOf, StoreError,
        differences::{Difference, SumPlace, Summed},
        movements::{Listed, Place, Wanted},
    },
};

/// How often is looked for what was completed.
const LEARN_EVERY: Duration = Duration::from_secs(1);

impl Inventory {
    /// Learns how long movements take, until told to stop. Of several processes, one learns from a commit.
    pub async fn learn(self: Arc<Self>, stop: CancellationToken) {
        let mut beat = Beat::at_once(LEARN_EVERY, stop);
        while beat.next().await {
            if let Err(error) = self.retried(|| self.learn_once()).await {
                tracing::debug!(%error, "nothing was learned of how long movements take");
            }
        }
    }

    async fn learn_once(&self) -> Result<(), StoreError> {
        let Some(completed) = self.store.completed().await? else {
            return Ok(());
        };
        if !self.store.learn(&completed).await? {
            return Ok(());
        }
        let from = completed.times.keys().map(|(from, _)| from.uuid());
        let mut warehouses: Vec<Uuid> = from.collect();
        warehouses.dedup();
        if warehouses.is_empty() {
            return Ok(());
        }
        let times = self.store.times_from(&warehouses).await?;
        let usual = times.into_iter().filter_map(|(warehouse, mut counts)| {
            let usual = Usual::of(&mut counts)?;
            Some((warehouse, usual))
        });
        self.store.put_usual(&usual.collect::<Vec<_>>()).await
    }

    /// A page of the movements, by line.
    pub async fn movements(
        &self,
        wanted: &Wanted,
        after: Option<Place>,
        limit: usize,
    ) -> Result<AsOf<Listed>, StoreError> {
        let limit = page_rows(limit);
        let wanted = Wanted {
            late_after_seconds: self.late_after.as_secs_f64(),
            ..*wanted
        };
        self.retried(|| self.store.list_movements(&wanted, after, limit))
            .await
    }

    /// A page of the sums of where less or more arrived than departed.
    pub async fn differences(
        &self,
        summed: &Summed,
        after: Option<SumPlace>,
        limit: usize,
    ) -> Result<AsOf<Vec<Difference>>, StoreError> {
        let limit = page_rows(limit);
        self.retried(|| self.store.differences(summed, after, limit))
            .await
    }
}
