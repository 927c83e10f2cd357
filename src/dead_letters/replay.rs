//! Brings messages back: sends them again to the topic they came from, as they came.
//!
//! Invariants: each message is sent at most once in a run, and counts as sent when every in-sync replica has it; it carries
//! its first origin, so that a dead letter of it is known for the same message; memory is bounded by [`SENT_BYTES`] and
//! [`SEEN_MAX`]. Its effect is exactly once whatever is sent how often, because that is what a fact's identity is for.

use std::{collections::HashSet, fmt, io::Write};

use futures_util::future::join_all;
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, future_producer::Delivery},
};
use tokio::runtime::Handle;

use super::{
    DeadLetters, DeadLettersError, Identity, Letter, Selection,
    reader::{Content, Reader},
    text,
};
use crate::{
    domain::Fact,
    event::{
        self, BadMessage, Form,
        dead_letter::{FIRST_ORIGIN, Origin, Told, is_ours},
    },
    kafka,
};

/// Most messages, and bytes of them (and one message more), that are on their way at once.
const SENT_MESSAGES: usize = 500;
const SENT_BYTES: usize = 16 * 1024 * 1024;
/// Most messages remembered as sent, about 100 bytes each. Beyond it one may be sent again, which changes nothing.
const SEEN_MAX: usize = 500_000;
/// How much of a detail is shown, in characters.
const DETAIL_CHARS: usize = 200;

/// How to replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Say what would be sent, and send nothing.
    pub is_dry: bool,
    /// Send what would only become a dead letter again, too.
    pub is_forced: bool,
}

/// What became of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Sent and taken by Kafka; in a dry run, what would be sent.
    pub sent: u64,
    /// Left alone, because they would only become dead letters again.
    pub skipped: u64,
    /// Not taken by Kafka, or no longer there to be sent.
    pub failed: u64,
}

/// A message to be sent.
struct Due {
    told: Told,
    content: Content,
    /// What it is now, as far as decoding can tell.
    prospect: Result<Fact, BadMessage>,
}

/// A replay under way.
struct Replay<'r> {
    how: How,
    origins: Reader,
    producer: FutureProducer,
    decoded_bytes_max: usize,
    seen: HashSet<Identity>,
    due: Vec<Due>,
    due_bytes: usize,
    replayed: Replayed,
    out: &'r mut dyn Write,
}

impl DeadLetters {
    /// Sends each message that is selected to the topic it came from, with a line for each. Blocks; within a runtime.
    pub fn replay(
        &self,
        selection: &Selection,
        how: How,
        out: &mut dyn Write,
    ) -> Result<Replayed, DeadLettersError> {
        let mut kafka = self.kafka.clone();
        for (option, value) in [
            // What came compressed has to fit as well: the topic's bound is the one that counts.
            ("message.max.bytes", "1000000000"),
            ("compression.type", "gzip"),
            // The bound is of a batch: together they would be refused though each of them fits.
            ("batch.num.messages", "1"),
        ] {
            let option = kafka.options.entry(option.to_owned());
            option.or_insert_with(|| value.to_owned());
        }
        let mut replay = Replay {
            how,
            origins: Reader::new(&self.kafka, self.clock.clone())?,
            producer: kafka::lone_producer(&kafka)?,
            decoded_bytes_max: self.decoded_bytes_max,
            seen: HashSet::new(),
            due: Vec::new(),
            due_bytes: 0,
            replayed: Replayed::default(),
            out,
        };
        let mut missing: HashSet<&Origin> = selection.origins.iter().collect();
        self.each(selection, |letter| {
            missing.retain(|origin| !letter.told.is_of(origin));
            replay.take(letter)
        })?;
        replay.send_due()?;
        for origin in missing {
            replay.replayed.failed += 1;
            writeln!(
                replay.out,
                "cannot be sent: {origin}: there is no dead letter of it"
            )?;
        }
        Ok(replay.replayed)
    }
}

