//! The order of commits: one number with a tag.

use std::{fmt, str::FromStr};

/// The place of a commit in the order of commits. 0 is the empty database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(i64);

impl Version {
    pub const ZERO: Self = Self(0);

    /// `None` for a negative number.
    pub fn new(number: i64) -> Option<Self> {
        (number >= 0).then_some(Self(number))
    }

    pub fn number(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random mark of one commit: a version is only the same version if its tag is the same. Shown as 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One commit of one database: `812-5f3a9c01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitPoint {
    pub version: Version,
    pub tag: Tag,
}

impl fmt::Display for CommitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, self.tag)
    }
}

/// What a client asks to be covered by an answer: a version, and the tag if it wants to be sure of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedCommit {
    pub version: Version,
    pub tag: Option<Tag>,
}

/// Text that is neither `812` nor `812-5f3a9c01`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version is written 812 or 812-5f3a9c01")]
pub struct NotACommit;

impl FromStr for WantedCommit {
    type Err = NotACommit;

    fn from_str(text: &str) -> Result<Self, NotACommit> {
        let (number, tag) = match text.split_once('-') {
            Some((number, tag)) => (number, Some(tag)),
            None => (text, None),
        };
        // `parse` would take a sign as well.
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotACommit);
        }
        let version = number
            .parse()
            .ok()
            .and_then(Version::new)
            .ok_or(NotACommit)?;
        let tag = match tag {
            Some(hex) if hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(Tag(u32::from_str_radix(hex, 16).map_err(|_| NotACommit)?))
            }
            Some(_) => return Err(NotACommit),
            None => None,
        };
        Ok(Self { version, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_written_as_number_and_tag() {
        let point = CommitPoint {
            version: Version(812),
            tag: Tag(0x5f3a_9c01),
        };
        assert_eq!(point.to_string(), "812-5f3a9c01");
        let wanted: WantedCommit = "812-5f3a9c01".parse().unwrap();
        assert_eq!(
            wanted,
            WantedCommit {
                version: point.version,
                tag: Some(point.tag)
            }
        );
        assert_eq!("812".parse::<WantedCommit>().unwrap().tag, None);
    }

    #[test]
    fn anything_else_is_not_a_commit() {
        for text in [
            "",
            "-1",
            "+1",
            "1-",
            "1-12345",
            "1-5f3a9c0g",
            "99999999999999999999",
            "1 ",
            "x",
        ] {
            assert_eq!(text.parse::<WantedCommit>(), Err(NotACommit), "{text}");
        }
    }
}
