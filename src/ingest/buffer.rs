//! Natural batching: what came while a lane was busy is its next batch, up to a bound; an idle lane takes what is there.
//!
//! Invariants: the buffer holds at most its limits and one message; a batch that is out for work is counted as such
//! until the lane comes for the next.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::batch::{Batch, First, Received};

/// The bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// How long an idle lane waits for company for what has come.
    pub(super) wait: Duration,
}

/// Between the polling thread, which blocks, and one lane, which does not.
#[derive(Debug)]
pub(super) struct Buffer {
    limits: Limits,
    state: Mutex<State>,
    /// For the polling thread: there is room again, or the lane is idle.
    eased: Condvar,
    /// For the lane: there is something to take, or nothing will come.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    /// What the lane works on: by partition, its first message. Empty: it is idle.
    out: BTreeMap<i32, First>,
    is_closed: bool,
}

impl Buffer {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            eased: Condvar::new(),
            filled: Notify::new(),
        }
    }

    /// Adds a message. The caller has seen that there is room.
    pub(super) fn push(&self, received: Received<'_>, from: i64) {
        let mut state = self.state();
        state.pending.push(received, from);
        let is_awaited = state.out.is_empty();
        drop(state);
        if is_awaited {
            self.filled.notify_one();
        }
    }

    /// Waits until there is room, at most that long; whether there is.
    pub(super) fn has_room_within(&self, wait: Duration) -> bool {
        let state = self.state();
        let (state, _) = self
            .eased
            .wait_timeout_while(state, wait, |state| self.is_full(state))
            .unwrap_or_else(PoisonError::into_inner);
        !self.is_full(&state)
    }

    /// Forgets what is pending of these partitions.
    pub(super) fn forget(&self, partitions: &[i32]) {
        self.state().pending.forget(partitions);
        self.eased.notify_all();
    }

    /// Waits until the lane works on nothing of these partitions, at most that long; whether it does not.
    pub(super) fn is_free_of(&self, partitions: &[i32], wait: Duration) -> bool {
        let is_at_one = |state: &State| state.out.keys().any(|out| partitions.contains(out));
        let state = self.state();
        let (state, _) = self
            .eased
            .wait_timeout_while(state, wait, |state| is_at_one(state))
            .unwrap_or_else(PoisonError::into_inner);
        !is_at_one(&state)
    }

    /// Nothing will come any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.pending = Batch::default();
        state.is_closed = true;
        drop(state);
        self.filled.notify_one();
    }

    /// The next batch, at once if there is something; `None` after the end. The last batch counts as done with.
    pub(super) async fn take(&self) -> Option<Batch> {
        self.state().out.clear();
        self.eased.notify_all();
        loop {
            self.filled_until(|state| !state.pending.is_empty()).await;
            if !self.limits.wait.is_zero() {
                // Company or not, after the wait it is taken.
                drop(
                    timeout(
                        self.limits.wait,
                        self.filled_until(|state| self.is_full(state)),
                    )
                    .await,
                );
            }
            let mut state = self.state();
            if state.is_closed {
                return None;
            }
            if !state.pending.is_empty() {
                let batch = std::mem::take(&mut state.pending);
                state.out.clone_from(&batch.first);
                drop(state);
                self.eased.notify_all();
                return Some(batch);
            }
        }
    }

    /// When the oldest message of the partition that is here or with the lane was sent, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self, partition: i32) -> Option<i64> {
        let state = self.state();
        state
            .out
            .get(&partition)
            .or_else(|| state.pending.first.get(&partition))?
            .timestamp_ms
    }

    /// Whether the work goes on.
    pub(super) fn is_open(&self) -> bool {
        !self.state().is_closed
    }

    /// Waits until it holds, or until the end.
    async fn filled_until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            {
                let state = self.state();
                if state.is_closed || holds(&state) {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.pending.messages.len() >= self.limits.events
            || state.pending.bytes() >= self.limits.bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No operation on the state is half done when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BadMessage, dead_letter::Reason};

    const LIMITS: Limits = Limits {
        events: 3,
        bytes: 1_000,
        wait: Duration::ZERO,
    };

    fn push(buffer: &Buffer, offset: i64, value: &[u8]) {
        let content = Err(BadMessage {
            reason: Reason::NotJson,
            detail: String::new(),
        });
        let received = Received {
            partition: 0,
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(value),
            headers: None,
            content,
        };
        buffer.push(received, offset);
    }

    #[tokio::test]
    async fn what_came_meanwhile_is_the_next_batch() {
        let buffer = Buffer::new(LIMITS);
        push(&buffer, 0, b"a");
        assert_eq!(
            buffer.take().await.unwrap().messages.len(),
            1,
            "an idle lane waits for nobody"
        );
        push(&buffer, 1, b"b");
        push(&buffer, 2, b"c");
        assert_eq!(buffer.take().await.unwrap().messages.len(), 2);
    }

    #[tokio::test]
    async fn there_is_no_room_beyond_the_limits() {
        let buffer = Buffer::new(LIMITS);
        for offset in 0..3 {
            assert!(buffer.has_room_within(Duration::ZERO));
            push(&buffer, offset, b"x");
        }
        assert!(!buffer.has_room_within(Duration::ZERO));
        buffer.take().await.unwrap();
        assert!(buffer.has_room_within(Duration::ZERO));
        push(&buffer, 3, &[0; 1_000]);
        assert!(!buffer.has_room_within(Duration::ZERO), "bytes count too");
    }

    #[tokio::test]
    async fn what_is_forgotten_leaves_its_room() {
        let buffer = Buffer::new(LIMITS);
        push(&buffer, 0, &[0; 1_000]);
        assert!(!buffer.has_room_within(Duration::ZERO));
        buffer.forget(&[0]);
        assert!(buffer.has_room_within(Duration::ZERO));
    }

    #[tokio::test]
    async fn after_the_end_nothing_is_taken() {
        let buffer = Buffer::new(LIMITS);
        push(&buffer, 0, b"a");
        assert_eq!(buffer.take().await.unwrap().messages.len(), 1);
        assert!(!buffer.is_free_of(&[0], Duration::ZERO));
        assert!(buffer.is_free_of(&[1], Duration::ZERO));
        push(&buffer, 1, b"b");
        buffer.forget(&[0]);
        assert!(buffer.has_room_within(Duration::ZERO));
        push(&buffer, 2, b"c");
        buffer.close();
        assert!(!buffer.is_open());
        assert!(buffer.take().await.is_none(), "what was pending is gone");
        assert!(buffer.is_free_of(&[0], Duration::ZERO));
    }
}
