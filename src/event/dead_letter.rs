//! The wire format of dead letters: why, and from where. Key and value stay the bytes that came.

use std::fmt;

/// Why a message is a dead letter: a closed list that clients and dashboards know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    NotJson,
    InvalidMessage,
    Conflict,
    RejectedByDatabase,
    TooLarge,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::NotJson,
        Self::InvalidMessage,
        Self::Conflict,
        Self::RejectedByDatabase,
        Self::TooLarge,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::InvalidMessage => "invalid_message",
            Self::Conflict => "conflict",
            Self::RejectedByDatabase => "rejected_by_database",
            Self::TooLarge => "too_large",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Where on its way the message failed.
    fn stage(self) -> &'static str {
        match self {
            Self::NotJson | Self::InvalidMessage | Self::TooLarge => "VALUE_CONVERTER",
            Self::Conflict | Self::RejectedByDatabase => "TASK_PUT",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a message came from: the identity of its dead letter. Written `topic/partition@offset`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl Origin {
    /// Reads the written form; `partition@offset` alone is of `topic`.
    pub fn parse(text: &str, topic: &str) -> Option<Self> {
        let (place, offset) = text.rsplit_once('@')?;
        let (topic, partition) = place.rsplit_once('/').unwrap_or((topic, place));
        let origin = Self {
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        let is_one = !origin.topic.is_empty() && origin.partition >= 0 && origin.offset >= 0;
        is_one.then_some(origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// Longest detail in a header, in bytes: a message's own bytes may be quoted in it.
const DETAIL_BYTES_MAX: usize = 1_000;

const TOPIC: &str = "__connect.errors.topic";
const PARTITION: &str = "__connect.errors.partition";
const OFFSET: &str = "__connect.errors.offset";
const STAGE: &str = "__connect.errors.stage";
const DETAIL: &str = "__connect.errors.exception.message";
const REASON: &str = "stockyard.reason";

/// Set when the value was left out because the dead-letter topic does not take so large a message: its size in bytes.
pub const VALUE_OMITTED: &str = "stockyard.value_omitted";

/// On a message that was replayed: where it came from the first time. A dead letter of it carries it on, so that it is
/// known for the same message.
pub const FIRST_ORIGIN: &str = "stockyard.first_origin";

/// The headers of a dead letter, with text values. The names are those of Kafka Connect
/// (`org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter`), and one of our own for the reason.
pub fn headers(origin: &Origin, reason: Reason, detail: &str) -> [(&'static str, String); 6] {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    [
        (TOPIC, origin.topic.clone()),
        (PARTITION, origin.partition.to_string()),
        (OFFSET, origin.offset.to_string()),
        (STAGE, reason.stage().to_owned()),
        (DETAIL, detail[..end].to_owned()),
        (REASON, reason.to_string()),
    ]
}

/// Whether a header is one of a dead letter, and none that the message came with.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("__connect.errors.") || name.starts_with("stockyard.")
}

/// What the headers of a dead letter tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub origin: Origin,
    /// The same as `origin`, unless it was replayed.
    pub first_origin: Origin,
    pub reason: Reason,
    pub stage: String,
    pub detail: String,
    /// The size of the value that was left out.
    pub omitted_bytes: Option<u64>,
}

impl Told {
    /// Reads the headers; `None` if they are not those of a dead letter. The message may have come with some of the same
    /// name: ours come after them.
    pub fn read<'a>(
        headers: &(impl DoubleEndedIterator<Item = (&'a str, Option<&'a [u8]>)> + Clone),
    ) -> Option<Self> {
        let text = |wanted: &str| {
            let (_, value) = headers.clone().rfind(|(name, _)| *name == wanted)?;
            str::from_utf8(value?).ok()
        };
        let origin = Origin {
            topic: text(TOPIC)?.to_owned(),
            partition: text(PARTITION)?.parse().ok()?,
            offset: text(OFFSET)?.parse().ok()?,
        };
        // The one that is not always there: what stands before ours is not ours.
        let omitted = headers
            .clone()
            .rev()
            .take_while(|(name, _)| *name != REASON)
            .find_map(|(name, value)| (name == VALUE_OMITTED).then_some(value?));
        let omitted = omitted.and_then(|value| str::from_utf8(value).ok());
        let first_origin = text(FIRST_ORIGIN).and_then(|first| Origin::parse(first, &origin.topic));
        Some(Self {
            first_origin: first_origin.unwrap_or_else(|| origin.clone()),
            origin,
            reason: Reason::parse(text(REASON)?)?,
            stage: text(STAGE).unwrap_or_default().to_owned(),
            detail: text(DETAIL).unwrap_or_default().to_owned(),
            omitted_bytes: omitted.and_then(|bytes| bytes.parse().ok()),
        })
    }

    /// Whether the message came from there, the first time or when it was replayed.
    pub fn is_of(&self, origin: &Origin) -> bool {
        self.first_origin == *origin || self.origin == *origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(offset: i64) -> Origin {
        Origin {
            topic: "moves".to_owned(),
            partition: 3,
            offset,
        }
    }

    fn read(headers: &[(&str, String)]) -> Option<Told> {
        Told::read(
            &headers
                .iter()
                .map(|(name, value)| (*name, Some(value.as_bytes()))),
        )
    }

    #[test]
    fn what_is_written_is_read() {
        for reason in Reason::ALL {
            let told = read(&headers(&origin(7), reason, "because")).unwrap();
            let expected = Told {
                origin: origin(7),
                first_origin: origin(7),
                reason,
                stage: reason.stage().to_owned(),
                detail: "because".to_owned(),
                omitted_bytes: None,
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_replayed_message_is_known_by_its_first_origin() {
        let mut all = vec![(FIRST_ORIGIN, origin(7).to_string())];
        all.extend(headers(&origin(90), Reason::Conflict, ""));
        all.push((VALUE_OMITTED, "100000".to_owned()));
        let told = read(&all).unwrap();
        assert_eq!((told.origin, told.first_origin), (origin(90), origin(7)));
        assert_eq!(told.omitted_bytes, Some(100_000));
        all[0].1 = "nonsense".to_owned();
        assert_eq!(read(&all).unwrap().first_origin, origin(90));
    }

    #[test]
    fn headers_that_a_message_came_with_do_not_count() {
        let mut all = headers(&origin(1), Reason::NotJson, "another's").to_vec();
        all.push((VALUE_OMITTED, "100000".to_owned()));
        all.extend(headers(&origin(2), Reason::Conflict, "ours"));
        let told = read(&all).unwrap();
        assert_eq!(
            (told.origin, told.reason, told.detail.as_str()),
            (origin(2), Reason::Conflict, "ours")
        );
        assert_eq!(told.omitted_bytes, None, "its value is here");
    }

    #[test]
    fn another_message_is_no_dead_letter() {
        assert_eq!(read(&[]), None);
        let whole = headers(&origin(1), Reason::NotJson, "");
        for (missing, is_needed) in [(0, true), (1, true), (2, true), (3, false), (5, true)] {
            let mut some = whole.to_vec();
            some.remove(missing);
            assert_eq!(read(&some).is_none(), is_needed, "{}", whole[missing].0);
        }
    }

    #[test]
    fn an_origin_is_read_as_it_is_shown() {
        assert_eq!(
            Origin::parse(&origin(5).to_string(), "other"),
            Some(origin(5))
        );
        assert_eq!(Origin::parse("3@5", "moves"), Some(origin(5)));
        for text in ["", "5", "@", "3@", "@5", "/3@5", "moves/-1@5", "moves/3@-5"] {
            assert_eq!(Origin::parse(text, "moves"), None, "{text}");
        }
    }
}
