//! A place in a trace, as W3C Trace Context writes it: what caused a message, a request, a commit.
//!
//! Only read where traces are on, and kept with a commit, so that whoever follows it goes on with its trace.
//! <https://www.w3.org/TR/trace-context/>

use std::{
    fmt::{self, Display, Formatter},
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
};

/// A span of a trace, which may be another process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    pub trace: NonZeroU128,
    pub span: NonZeroU64,
    /// Whoever began the trace wants it recorded.
    pub is_sampled: bool,
}

/// It means nothing, and is to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceParent;

/// The only version that is known. Later ones begin like it and may go on behind a further dash.
const VERSION: &str = "00";
/// The version that none may have.
const NO_VERSION: &str = "ff";
/// The one flag that is known.
const SAMPLED: u128 = 1;

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        let mut parts = text.splitn(5, '-');
        let mut next = |digits| {
            let part = parts.next().filter(|part| is_hex(part, digits));
            part.ok_or(NotATraceParent)
        };
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        if version == NO_VERSION || version == VERSION && parts.next().is_some() {
            return Err(NotATraceParent);
        }
        // A number of hexadecimal digits that fits.
        let number = |digits| u128::from_str_radix(digits, 16).unwrap_or_default();
        let span = u64::try_from(number(span)).unwrap_or_default();
        Ok(Self {
            trace: NonZeroU128::new(number(trace)).ok_or(NotATraceParent)?,
            span: NonZeroU64::new(span).ok_or(NotATraceParent)?,
            is_sampled: number(flags) & SAMPLED != 0,
        })
    }
}

impl Display for TraceParent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        write!(
            f,
            "{VERSION}-{:032x}-{:016x}-{flags:02x}",
            self.trace, self.span
        )
    }
}

/// Digits as they are to be written: lower case.
fn is_hex(part: &str, digits: usize) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    part.len() == digits && part.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_written_is_read() {
        let parent: TraceParent = WRITTEN.parse().unwrap();
        assert_eq!(
            parent.trace.get(),
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c
        );
        assert_eq!(parent.span.get(), 0xb7ad_6b71_6920_3331);
        assert!(parent.is_sampled);
        assert_eq!(parent.to_string(), WRITTEN);
        let quiet = WRITTEN.replace("-01", "-00");
        let parent: TraceParent = quiet.parse().unwrap();
        assert!(!parent.is_sampled);
        assert_eq!(parent.to_string(), quiet);
    }

    #[test]
    fn flags_and_versions_to_come_are_taken() {
        for (from, to) in [("-01", "-ff"), ("00-", "01-"), ("-01", "-03")] {
            let parent: TraceParent = WRITTEN.replace(from, to).parse().unwrap();
            assert!(parent.is_sampled, "{to}");
        }
        let later = format!("{}-more-of-it", WRITTEN.replace("00-", "cc-"));
        assert!(later.parse::<TraceParent>().is_ok());
    }

    #[test]
    fn nonsense_is_none() {
        let long = format!("{WRITTEN}-");
        let zero = format!("00-{:032}-b7ad6b7169203331-01", 0);
        let nobody = format!("00-0af7651916cd43dd8448eb211c80319c-{:016}-01", 0);
        for text in [
            "",
            "00",
            "junk",
            &long,
            &zero,
            &nobody,
            &WRITTEN[..WRITTEN.len() - 1],
            &WRITTEN.to_uppercase(),
            &WRITTEN.replace("00-", "ff-"),
            &WRITTEN.replace("-01", "-0"),
            &WRITTEN.replace('b', "+"),
            &WRITTEN.replace("0af7", "0a€7"),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NotATraceParent), "{text}");
        }
    }
}
