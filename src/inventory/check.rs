//! Compares the tables in the background, and tells what it finds; repairs nothing.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Inventory, verify::Verifier};
use crate::{clock::Beat, store::Store};

/// Differences of one check that the log names.
const NAMED_MAX: u64 = 20;

impl Inventory {
    /// Checks every so often, at leisure, until told to stop.
    pub async fn check(self: Arc<Self>, store: Store, every: Duration, stop: CancellationToken) {
        let mut beat = Beat::later(every, stop.clone());
        while beat.next().await {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.check_once(&store) => {}
            }
        }
        store.close().await;
    }

    /// One check of everything.
    pub async fn check_once(&self, store: &Store) {
        let mut named = 0;
        let mut tell = |difference: &super::difference::Difference| {
            named += 1;
            if named <= NAMED_MAX {
                tracing::error!(%difference, "the tables contradict each other");
            }
        };
        let verifier = Verifier::new(store, self.clock.clone(), &mut tell).at_leisure();
        let result = match verifier.run(None).await {
            Ok(compared) => {
                let differences = i64::try_from(compared.differences).unwrap_or(i64::MAX);
                self.metrics.verify_differences.set(differences);
                let now = self.clock.unix_micros() / 1_000_000;
                self.metrics.verify_finished_seconds.set(now);
                tracing::info!(
                    levels = compared.levels,
                    differences,
                    "compared the tables in the background"
                );
                if differences == 0 {
                    "clean"
                } else {
                    "differences"
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the tables could not be compared");
                "error"
            }
        };
        let runs = &self.metrics.verify_runs_total;
        runs.with_label_values(&[result]).inc();
    }
}
