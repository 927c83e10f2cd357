//! Moments, in microseconds: what the database keeps. Parsed and shown as ISO 8601.

use std::fmt;

use jiff::{Timestamp as Instant, civil::Time, fmt::temporal::DateTimeParser, tz::Offset};

/// A moment in time: microseconds since 1970-01-01T00:00:00Z. Finer fractions are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 2000-01-01T00:00:00Z and 2100-01-01T00:00:00Z, in microseconds: a fact's time lies from the first to before the second.
const FACTS_FROM_US: i64 = 946_684_800_000_000;
const FACTS_UNTIL_US: i64 = 4_102_444_800_000_000;

const DAY_S: i32 = 86_400;

/// Why a text is not the time of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    #[error("not an ISO 8601 date and time")]
    Form,
    #[error("outside the years 2000 to 2099 (UTC)")]
    Range,
}

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    /// A moment at which facts can lie.
    pub fn of_facts(micros: i64) -> Option<Self> {
        (FACTS_FROM_US..FACTS_UNTIL_US)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// The time of a fact: ISO 8601 with or without offset; without one it is UTC, whatever the host's zone.
    pub fn parse_fact_time(text: &str) -> Result<Self, NotATime> {
        const PARSER: DateTimeParser = DateTimeParser::new();
        let pieces = PARSER.parse_pieces(text).map_err(|_| NotATime::Form)?;
        // A date alone says no moment.
        let time: Time = pieces.time().ok_or(NotATime::Form)?;
        let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
        // What the parser takes beyond ISO 8601: annotations in brackets (a zone name would need a zone database to mean
        // a moment), and offsets of a day and more.
        if text.contains('[') || offset.seconds().abs() >= DAY_S {
            return Err(NotATime::Form);
        }
        let at = offset
            .to_timestamp(pieces.date().to_datetime(time))
            .map_err(|_| NotATime::Range)?;
        // Rounding down, not towards zero, though the range leaves no difference.
        let micros =
            i64::try_from(at.as_nanosecond().div_euclid(1_000)).map_err(|_| NotATime::Range)?;
        Self::of_facts(micros).ok_or(NotATime::Range)
    }
}

impl fmt::Display for Timestamp {
    /// `2025-02-18T12:12:56Z`, with a fraction only if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Instant::from_microsecond(self.0) {
            Ok(at) => at.fmt(f),
            // Beyond the year 9999, where no fact and no commit lies.
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Timestamp::parse_fact_time(text).unwrap().to_string()
    }

    #[test]
    fn a_time_without_offset_is_utc() {
        assert_eq!(
            shown("2025-02-18T14:34:56.123456"),
            "2025-02-18T14:34:56.123456Z"
        );
        assert_eq!(shown("2025-02-18 14:34:56"), "2025-02-18T14:34:56Z");
    }

    #[test]
    fn an_offset_counts() {
        assert_eq!(shown("2025-02-18T12:12:56Z"), "2025-02-18T12:12:56Z");
        assert_eq!(shown("2025-02-18T12:12:56+03:00"), "2025-02-18T09:12:56Z");
        assert_eq!(shown("20250218T121256-0530"), "2025-02-18T17:42:56Z");
    }

    #[test]
    fn fractions_beyond_microseconds_are_cut_off() {
        assert_eq!(
            shown("2025-02-18T12:12:56.1234569Z"),
            "2025-02-18T12:12:56.123456Z"
        );
        assert_eq!(shown("2025-02-18T12:12:56.5Z"), "2025-02-18T12:12:56.5Z");
    }

    #[test]
    fn the_century_is_bounded_in_utc() {
        assert_eq!(shown("2000-01-01T00:00:00Z"), "2000-01-01T00:00:00Z");
        assert_eq!(
            shown("2099-12-31T23:59:59.999999Z"),
            "2099-12-31T23:59:59.999999Z"
        );
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-01-01T00:00:00+01:00",
            "2100-01-01T00:00:00Z",
        ] {
            assert_eq!(
                Timestamp::parse_fact_time(text),
                Err(NotATime::Range),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2025-02-18",
            "2025-02-30T00:00:00Z",
            "2025-02-18T25:00:00Z",
            "12:00",
            "2025-02-18T12:00:00[Europe/Moscow]",
            "2025-02-18T12:00:00Z[u-ca=iso8601]",
            "2025-02-18T12:00:00+24:00",
            "2025-02-18T24:00:00Z",
            "2025-W08-2T12:00:00Z",
            "1737439421623",
            "2025-02-18T12:12:56Z ",
        ] {
            assert_eq!(
                Timestamp::parse_fact_time(text),
                Err(NotATime::Form),
                "{text}"
            );
        }
    }
}