impl Replay<'_> {
    fn take(&mut self, letter: Letter) -> Result<(), DeadLettersError> {
        let identity = letter.identity();
        if self.seen.contains(&identity) {
            return Ok(());
        }
        let told = letter.told;
        let content = match self.content_of(&told, letter.content) {
            Ok(content) => content,
            Err(why) => {
                self.replayed.failed += 1;
                let origin = &told.first_origin;
                return Ok(writeln!(self.out, "cannot be sent: {origin}: {why}")?);
            }
        };
        // Only now: of a value that was left out, a later letter may name another place.
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(identity);
        let headers = content.headers.iter();
        let form = Form::of_headers(headers.map(|(name, value)| (name.as_str(), value.as_deref())));
        let prospect = event::decode_within(self.decoded_bytes_max, content.value.as_deref(), form);
        let due = Due {
            told,
            content,
            prospect,
        };
        if due.prospect.is_err() && !self.how.is_forced {
            self.replayed.skipped += 1;
            writeln!(self.out, "left alone: {due}")?;
        } else if self.how.is_dry {
            self.replayed.sent += 1;
            writeln!(self.out, "would be sent: {due}")?;
        } else {
            self.due_bytes += due.content.value.as_ref().map_or(0, Vec::len);
            self.due.push(due);
            if self.due.len() >= SENT_MESSAGES || self.due_bytes >= SENT_BYTES {
                self.send_due()?;
            }
        }
        Ok(())
    }

    /// What the producer wrote: from the letter, or, if the value was left out there, from where it came.
    fn content_of(&self, told: &Told, kept: Content) -> Result<Content, String> {
        let Some(bytes) = told.omitted_bytes else {
            return Ok(kept);
        };
        let found = self.origins.read_one(&told.origin);
        let found = found.map_err(|error| format!("its value was left out: {error}"))?;
        // A topic that was made anew has other messages at the same offsets.
        let is_it = |there: &Content| {
            there.value.as_ref().map_or(0, Vec::len) as u64 == bytes
                && (kept.key.is_none() || kept.key == there.key)
        };
        let gone = || format!("its value was left out, and Kafka has no more those {bytes} bytes");
        found.filter(is_it).ok_or_else(gone)
    }

    /// Sends what is due and waits until Kafka has it or says why not.
    fn send_due(&mut self) -> Result<(), DeadLettersError> {
        let due = std::mem::take(&mut self.due);
        self.due_bytes = 0;
        let sent = join_all(due.iter().map(|due| send(&self.producer, due)));
        for (due, result) in due.iter().zip(Handle::current().block_on(sent)) {
            match result {
                Ok(place) => {
                    self.replayed.sent += 1;
                    writeln!(
                        self.out,
                        "sent to {}@{}: {due}",
                        place.partition, place.offset
                    )?;
                }
                Err(error) => {
                    self.replayed.failed += 1;
                    writeln!(self.out, "not taken: {due}: {error}")?;
                }
            }
        }
        Ok(())
    }
}

/// Sends a message with its first origin or, if it is as large as the topic takes and does not shrink, without.
async fn send(producer: &FutureProducer, due: &Due) -> Result<Delivery, KafkaError> {
    let headers = || {
        let headers = due.content.headers.iter();
        let theirs = headers.filter(|(name, _)| !is_ours(name));
        theirs.fold(OwnedHeaders::new(), |all, (name, value)| {
            let value = value.as_deref();
            all.insert(Header { key: name, value })
        })
    };
    let first_origin = due.told.first_origin.to_string();
    let header = Header {
        key: FIRST_ORIGIN,
        value: Some(&first_origin),
    };
    match produce(producer, due, headers().insert(header)).await {
        Err(error) if kafka::is_too_large(&error) => produce(producer, due, headers()).await,
        result => result,
    }
}

/// To the partition it came from: what is told in order there stays together.
async fn produce(
    producer: &FutureProducer,
    due: &Due,
    headers: OwnedHeaders,
) -> Result<Delivery, KafkaError> {
    let origin = &due.told.origin;
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&origin.topic)
        .partition(origin.partition)
        .headers(headers);
    record.key = due.content.key.as_deref();
    record.payload = due.content.value.as_deref();
    kafka::send(producer, record).await
}

impl fmt::Display for Due {
    /// Where it came from, what it was refused for, and what it is now as far as decoding can tell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = &self.told;
        write!(f, "{} ({}), ", told.first_origin, told.reason)?;
        match &self.prospect {
            Ok(fact) => write!(
                f,
                "{} of {} units of product {} at warehouse {} in movement {}",
                fact.side.as_str(),
                fact.report.quantity.units(),
                fact.product,
                fact.report.warehouse,
                fact.movement
            ),
            Err(bad) => {
                let detail = text::on_one_line(&bad.detail, DETAIL_CHARS);
                write!(f, "still {}: {detail}", bad.reason)
            }
        }
    }
}
