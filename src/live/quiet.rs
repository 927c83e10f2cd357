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
use crate::domain::{CommitPoint, Version};

/// What becomes of those who look at the same when there are more commits.
#[derive(Clone, Copy, Debug)]
pub enum Onward {
    /// They are told nothing: they are put further.
    Passed(Quiet),
    /// They have to look.
    Called(Quiet),
}

/// Whoever stands on it may as well stand at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Of the feed: in another, the same versions are other commits.
    pub life: u64,
    pub from: Version,
    pub to: CommitPoint,
    /// Where it is to be looked on from: its end, or, once what came after that was told, where those stand who were.
    pub next: CommitPoint,
}

impl Quiet {
    /// One that has only begun.
    pub fn at(life: u64, at: CommitPoint) -> Self {
        Self {
            life,
            from: at.version,
            to: at,
            next: at,
        }
    }

    /// With the stretch that begins where it is to be looked on from, if that is known. `now` is from before any stretch of this call
    /// was worked out.
    pub fn onward(self, stretch: Option<&Stretch>, now: Self) -> Onward {
        if self.life != now.life {
            return Onward::Called(now);
        }
        let Some(stretch) = stretch else {
            return Onward::Called(Self {
                next: now.next,
                ..self
            });
        };
        // Where commits are told as one, what they did may be undone at the end, and who stands between has seen only a part of it.
        if stretch.texts.is_empty() && !stretch.is_full && stretch.conflations == 0 {
            let from = if self.next == self.to {
                self.from
            } else {
                self.next.version
            };
            return Onward::Passed(Self {
                from,
                to: stretch.to,
                next: stretch.to,
                ..self
            });
        }
        // Who was told a stretch that another of them worked out sooner stands at `now` at least, and not always further.
        let next = if stretch.is_full || stretch.to.version > now.next.version {
            now.next
        } else {
            stretch.to
        };
        Onward::Called(Self { next, ..self })
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
    /// Those who wait to be called, and those who came since they were called last. Who takes nothing is neither.
    waiting: AtomicUsize,
    came: AtomicUsize,
}

impl Group {
    pub fn new(dialect: Dialect, filter: Arc<Filter>, quiet: Quiet) -> Self {
        Self {
            dialect,
            filter,
            called: watch::Sender::new(quiet),
            members: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            came: AtomicUsize::new(0),
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

    /// Calls everybody to look; how many will.
    pub fn call(&self, quiet: Quiet) -> usize {
        let came = self.came.swap(0, Ordering::Relaxed);
        let listen = self.waiting.load(Ordering::Relaxed) + came;
        self.called.send_replace(quiet);
        listen.min(self.members())
    }

    /// One of them waits to be called. It may be given up at any time.
    pub async fn wait(&self, called: &mut watch::Receiver<Quiet>) {
        let waits = Waits::new(&self.waiting);
        // Whoever waits holds the group, so there is always somebody who may call.
        drop(called.changed().await);
        drop(waits);
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    pub fn members(&self) -> usize {
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

/// One that waits, for as long as this is held.
struct Waits<'g>(&'g AtomicUsize);

impl<'g> Waits<'g> {
    fn new(waiting: &'g AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
