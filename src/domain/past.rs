//! Stock as it was: a moment, and by which clock it is meant.

use std::str::FromStr;

use super::Timestamp;

/// By which clock a moment is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// When changes were committed: what was known then.
    #[default]
    Recorded,
    /// When changes happened: what is known now of then.
    Occurred,
}

impl Basis {
    /// As clients write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Occurred => "occurred",
        }
    }
}

/// A text that names no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such basis")]
pub struct NotABasis;

impl FromStr for Basis {
    type Err = NotABasis;

    fn from_str(text: &str) -> Result<Self, NotABasis> {
        let mut all = [Self::Recorded, Self::Occurred].into_iter();
        all.find(|basis| basis.as_str() == text).ok_or(NotABasis)
    }
}

/// What moment is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Timestamp,
    pub basis: Basis,
}
