//! What everybody in a run shares.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{figures::Figures, freshness::Markers, hosts::Hosts, oracle::Oracle};
use crate::{clock::Clock, domain::MovementId};

/// Published movements that are remembered, to be asked for.
const MOVEMENTS_MAX: usize = 20_000;

/// One run: where it goes, what came of it so far.
#[derive(Debug)]
pub(super) struct Run {
    pub clock: Clock,
    pub figures: Figures,
    pub oracle: Oracle,
    /// What the random choices begin with.
    pub seed: u64,
    /// Servers are taken away meanwhile: that requests fail and sockets fall silent is then no fault.
    pub is_disturbed: bool,
    /// Told to whoever makes load: the end has come.
    pub stop: CancellationToken,
    pub markers: Markers,
    pub hosts: Hosts,
    movements: Mutex<Vec<MovementId>>,
}

impl Run {
    pub(super) fn new(hosts: Hosts, seed: u64, is_disturbed: bool) -> Self {
        Self {
            clock: Clock::system(),
            figures: Figures::default(),
            oracle: Oracle::default(),
            seed,
            is_disturbed,
            stop: CancellationToken::new(),
            markers: Markers::default(),
            hosts,
            movements: Mutex::default(),
        }
    }

    /// Random choices of one user: the same seed and number, the same choices.
    pub(super) fn random(&self, number: usize) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(number as u64 + 1);
        random
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// A movement was published.
    pub(super) fn published(&self, movement: MovementId) {
        let mut movements = self
            .movements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if movements.len() < MOVEMENTS_MAX {
            movements.push(movement);
        } else {
            let place = movement.uuid().as_u128() % MOVEMENTS_MAX as u128;
            movements[usize::try_from(place).unwrap_or(0)] = movement;
        }
    }

    /// One of the published movements, by a random number.
    pub(super) fn movement(&self, number: usize) -> Option<MovementId> {
        let movements = self
            .movements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (!movements.is_empty()).then(|| movements[number % movements.len()])
    }

    /// Sleeps until then, on this run's clock; false if the end came first.
    pub(super) async fn sleep_until(&self, due: Duration) -> bool {
        let wait = due.saturating_sub(self.clock.elapsed());
        if wait.is_zero() {
            return !self.is_over();
        }
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = sleep(wait) => true,
        }
    }
}
