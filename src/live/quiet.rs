//! Who need not be called: a way on which nothing happens that those who look at the same are told.
//!
//! Most commits are of no interest to most of those who look at a part. They are not woken for them: where each of them stands is put
//! further for all at once, and a client finds that when it next looks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use super::{filter::Filter, session::Dialect, stretch::Stretch};
use crate::domain::{CommitPoint, Tag, Version};

/// What becomes of those who look at the same when there are more commits.
#[derive(Clone, Copy, Debug)]
pub enum Onward {
    /// They are told nothing: they are put further.
    Passed(Quiet),
    /// They have to look, and begin there.
    Called(Quiet),
}

/// Whoever stands on it may as well stand at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Of the feed: in another, the same versions are other commits.
    pub life: u64,
    pub from: Version,
    pub to: CommitPoint,
}

impl Quiet {
    /// One that has only begun.
    pub fn at(life: u64, at: CommitPoint) -> Self {
        Self {
            life,
            from: at.version,
            to: at,
        }
    }

    /// Before following has begun.
    pub fn unknown() -> Self {
        let nowhere = CommitPoint {
            version: Version::ZERO,
            tag: Tag(0),
        };
        Self::at(0, nowhere)
    }

    /// With the stretch that begins at its end, if it is known.
    pub fn onward(self, stretch: Option<&Stretch>, now: Self) -> Onward {
        let Some(stretch) = stretch.filter(|_| self.life == now.life) else {
            return Onward::Called(now);
        };
        // Where commits are told as one, what they did may be undone at the end, and who stands between has seen only a part of it.
        if stretch.texts.is_empty() && !stretch.is_full && stretch.conflations == 0 {
            return Onward::Passed(Self {
                to: stretch.to,
                ..self
            });
        }
        // Who is told the stretch stands at its end, unless there is more.
        Onward::Called(if stretch.is_full {
            now
        } else {
            Self::at(now.life, stretch.to)
        })
    }

    /// Whether somebody who stands there stands on it, before its end.
    pub fn holds(&self, life: u64, at: CommitPoint) -> bool {
        life == self.life && self.from <= at.version && at.version < self.to.version
    }
}

/// Everybody who is told the same.
#[derive(Debug)]
pub struct Group {
    pub dialect: Dialect,
    pub filter: Arc<Filter>,
    called: watch::Sender<Quiet>,
    members: AtomicUsize,
}

impl Group {
    pub fn new(dialect: Dialect, filter: Arc<Filter>, quiet: Quiet) -> Self {
        Self {
            dialect,
            filter,
            called: watch::Sender::new(quiet),
            members: AtomicUsize::new(0),
        }
    }

    pub fn quiet(&self) -> Quiet {
        *self.called.borrow()
    }

    /// Puts everybody further, and wakes nobody.
    pub fn pass(&self, on: Quiet) {
        self.called.send_if_modified(|quiet| {
            *quiet = on;
            false
        });
    }

    /// Calls everybody to look; how many they are.
    pub fn call(&self, from_here: Quiet) -> usize {
        self.called.send_replace(from_here);
        self.members.load(Ordering::Relaxed)
    }

    pub fn join(&self) -> watch::Receiver<Quiet> {
        self.members.fetch_add(1, Ordering::AcqRel);
        self.called.subscribe()
    }

    /// Whether it was the last one.
    pub fn leave(&self) -> bool {
        self.members.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
