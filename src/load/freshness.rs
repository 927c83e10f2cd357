//! How long a fact takes from when it was due to be published until a live client is told of it.
//!
//! Marked arrivals of one unit of one product, all with one key, so that Kafka keeps their order: a frame that says that n
//! stand on hand tells of the n-th and of all before it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{figures::Came, operations::Operation, oracle::Told, run::Run};

/// Times between two marked messages.
pub(super) const EVERY: Duration = Duration::from_millis(50);

/// Marked messages that nobody was told of yet.
#[derive(Debug, Default)]
pub(super) struct Markers(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    due: VecDeque<Duration>,
    arrived: i64,
}

impl Markers {
    /// The next one was due then.
    pub(super) fn sent(&self, due: Duration) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.due.push_back(due);
    }

    /// Nobody was told of the others: they took until now at least.
    pub(super) fn give_up(&self, run: &Run) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = run.clock.elapsed();
        for due in pending.due.drain(..) {
            let came = Came::Failed("nobody was told".to_owned());
            let took = now.saturating_sub(due);
            run.figures.add(Operation::Freshness, took, &came, 0);
        }
    }

    /// Somebody was told so.
    pub(super) fn told(&self, run: &Run, told: Told, at: Duration) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while pending.arrived < told.on_hand {
            let Some(due) = pending.due.pop_front() else {
                return;
            };
            pending.arrived += 1;
            let took = at.saturating_sub(due);
            run.figures.add(Operation::Freshness, took, &Came::Fine, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_tells_of_all_before_it() {
        let run = Run::new(Vec::new().into(), 1, false);
        let second = Duration::from_secs(1);
        for due in 1..=3 {
            run.markers.sent(second * due);
        }
        let told = |on_hand| Told {
            on_hand,
            reserved: 0,
            revision: on_hand,
        };
        run.markers.told(&run, told(2), second * 4);
        let tally = run.figures.tally(Operation::Freshness);
        assert_eq!(tally.requests(), 2);
        assert!(tally.times.max() >= second * 3, "from when it was due");
        run.markers.told(&run, told(9), second * 4);
        assert_eq!(run.figures.tally(Operation::Freshness).requests(), 3);
    }
}
