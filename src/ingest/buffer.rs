//! Natural batching: what came while a lane was busy is its next batch, up to a bound; an idle lane takes what is there.
//!
//! What a batch costs beside its messages is as much for one as for a thousand. Where batches of a few followed each other without a rest,
//! they would be as small and as many as the processors allow, and leave nothing of those to others: so a lane rests for a moment, unless
//! enough has come meanwhile.
//!
//! Invariants: the buffer holds at most its limits and one message; a batch that is out for work is counted as such
//! until the lane comes for the next; a partition's position is beyond nothing that is here or out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    batch::{Batch, Received},
    progress::Progress,
};
use crate::store::positions::Advance;

/// So many times as long as it worked on a batch a lane rests after it, up to a bound.
const REST: u32 = 2;
/// For so many messages a lane does not rest: a batch itself costs about as much as 40 of them.
const ENOUGH: usize = 128;

/// The bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// How long an idle lane waits for company for what has come.
    pub(super) wait: Duration,
    /// Longest a lane rests between two batches.
    pub(super) rest: Duration,
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

/// What a lane gets to do: messages, and how far that brings each partition.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) advances: Vec<Advance>,
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    progress: Progress,
    /// What the lane works on: by partition, when the first message was sent. Empty: it is idle.
    out: BTreeMap<i32, Option<i64>>,
    /// When it was last given something.
    given_at: Option<Instant>,
    /// The lane is to go on over other lanes' messages although it has none itself.
    is_nudged: bool,
    /// Partitions of which something did not get done: to be begun anew.
    lost: BTreeSet<i32>,
    is_closed: bool,
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.is_nudged && self.progress.is_behind(|_| true)
    }

    fn is_at(&self, partitions: &[i32]) -> bool {
        self.out.keys().any(|out| partitions.contains(out))
    }
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

    // --- the polling thread's side ---

    /// The partition is consumed from this offset on. The lane has nothing of it.
    pub(super) fn begin(&self, partition: i32, offset: i64) {
        let mut state = self.state();
        state.progress.begin(partition, offset);
        state.lost.remove(&partition);
    }

    /// Adds a message. The caller has seen that there is room.
    pub(super) fn push(&self, received: Received<'_>) {
        let mut state = self.state();
        state.pending.push(received);
        let count = state.pending.messages.len();
        let is_awaited =
            state.out.is_empty() && (count == 1 || count == ENOUGH || self.is_full(&state));
        drop(state);
        if is_awaited {
            self.filled.notify_one();
        }
    }

    /// Every message of these partitions below these offsets was pushed, here or to another lane.
    pub(super) fn route(&self, offsets: &BTreeMap<i32, i64>) {
        let mut state = self.state();
        for (partition, offset) in offsets {
            state.progress.route(*partition, *offset);
        }
    }

    /// Lets the lane go on over other lanes' messages, so that its positions in the database do not stay behind.
    pub(super) fn nudge(&self) {
        self.state().is_nudged = true;
        self.filled.notify_one();
    }

    /// Waits until there is room, at most that long; whether there is.
    pub(super) fn has_room_within(&self, wait: Duration) -> bool {
        self.is_over_within(wait, |state| self.is_full(state))
    }

    /// Forgets what is pending of these partitions.
    pub(super) fn forget(&self, partitions: &[i32]) {
        let mut state = self.state();
        for partition in partitions {
            if let Some(first) = state.pending.first_offset(*partition) {
                state.progress.forget(*partition, first);
            }
        }
        state.pending.forget(partitions);
        drop(state);
        self.eased.notify_all();
    }

    /// Waits until the lane works on nothing of these partitions, at most that long; whether it does not.
    pub(super) fn is_free_of(&self, partitions: &[i32], wait: Duration) -> bool {
        self.is_over_within(wait, |state| state.is_at(partitions))
    }

    /// Lets the lane go on to the end of what is routed of these partitions, and waits until it has, at most that long.
    pub(super) fn finish(&self, partitions: &[i32], wait: Duration) {
        self.nudge();
        self.is_over_within(wait, |state| {
            state.is_at(partitions)
                || state
                    .progress
                    .is_behind(|partition| partitions.contains(&partition))
        });
    }

    fn is_over_within(&self, wait: Duration, goes_on: impl Fn(&State) -> bool) -> bool {
        let state = self.state();
        let (state, _) = self
            .eased
            .wait_timeout_while(state, wait, |state| goes_on(state))
            .unwrap_or_else(PoisonError::into_inner);
        !goes_on(&state)
    }

    /// The partition is no longer consumed.
    pub(super) fn end(&self, partition: i32) {
        let mut state = self.state();
        state.progress.end(partition);
        state.lost.remove(&partition);
    }

    /// Up to where this lane has nothing left to do, by partition.
    pub(super) fn positions(&self) -> BTreeMap<i32, i64> {
        let state = self.state();
        state
            .progress
            .positions(|partition| state.pending.first_offset(partition).is_some())
    }

    /// What the database must hold for this lane, for the partitions of which nothing is under way.
    pub(super) fn quiet(&self) -> BTreeMap<i32, i64> {
        self.state().progress.quiet()
    }

    /// The partition has to be begun anew.
    pub(super) fn lose(&self, partition: i32) {
        self.state().lost.insert(partition);
    }

    /// The partitions to begin anew.
    pub(super) fn take_lost(&self) -> BTreeSet<i32> {
        std::mem::take(&mut self.state().lost)
    }

    /// When the oldest message of the partition that is here or with the lane was sent, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self, partition: i32) -> Option<i64> {
        let state = self.state();
        let out = state.out.get(&partition).copied().flatten();
        out.or_else(|| state.pending.first_ms(partition))
    }

    /// Nothing will come any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.pending = Batch::default();
        state.is_closed = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Whether the lane will take something at once, but for its rest.
    pub(super) fn has_pending(&self) -> bool {
        self.limits.wait.is_zero() && !self.state().pending.is_empty()
    }

    // --- the lane's side ---

    /// The next batch, at once if there is something and the lane has rested; `None` after the end. The last batch counts as over
    /// with.
    pub(super) async fn take(&self) -> Option<Work> {
        let rested_at = {
            let mut state = self.state();
            state.out.clear();
            let now = Instant::now();
            let rest = |given_at: Instant| REST * (now - given_at);
            now + state
                .given_at
                .map_or(Duration::ZERO, rest)
                .min(self.limits.rest)
        };
        self.eased.notify_all();
        loop {
            self.filled_until(State::has_work).await;
            let company_until = Instant::now() + self.limits.wait;
            // Enough or not, full or not, then it is taken.
            self.rest_until(rested_at, |state| self.has_enough(state))
                .await;
            self.rest_until(company_until, |state| self.is_full(state))
                .await;
            let mut state = self.state();
            if state.is_closed {
                return None;
            }
            if state.has_work() {
                let batch = std::mem::take(&mut state.pending);
                let advances = state.progress.take(&batch.ends());
                let out = advances
                    .iter()
                    .map(|advance| (advance.partition, batch.first_ms(advance.partition)));
                state.out = out.collect();
                state.is_nudged = false;
                state.given_at = Some(Instant::now());
                drop(state);
                self.eased.notify_all();
                return Some(Work { batch, advances });
            }
        }
    }

    /// What these steps stand for is recorded, and its dead letters are acknowledged.
    pub(super) fn settle(&self, advances: &[Advance]) {
        self.state().progress.settle(advances);
    }

    /// Whether the work goes on.
    pub(super) fn is_open(&self) -> bool {
        !self.state().is_closed
    }

    /// Waits until then, unless it holds before.
    async fn rest_until(&self, until: Instant, unless: impl Fn(&State) -> bool) {
        if until > Instant::now() {
            drop(timeout_at(until, self.filled_until(unless)).await);
        }
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

    /// Whether nothing is gained by waiting for more.
    fn has_enough(&self, state: &State) -> bool {
        state.pending.messages.len() >= ENOUGH || self.is_full(state)
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
    use tokio::time::sleep;

    use super::*;
    use crate::event::{BadMessage, dead_letter::Reason};

    const LIMITS: Limits = Limits {
        events: 3,
        bytes: 1_000,
        wait: Duration::ZERO,
        rest: Duration::from_millis(20),
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
            span: None,
        };
        buffer.push(received);
    }

    fn buffer() -> Buffer {
        let buffer = Buffer::new(LIMITS);
        buffer.begin(0, 0);
        buffer
    }

    /// From now on.
    async fn takes(buffer: &Buffer) -> Duration {
        let from = Instant::now();
        buffer.take().await.unwrap();
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_rests_for_longer_than_it_worked_but_not_for_a_full_batch() {
        let buffer = buffer();
        push(&buffer, 0, b"a");
        assert_eq!(takes(&buffer).await, Duration::ZERO, "it has done nothing");
        for (worked, rests) in [(3, 6), (9, 18), (100, 20), (0, 0)] {
            sleep(Duration::from_millis(worked)).await;
            push(&buffer, 1, b"a");
            assert_eq!(takes(&buffer).await, Duration::from_millis(rests));
        }
        sleep(Duration::from_millis(100)).await;
        for offset in 2..5 {
            push(&buffer, offset, b"a");
        }
        assert_eq!(takes(&buffer).await, Duration::ZERO, "it is full");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_does_not_rest_once_it_has_enough() {
        let buffer = Buffer::new(Limits {
            events: 10 * ENOUGH,
            bytes: 1_000_000,
            ..LIMITS
        });
        buffer.begin(0, 0);
        push(&buffer, 0, b"a");
        buffer.take().await.unwrap();
        sleep(Duration::from_millis(9)).await;
        let enough = i64::try_from(ENOUGH).unwrap();
        let later = async {
            for offset in 1..enough {
                push(&buffer, offset, b"b");
            }
            sleep(Duration::from_millis(4)).await;
            push(&buffer, enough, b"c");
        };
        let (took, ()) = tokio::join!(takes(&buffer), later);
        assert_eq!(took, Duration::from_millis(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_has_rested_takes_what_comes_at_once() {
        let buffer = buffer();
        push(&buffer, 0, b"a");
        buffer.take().await.unwrap();
        sleep(Duration::from_millis(5)).await;
        let later = async {
            sleep(Duration::from_millis(10)).await;
            push(&buffer, 1, b"b");
        };
        let (took, ()) = tokio::join!(takes(&buffer), later);
        assert_eq!(took, Duration::from_millis(10));
    }

    #[tokio::test]
    async fn what_came_meanwhile_is_the_next_batch() {
        let buffer = buffer();
        push(&buffer, 0, b"a");
        assert_eq!(
            buffer.take().await.unwrap().batch.messages.len(),
            1,
            "an idle lane waits for nobody"
        );
        push(&buffer, 1, b"b");
        push(&buffer, 2, b"c");
        assert_eq!(buffer.take().await.unwrap().batch.messages.len(), 2);
    }

    #[tokio::test]
    async fn there_is_no_room_beyond_the_limits() {
        let buffer = buffer();
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
        let buffer = buffer();
        push(&buffer, 0, &[0; 1_000]);
        assert!(!buffer.has_room_within(Duration::ZERO));
        buffer.forget(&[0]);
        assert!(buffer.has_room_within(Duration::ZERO));
    }

    #[tokio::test]
    async fn a_nudged_lane_goes_on_without_a_message() {
        let buffer = buffer();
        buffer.route(&[(0, 7)].into());
        buffer.nudge();
        let work = buffer.take().await.unwrap();
        assert!(work.batch.is_empty());
        assert_eq!(
            work.advances,
            [Advance {
                partition: 0,
                from: 0,
                to: 7
            }]
        );
        assert!(!buffer.is_free_of(&[0], Duration::ZERO));
        assert_eq!(buffer.positions()[&0], 0, "not yet");
        buffer.settle(&work.advances);
        assert_eq!(buffer.positions()[&0], 7);
    }

    #[tokio::test]
    async fn after_the_end_nothing_is_taken() {
        let buffer = buffer();
        push(&buffer, 0, b"a");
        assert_eq!(buffer.take().await.unwrap().batch.messages.len(), 1);
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
