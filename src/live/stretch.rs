//! What everybody who stands at the same commit and looks at the same things is told next. Worked out once for all of them.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;

use super::{
    filter::Filter,
    session::{Commits, Dialect, Session, Step},
};
use crate::domain::{CommitPoint, Timestamp, commit::WantedCommit};

/// Most bytes of one stretch, without the framing: what a connection has under way is as much at most.
const BYTES_MAX: usize = 64 * 1024;

/// The way from one commit to another, and what is told on it.
#[derive(Debug)]
pub struct Stretch {
    pub from: CommitPoint,
    pub to: CommitPoint,
    /// In which life of the feed.
    pub life: u64,
    /// Whole documents, the last of which has the cursor.
    pub texts: Vec<Bytes>,
    /// Their length.
    pub bytes: usize,
    pub oldest: Option<Timestamp>,
    /// There may be more right after it.
    pub is_full: bool,
    pub conflations: u64,
    encoded: OnceLock<Bytes>,
}

impl Stretch {
    /// From that commit on; `None` where that depends on the client, or where nothing is left to go on from.
    pub(super) fn from(
        from: CommitPoint,
        life: u64,
        dialect: Dialect,
        filter: &Arc<Filter>,
        commits: &impl Commits,
    ) -> Option<Self> {
        if !filter.is_without_memory() {
            return None;
        }
        let since = WantedCommit {
            version: from.version,
            tag: Some(from.tag),
        };
        // A client that nobody knows of, in no hurry to hear that nothing happened.
        let mut client = Session::new(
            dialect,
            Arc::clone(filter),
            Some(since),
            Duration::MAX,
            commits,
        );
        client.hear_no_heartbeats();
        let mut stretch = Self {
            from,
            to: from,
            life,
            texts: Vec::new(),
            bytes: 0,
            oldest: None,
            is_full: false,
            conflations: 0,
            encoded: OnceLock::new(),
        };
        // Up to the last frame with a cursor that is within the bound.
        let (mut bytes, mut whole) = (0, 0);
        loop {
            match client.next(commits, Duration::ZERO) {
                Step::Send(frame) => {
                    bytes += frame.text.len();
                    if bytes > BYTES_MAX {
                        stretch.is_full = true;
                        break;
                    }
                    stretch.oldest = stretch.oldest.or(frame.committed_at);
                    stretch.texts.push(frame.text);
                    if let Some(cursor) = frame.cursor {
                        (stretch.to, stretch.bytes) = (cursor, bytes);
                        whole = stretch.texts.len();
                    }
                }
                // Without a frame it may have gone further.
                Step::Wait(_) => {
                    let (its_life, to) = client.stands()?;
                    // Another has begun meanwhile, and the commit where this stretch begins is in both.
                    if its_life != life {
                        return None;
                    }
                    stretch.to = to;
                    break;
                }
                Step::Fetch => return None,
            }
        }
        stretch.texts.truncate(whole);
        stretch.conflations = client.take_conflations();
        (stretch.to != from || !stretch.is_full).then_some(stretch)
    }

    /// Its documents as they go over the wire: encoded by whoever is first.
    pub fn encoded(&self, encode: impl FnOnce(&[Bytes]) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.texts)).clone()
    }
}
