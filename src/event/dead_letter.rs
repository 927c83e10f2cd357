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

/// Where a message came from: the identity of its dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

/// Longest detail in a header, in bytes: a message's own bytes may be quoted in it.
const DETAIL_BYTES_MAX: usize = 1_000;

/// Set when the value was left out because the dead-letter topic does not take so large a message.
pub const VALUE_OMITTED: &str = "stockyard.value_omitted";

/// The headers of a dead letter, with text values. The names are those of Kafka Connect
/// (`org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter`), and one of our own for the reason.
pub fn headers(origin: &Origin<'_>, reason: Reason, detail: &str) -> [(&'static str, String); 6] {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    [
        ("__connect.errors.topic", origin.topic.to_owned()),
        ("__connect.errors.partition", origin.partition.to_string()),
        ("__connect.errors.offset", origin.offset.to_string()),
        ("__connect.errors.stage", reason.stage().to_owned()),
        (
            "__connect.errors.exception.message",
            detail[..end].to_owned(),
        ),
        ("stockyard.reason", reason.to_string()),
    ]
}
