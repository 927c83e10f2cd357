//! A lane: takes batches and gets each of them done, whatever it takes.
//!
//! Invariants: a batch is done when its facts are committed and its dead letters acknowledged, and only then may Kafka
//! be told; nothing is dropped for a fault of a server; only a message the database refuses for its data becomes a dead
//! letter, found by halving.

use std::{mem, ops::Range, sync::Arc, time::Duration};

use super::{
    backoff::Backoff,
    batch::{Message, RecordedMessage},
    buffer::{Buffer, Work},
    dead_letter::{DeadLetters, Letter},
};
use crate::{
    clock::Clock,
    domain::{Fact, TraceParent, batch::Outcome},
    event::dead_letter::Reason,
    inventory::record::{Recorded, Recorder, Taken},
    metrics::Metrics,
    store::{
        StoreError,
        positions::{Advance, LaneNumber},
    },
};

/// Everything one lane works with.
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) number: LaneNumber,
    pub(super) buffer: Arc<Buffer>,
    pub(super) recorder: Recorder,
    pub(super) dead_letters: DeadLetters,
    pub(super) backoff: Backoff,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// Ingest ends, or the batch's place in the database is not where we left it.
struct GivenUp;

impl Lane {
    pub(super) async fn run(mut self) {
        let buffer = Arc::clone(&self.buffer);
        while let Some(mut work) = buffer.take().await {
            crash_point!("after_hand_over");
            let mut recorded = mem::take(&mut work.batch.recorded);
            if self.settle(&work, &mut recorded).await.is_ok() {
                buffer.settle(&work.advances);
                continue;
            }
            // All of it comes again from Kafka: the positions say from where.
            for message in &mut recorded {
                message.span.fail("given_up");
            }
            for advance in &work.advances {
                buffer.lose(advance.partition);
            }
        }
    }

    /// Facts, then dead letters.
    async fn settle(
        &mut self,
        work: &Work,
        recorded: &mut [RecordedMessage],
    ) -> Result<(), GivenUp> {
        let batch = &work.batch;
        if !batch.is_empty() {
            self.metrics
                .batch_events
                .observe(count(batch.messages.len()));
        }
        let letters = self.record(work, recorded).await?;
        crash_point!("after_commit");
        if letters.is_empty() {
            return Ok(());
        }
        for message in recorded {
            let is_of = |letter: &&Letter<'_>| is_it(letter.message, message);
            if let Some(letter) = letters.iter().find(is_of) {
                message.span.fail(letter.reason.as_str());
            }
        }
        let timer = self
            .metrics
            .batch_stage_seconds
            .with_label_values(&["dead_letters"])
            .start_timer();
        self.recorder.rest().await;
        let goes_on = || self.buffer.is_open();
        if !self.dead_letters.write(batch, &letters, goes_on).await {
            return Err(GivenUp);
        }
        timer.observe_duration();
        crash_point!("after_dead_letters");
        Ok(())
    }

