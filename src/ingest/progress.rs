//! How far each partition is done: recorded and its dead letters acknowledged. What Kafka may be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::store::positions::Advance;

/// Shared by the lanes, which get things done, and the polling thread, which tells Kafka.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    done: BTreeMap<i32, i64>,
    /// Partitions whose position in the database is not where we left it.
    moved: BTreeSet<i32>,
}

impl Progress {
    /// The partition is taken from here on.
    pub(super) fn begin(&self, partition: i32, offset: i64) {
        let mut state = self.state();
        state.done.insert(partition, offset);
        state.moved.remove(&partition);
    }

    /// The partition is no longer ours.
    pub(super) fn end(&self, partition: i32) {
        let mut state = self.state();
        state.done.remove(&partition);
        state.moved.remove(&partition);
    }

    /// These steps are done, as far as each goes on from what was.
    pub(super) fn advance(&self, advances: &[Advance]) {
        let mut state = self.state();
        for advance in advances {
            if let Some(done) = state
                .done
                .get_mut(&advance.partition)
                .filter(|done| **done == advance.from)
            {
                *done = advance.to;
            }
        }
    }

    /// The database holds another position for the partition than we left there.
    pub(super) fn moved(&self, partition: i32) {
        let mut state = self.state();
        if state.done.contains_key(&partition) {
            state.moved.insert(partition);
        }
    }

    /// The partitions to find the position of anew.
    pub(super) fn take_moved(&self) -> Vec<i32> {
        std::mem::take(&mut self.state().moved)
            .into_iter()
            .collect()
    }

    pub(super) fn done(&self) -> BTreeMap<i32, i64> {
        self.state().done.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No operation on the state is half done when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
