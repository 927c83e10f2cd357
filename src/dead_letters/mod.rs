//! What operators do with dead letters: list them, look into one, bring them back.
//!
//! Invariants: the topic is only read, by a consumer that is in no group and commits nothing, from its beginning to the
//! end it has at the start; a message is known by its first origin and its bytes, however many letters there are of it;
//! what a producer wrote reaches a terminal escaped. What is not here: how letters come to be (`ingest`).

mod list;
mod reader;
mod replay;
mod show;
mod text;

use std::{io, time::Duration};

use rdkafka::{Message, error::KafkaError, message::BorrowedMessage};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    clock::Clock,
    config::{Config, Kafka},
    domain::Timestamp,
    event::dead_letter::{Origin, Reason, Told},
};
use reader::{Content, Reader};
pub use replay::{How, Replayed};

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("kafka has no topic {0}")]
    NoTopic(String),
    #[error("kafka has sent nothing for {0:?}")]
    Silent(Duration),
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Which letters; what is empty or `None` leaves nothing out.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// First origins or later ones.
    pub origins: Vec<Origin>,
    pub reasons: Vec<Reason>,
    pub origin_topic: Option<String>,
    /// When the letter was written: from then, and to before then.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl Selection {
    fn takes(&self, letter: &Letter) -> bool {
        let told = &letter.told;
        let is_one_of = |origin| told.is_of(origin);
        let at = letter.written_at;
        (self.origins.is_empty() || self.origins.iter().any(is_one_of))
            && (self.reasons.is_empty() || self.reasons.contains(&told.reason))
            && (self.origin_topic.as_ref()).is_none_or(|topic| *topic == told.origin.topic)
            && self.since.is_none_or(|since| at >= Some(since))
            && self.until.is_none_or(|until| at < Some(until))
    }
}

/// A dead letter as it lies in its topic.
struct Letter {
    told: Told,
    content: Content,
    written_at: Option<Timestamp>,
}

/// What makes two letters letters of one message. The bytes are part of it because an origin alone names another message
/// when the topic was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    first_origin: Origin,
    digest: u64,
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        let content = Content::of(message);
        let headers = content.headers.iter();
        let told = Told::read(&headers.map(|(name, value)| (name.as_str(), value.as_deref())))?;
        let written_ms = message.timestamp().to_millis();
        Some(Self {
            told,
            content,
            written_at: written_ms.map(|ms| Timestamp::from_micros(ms.saturating_mul(1_000))),
        })
    }

    fn identity(&self) -> Identity {
        let mut digest = Xxh3::new();
        for part in [&self.content.key, &self.content.value] {
            digest.update(&[u8::from(part.is_some())]);
            digest.update(part.as_deref().unwrap_or_default());
        }
        Identity {
            first_origin: self.told.first_origin.clone(),
            digest: digest.digest(),
        }
    }

    /// The size of the message's value, there or left out.
    fn value_bytes(&self) -> u64 {
        let there = self.content.value.as_ref().map_or(0, Vec::len) as u64;
        self.told.omitted_bytes.unwrap_or(there)
    }
}

/// The dead letters of a configuration.
///
/// Its commands block: they are for a thread of their own.
pub struct DeadLetters {
    kafka: Kafka,
    /// Largest value that ingest decodes.
    decoded_bytes_max: usize,
    clock: Clock,
}

impl DeadLetters {
    pub fn new(config: &Config, clock: Clock) -> Self {
        Self {
            kafka: config.kafka.clone(),
            decoded_bytes_max: config.ingest.max_message_bytes,
            clock,
        }
    }

    /// Tells the key, the first origin and the reason of each letter that was written since then.
    pub fn tell(
        &self,
        since: Option<Timestamp>,
        mut tell: impl FnMut(Option<&[u8]>, &Origin, Reason),
    ) -> Result<(), DeadLettersError> {
        let selection = Selection {
            since,
            ..Selection::default()
        };
        self.each(&selection, |letter| {
            let told = &letter.told;
            tell(
                letter.content.key.as_deref(),
                &told.first_origin,
                told.reason,
            );
            Ok(())
        })?;
        Ok(())
    }

    /// Tells each letter that is selected; returns how many messages of the topic are no dead letters.
    fn each(
        &self,
        selection: &Selection,
        mut tell: impl FnMut(Letter) -> Result<(), DeadLettersError>,
    ) -> Result<u64, DeadLettersError> {
        let mut strangers = 0;
        let reader = Reader::new(&self.kafka, self.clock.clone())?;
        reader.read(&self.kafka.dead_letter_topic(), |message| {
            match Letter::of(message) {
                Some(letter) if selection.takes(&letter) => tell(letter)?,
                Some(_) => {}
                None => strangers += 1,
            }
            Ok(())
        })?;
        Ok(strangers)
    }
}