    /// Records the batch, halving a part that the database refuses for its data until the culprit is alone. The
    /// positions move with the last part, when everything before it is in.
    async fn record<'b>(
        &mut self,
        work: &'b Work,
        recorded: &mut [RecordedMessage],
    ) -> Result<Vec<Letter<'b>>, GivenUp> {
        let messages = &work.batch.messages;
        let mut letters = Vec::new();
        // The next part is the last of these: parts are taken in the order of their offsets.
        let whole = 0..messages.len();
        let mut parts: Vec<Range<usize>> = vec![whole];
        while let Some(part) = parts.pop() {
            let slice = &messages[part.clone()];
            let facts: Vec<Fact> = slice
                .iter()
                .filter_map(|message| message.content.as_ref().ok())
                .copied()
                .collect();
            let advances = if parts.is_empty() {
                work.advances.as_slice()
            } else {
                &[]
            };
            let in_part = of_part(recorded, slice, messages.len());
            let causes: Vec<TraceParent> =
                in_part.iter().filter_map(|it| it.span.place()).collect();
            match self.record_part(&facts, advances, &causes).await? {
                Ok(done) => {
                    letters.extend(letters_of(slice, &done.outcomes));
                    self.count(slice, &done);
                    if let Some(transaction) = done.trace {
                        for message in in_part {
                            message.span.link(transaction);
                        }
                    }
                }
                Err(refusal) if slice.len() == 1 => {
                    letters.push(Letter {
                        message: &slice[0],
                        reason: Reason::RejectedByDatabase,
                        detail: refusal,
                    });
                    if !advances.is_empty() {
                        // Positions alone cannot be refused for their data.
                        drop(self.record_part(&[], advances, &[]).await?);
                    }
                    self.count_status("error", 1);
                }
                Err(_) => {
                    let middle = part.start + slice.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        Ok(letters)
    }

    /// Records one part, trying again for as long as ingest goes on. What the database refuses for its data comes back as
    /// its message.
    async fn record_part(
        &mut self,
        facts: &[Fact],
        advances: &[Advance],
        causes: &[TraceParent],
    ) -> Result<Result<Recorded, String>, GivenUp> {
        let taken = Taken {
            topic: &self.topic,
            lane: self.number,
            advances,
            causes,
        };
        let mut tries = 0;
        loop {
            match self.recorder.record(facts, taken).await {
                Ok(recorded) => {
                    if tries > 0 {
                        tracing::info!(tries, "the database takes batches again");
                    }
                    return Ok(Ok(recorded));
                }
                Err(StoreError::DataRefused { code, message }) => {
                    return Ok(Err(format!("{message} (SQLSTATE {code})")));
                }
                Err(StoreError::PositionMoved(_)) => {
                    return Err(GivenUp);
                }
                Err(_) if !self.buffer.is_open() => return Err(GivenUp),
                Err(error) => {
                    if tries == 0 {
                        tracing::warn!(%error, "the database did not take a batch; trying again");
                    }
                    self.metrics
                        .retries_total
                        .with_label_values(&["record"])
                        .inc();
                    self.backoff.wait(tries).await;
                    tries += 1;
                }
            }
        }
    }

    fn count(&self, messages: &[Message], recorded: &Recorded) {
        let with = |outcome| recorded.outcomes.iter().filter(|o| **o == outcome).count();
        let (applied, duplicates) = (with(Outcome::Applied), with(Outcome::Duplicate));
        self.count_status("ok", applied);
        self.count_status("duplicate", duplicates);
        self.count_status("error", messages.len() - applied - duplicates);
        if recorded.commit.is_some() {
            let now_ms = self.clock.unix_micros() / 1_000;
            for then_ms in messages.iter().filter_map(|message| message.timestamp_ms) {
                let age =
                    Duration::from_millis(now_ms.saturating_sub(then_ms).max(0).unsigned_abs());
                self.metrics
                    .event_to_commit_seconds
                    .observe(age.as_secs_f64());
            }
        }
    }

    fn count_status(&self, status: &str, messages: usize) {
        self.metrics
            .messages_total
            .with_label_values(&[self.topic.as_str(), status])
            .inc_by(messages as u64);
    }
}

/// The messages of a recorded part that are no facts, or conflict with what is known.
fn letters_of<'b>(messages: &'b [Message], outcomes: &[Outcome]) -> Vec<Letter<'b>> {
    let mut outcomes = outcomes.iter();
    let mut letters = Vec::new();
    for message in messages {
        match &message.content {
            Err(bad) => {
                letters.push(Letter {
                    message,
                    reason: bad.reason,
                    detail: bad.detail.clone(),
                });
            }
            Ok(fact) => {
                if outcomes.next() == Some(&Outcome::Conflict) {
                    let detail = format!(
                        "the {} of product {} in movement {} is known with another content",
                        fact.side.as_str(),
                        fact.product,
                        fact.movement
                    );
                    letters.push(Letter {
                        message,
                        reason: Reason::Conflict,
                        detail,
                    });
                }
            }
        }
    }
    letters
}

fn is_it(message: &Message, recorded: &RecordedMessage) -> bool {
    (message.partition, message.offset) == (recorded.partition, recorded.offset)
}

/// Those of a part of the batch. Only a batch of which something is refused is taken in parts.
fn of_part<'r>(
    recorded: &'r mut [RecordedMessage],
    part: &[Message],
    whole: usize,
) -> Vec<&'r mut RecordedMessage> {
    let is_whole = part.len() == whole;
    let is_there =
        |it: &&mut RecordedMessage| is_whole || part.iter().any(|message| is_it(message, it));
    recorded.iter_mut().filter(is_there).collect()
}

/// A number of messages as a histogram takes it.
fn count(messages: usize) -> f64 {
    u32::try_from(messages).map_or(f64::MAX, f64::from)
}
