//! Patience with a server that is away.

use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

/// How long to wait between tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// Doubling from the least to the most, each time somewhere in the upper half: those who failed together do not
    /// come back together.
    pub(super) async fn wait(&self, tries: u32) {
        let full = self.min.saturating_mul(1 << tries.min(16)).min(self.max);
        let share = rand::rng().random_range(0.5..=1.0);
        sleep(full.mul_f64(share)).await;
    }
}
