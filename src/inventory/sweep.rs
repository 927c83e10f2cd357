//! Tidies up: reservations whose time has run out are expired, answers that are too old to be asked for again are dropped. Nothing
//! rests on it: what is due counts as given back from the moment it is, whoever asks, and a request finds it so.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    Inventory,
    decide::{Command, CommandError, MORE_IS_DUE, Rendered},
};
use crate::{clock::Beat, domain::command::Request, store::StoreError};

/// Most levels that are tidied up at once.
const LEVELS_MAX: i64 = 500;
/// Old answers are dropped once in so many sweeps.
const SWEEPS_PER_DROP: u32 = 60;

/// Why a sweep came to nothing.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Inventory {
    /// Sweeps every so often until told to stop; never, if that is zero.
    pub async fn sweep(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        if every.is_zero() {
            return;
        }
        let mut beat = Beat::at_once(every, stop);
        let mut sweeps: u32 = 0;
        while beat.next().await {
            if let Err(error) = self.sweep_due().await {
                tracing::debug!(%error, "what is due could not be tidied up");
            }
            if sweeps.is_multiple_of(SWEEPS_PER_DROP)
                && let Err(error) = self.drop_old_answers().await
            {
                tracing::debug!(%error, "old answers could not be dropped");
            }
            sweeps = sweeps.wrapping_add(1);
        }
    }

    async fn sweep_due(&self) -> Result<(), SweepError> {
        loop {
            let due = self.retried(|| self.store.due_levels(LEVELS_MAX)).await?;
            if due.is_empty() {
                return Ok(());
            }
            let is_last = i64::try_from(due.len()).is_ok_and(|levels| levels < LEVELS_MAX);
            let swept = self.decide(Command {
                request: Request::Tidy(due),
                once: None,
                creates: None,
                shows: None,
                render: Box::new(|_| Rendered {
                    status: 200,
                    body: Bytes::new(),
                }),
            });
            let is_more = swept.await?.rendered.status == MORE_IS_DUE;
            if is_last && !is_more {
                return Ok(());
            }
        }
    }

    async fn drop_old_answers(&self) -> Result<(), StoreError> {
        while self.retried(|| self.store.drop_old_answers()).await? {}
        Ok(())
    }
}
