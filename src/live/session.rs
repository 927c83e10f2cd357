//! One client's side of the feed, as a state machine: asked for the next frame, it takes it from the ring. It knows no socket and no
//! time but the one it is given, and it keeps nothing that grows.
//!
//! Invariants: the client's picture stands at one commit, `at`; frames of later commits are given in their order, and only the last
//! of a commit (of a stretch of commits, for a client that is behind) carries the cursor; a snapshot's commit is where the picture
//! stands after it, so nothing that was committed while it was read is left out or told twice.

use std::{collections::HashMap, mem, sync::Arc, time::Duration, vec};

use bytes::Bytes;

use super::{
    filter::Filter,
    frames::{self, Told},
    quiet::Quiet,
    ring::{After, Item, Ring, Shown, What},
    snapshot::Snapshot,
    stretch::Stretch,
};
use crate::{
    domain::{CommitPoint, StockKey, Timestamp, Version, change::ChangeKind, commit::WantedCommit},
    inventory::feed::FollowedLevel,
};

/// Commits taken from the ring at once. A client that takes nothing holds them until it is closed, also when the ring has dropped
/// them.
const COMMITS_PER_LOOK: usize = 8;
/// Shortest time between two snapshots for one client.
const FETCH_EVERY: Duration = Duration::from_secs(1);
/// Most keys of which the client of a filter by kind has another quantity than the one before the next change.
const LAST_HAD_MAX: usize = 10_000;

/// In what words a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A snapshot, and then whatever happens, with cursors.
    Full,
    /// Changed levels and those that became low, from now on; who was away has missed what happened.
    Flat,
}

/// Where sessions take commits from.
pub trait Commits {
    /// What came after that commit.
    fn after(&self, at: CommitPoint, most: usize) -> After;
    /// The newest commit; `None` before following began.
    fn position(&self) -> Option<CommitPoint>;
    /// How often following began anew.
    fn life(&self) -> u64;
    /// The commit with that version, in that life of the feed.
    fn get(&self, life: u64, version: Version) -> Option<Arc<Shown>>;
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// JSON.
    pub text: Bytes,
    /// Holding this frame, the client's picture is the database at this commit.
    pub cursor: Option<CommitPoint>,
    /// When what it tells was committed, if it tells of a commit.
    pub committed_at: Option<Timestamp>,
}

/// What there is to do next.
#[derive(Debug)]
pub enum Step {
    Send(Frame),
    /// Nothing, until there are more commits or it is that late.
    Wait(Duration),
    /// A snapshot is to be fetched and given.
    Fetch,
}

impl Commits for Ring {
    fn after(&self, at: CommitPoint, most: usize) -> After {
        Ring::after(self, at, most)
    }

    fn position(&self) -> Option<CommitPoint> {
        (Ring::life(self) > 0).then(|| Ring::position(self))
    }

    fn life(&self) -> u64 {
        Ring::life(self)
    }

    fn get(&self, life: u64, version: Version) -> Option<Arc<Shown>> {
        (life == Ring::life(self)).then(|| Ring::get(self, version).cloned())?
    }
}

/// One client's side.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    filter: Arc<Filter>,
    state: State,
    /// Commits right after the one where the client's picture stands, taken from the ring together.
    taken: vec::IntoIter<Arc<Shown>>,
    /// The life of the feed in which the client's commit was known.
    life: u64,
    heartbeat_every: Duration,
    /// When a heartbeat is due.
    heartbeat_at: Duration,
    /// Not before then is another snapshot fetched: while the follower cannot go on, none would last.
    fetch_at: Duration,
    /// How often several commits were told as one.
    conflations: u64,
    /// The client's commit was not followed yet; until then it may be.
    ahead_until: Option<Duration>,
    /// For a filter by kind: what the client last had of keys whose later changes it was not told; `None`: not the key.
    last_had: HashMap<StockKey, Option<i64>>,
}

#[derive(Debug)]
enum State {
    /// The client has nothing, or what it has is of no use for this reason.
    Joining(Option<&'static str>),
    /// It gets the parts from this one on.
    Beginning(Arc<Snapshot>, usize),
    /// Its picture stands here.
    At(CommitPoint),
    /// It is told what came between two commits.
    Walking(Walk),
}

/// The way from one commit to a later one.
#[derive(Debug)]
struct Walk {
    dialect: Dialect,
    /// The life of the feed in which it began: in another, the same versions are other commits.
    life: u64,
    from: CommitPoint,
    to: CommitPoint,
    /// The last commit that is behind.
    seen: CommitPoint,
    /// The ones right after it.
    commits: vec::IntoIter<Arc<Shown>>,
    /// The one after it, and the place in it that is next.
    current: Option<(Arc<Shown>, u32)>,
    /// Found, and kept until it is known whether it is the last.
    held: Option<Found>,
}

/// An item to tell.
#[derive(Debug)]
struct Found {
    shown: Arc<Shown>,
    place: u32,
    how: How,
}

/// How a client is told of an item.
#[derive(Clone, Copy, Debug)]
enum How {
    AsEverybody,
    ByItself(Told),
    Flat,
}

/// The ring does not have it any more.
#[derive(Debug)]
struct Gone;

const RESTORED: &str = "the feed began anew";
const BEHIND: &str = "too far behind";

impl Session {
    /// For a client that has nothing, or the picture as of `since`.
    pub fn new(
        dialect: Dialect,
        filter: Arc<Filter>,
        since: Option<WantedCommit>,
        heartbeat_every: Duration,
        commits: &impl Commits,
    ) -> Self {
        let life = commits.life();
        let at = since.and_then(|since| {
            let (version, tag) = (since.version, since.tag?);
            let at = CommitPoint { version, tag };
            match commits.after(at, 0) {
                After::Commits { .. } => Some(at),
                // The follower has not begun: it may know the commit when it does.
                After::Ahead if life == 0 => Some(at),
                After::Ahead | After::Unknown => None,
            }
        });
        // Who is told from now on stands where the feed does.
        let now = || commits.position().filter(|_| dialect == Dialect::Flat);
        Self {
            dialect,
            filter,
            state: at.or_else(now).map_or(State::Joining(None), State::At),
            taken: Vec::new().into_iter(),
            life,
            heartbeat_every,
            heartbeat_at: Duration::ZERO,
            fetch_at: Duration::ZERO,
            conflations: 0,
            ahead_until: None,
            last_had: HashMap::new(),
        }
    }

    /// When it is told that nothing happened, if nothing does.
    pub fn heartbeat_at(&self) -> Duration {
        self.heartbeat_at
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// How often several commits were told as one since this was last asked.
    pub fn take_conflations(&mut self) -> u64 {
        mem::take(&mut self.conflations)
    }

    /// The snapshot that was to be fetched.
    pub fn give(&mut self, snapshot: Arc<Snapshot>, commits: &impl Commits, now: Duration) {
        self.fetch_at = now + FETCH_EVERY;
        self.last_had.clear();
        self.life = commits.life();
        self.state = State::Beginning(snapshot, 0);
    }

    /// The snapshot could not be fetched.
    pub fn give_none(&mut self, now: Duration) {
        self.fetch_at = now + FETCH_EVERY;
    }

    /// The commit at which the client's picture stands, and the life of the feed, if it has one and nothing is under way.
    pub fn stands(&self) -> Option<(u64, CommitPoint)> {
        match &self.state {
            State::At(at) if self.taken.len() == 0 => Some((self.life, *at)),
            _ => None,
        }
    }

    /// The client was told a stretch that begins where it stands.
    pub fn was_told(&mut self, stretch: &Stretch, now: Duration) {
        if self.stands() == Some((stretch.life, stretch.from)) {
            self.state = State::At(stretch.to);
            self.ahead_until = None;
            self.conflations += stretch.conflations;
            if !stretch.texts.is_empty() {
                self.heartbeat_at = now.saturating_add(self.heartbeat_every);
            }
        }
    }

    /// Nothing that the client is told happened on that way.
    pub fn pass(&mut self, quiet: Quiet) {
        // One that was not followed yet may never have been a commit of this feed.
        let stands = self.stands().filter(|_| self.ahead_until.is_none());
        if stands.is_some_and(|(life, at)| quiet.holds(life, at)) {
            self.state = State::At(quiet.to);
        }
    }

    pub(super) fn hear_no_heartbeats(&mut self) {
        self.heartbeat_at = Duration::MAX;
    }

    /// What to do next, at that time.
    pub fn next(&mut self, commits: &impl Commits, now: Duration) -> Step {
        loop {
            match &mut self.state {
                State::Joining(_) if self.dialect == Dialect::Flat => {
                    let Some(at) = commits.position() else {
                        return Step::Wait(now.saturating_add(self.heartbeat_every));
                    };
                    self.life = commits.life();
                    self.state = State::At(at);
                }
                State::Joining(reason) => {
                    return match reason.take() {
                        Some(reason) => self.send(frames::resync(reason), None, now),
                        None if now < self.fetch_at => Step::Wait(self.fetch_at),
                        None => Step::Fetch,
                    };
                }
                State::Beginning(snapshot, part) => {
                    let Some(text) = snapshot.parts.get(*part).cloned() else {
                        self.state = State::At(snapshot.as_of);
                        continue;
                    };
                    *part += 1;
                    let cursor = (*part == snapshot.parts.len()).then_some(snapshot.as_of);
                    return self.send(text, cursor, now);
                }
                State::At(at) => {
                    let at = *at;
                    if let Some(step) = self.go_on(at, commits, now) {
                        return step;
                    }
                }
                State::Walking(walk) => {
                    match walk.look(&self.filter, &mut self.last_had, commits) {
                        Ok(Some(found)) => {
                            if let Some(earlier) = walk.held.replace(found) {
                                return Step::Send(earlier.frame(None));
                            }
                        }
                        Ok(None) => {
                            let (to, last) = (walk.to, walk.held.take());
                            self.taken = mem::take(&mut walk.commits);
                            self.state = State::At(to);
                            if let Some(last) = last {
                                self.heartbeat_at = now.saturating_add(self.heartbeat_every);
                                return Step::Send(last.frame(Some(to)));
                            }
                        }
                        Err(Gone) => self.rejoin(BEHIND),
                    }
                }
            }
        }
    }

    /// Sets out from where the client's picture stands; if it stays there, what to do meanwhile.
    fn go_on(&mut self, at: CommitPoint, commits: &impl Commits, now: Duration) -> Option<Step> {
        if let Some(next) = self.taken.as_slice().first() {
            let to = next.point;
            let taken = mem::take(&mut self.taken);
            self.state = self.walk(at, to, self.life, taken);
            return None;
        }
        match commits.after(at, COMMITS_PER_LOOK) {
            After::Commits {
                life,
                next,
                conflate_to,
            } => {
                self.life = life;
                self.ahead_until = None;
                self.conflations += u64::from(conflate_to.is_some());
                let Some(first) = next.first() else {
                    return Some(self.idle(at, commits, now));
                };
                let to = conflate_to.unwrap_or(first.point);
                self.state = self.walk(at, to, life, next.into_iter());
            }
            After::Ahead => {
                // A read may be ahead of the follower, but not for long: else it was undone before it was seen.
                let until = *self
                    .ahead_until
                    .get_or_insert(now.saturating_add(self.heartbeat_every));
                let is_same_life = [0, commits.life()].contains(&self.life);
                if now < until && is_same_life {
                    return Some(Step::Wait(until));
                }
                self.rejoin(RESTORED);
            }
            After::Unknown if self.life == commits.life() => self.rejoin(BEHIND),
            After::Unknown => self.rejoin(RESTORED),
        }
        None
    }

    fn walk(
        &self,
        from: CommitPoint,
        to: CommitPoint,
        life: u64,
        commits: vec::IntoIter<Arc<Shown>>,
    ) -> State {
        State::Walking(Walk {
            dialect: self.dialect,
            life,
            from,
            to,
            seen: from,
            commits,
            current: None,
            held: None,
        })
    }

    fn rejoin(&mut self, reason: &'static str) {
        self.ahead_until = None;
        self.taken = Vec::new().into_iter();
        self.state = State::Joining(Some(reason));
    }

    fn idle(&mut self, at: CommitPoint, commits: &impl Commits, now: Duration) -> Step {
        if self.dialect == Dialect::Flat {
            return Step::Wait(now.saturating_add(self.heartbeat_every));
        }
        if now < self.heartbeat_at {
            return Step::Wait(self.heartbeat_at);
        }
        let text = commits
            .get(self.life, at.version)
            .map_or_else(|| frames::heartbeat(at), |shown| shown.heartbeat());
        self.send(text, Some(at), now)
    }

    fn send(&mut self, text: Bytes, cursor: Option<CommitPoint>, now: Duration) -> Step {
        if cursor.is_some() {
            self.heartbeat_at = now.saturating_add(self.heartbeat_every);
        }
        Step::Send(Frame {
            text,
            cursor,
            committed_at: None,
        })
    }
}

impl Found {
    fn frame(&self, cursor: Option<CommitPoint>) -> Frame {
        Frame {
            text: self.text(cursor),
            cursor,
            committed_at: Some(self.shown.committed_at),
        }
    }

    fn text(&self, cursor: Option<CommitPoint>) -> Bytes {
        let Some(item) = self.shown.item(self.place) else {
            return Bytes::new();
        };
        let is_shared = cursor.is_none_or(|cursor| cursor == self.shown.point);
        match (&item.what, self.how) {
            (_, How::Flat) => self.shown.flat_frame(item).unwrap_or_default(),
            (_, How::AsEverybody) if is_shared => self.shown.frame(item, cursor.is_some()),
            (What::Level(level), How::ByItself(told)) => {
                frames::update(&self.shown, level, told, cursor)
            }
            _ => frames::item(&self.shown, item, cursor),
        }
    }
}

impl Walk {
    /// The next item that the client is to be told.
    fn look(
        &mut self,
        filter: &Filter,
        last_had: &mut HashMap<StockKey, Option<i64>>,
        commits: &impl Commits,
    ) -> Result<Option<Found>, Gone> {
        while self.seen != self.to {
            let (shown, from) = match self.current.take() {
                Some(current) => current,
                None => (self.next_commit(commits)?, 0),
            };
            let Some(place) = shown.next_looked_at(filter, from) else {
                self.seen = shown.point;
                continue;
            };
            self.current = Some((Arc::clone(&shown), place + 1));
            let Some(item) = shown.item(place) else {
                continue;
            };
            if self.is_behind() && item.is_superseded_by(self.to.version) {
                continue;
            }
            let how = match &item.what {
                What::Low(_) | What::Reorder(_) | What::Risk(_)
                    if !self.has_crossed(item, commits)? =>
                {
                    continue;
                }
                _ if self.dialect == Dialect::Flat => match shown.flat_frame(item) {
                    Some(_) => How::Flat,
                    None => continue,
                },
                // Who keeps up and looks at all levels is told as everybody is.
                What::Level(level) if filter.is_by_key() && !self.is_behind() => {
                    if level.by_minimum {
                        continue;
                    }
                    How::AsEverybody
                }
                What::Level(level) => {
                    let Some(told) = self.tell(item, level, filter, last_had, commits)? else {
                        continue;
                    };
                    let is_to_all = filter.is_by_key() && told == Told::to_all(level);
                    if is_to_all {
                        How::AsEverybody
                    } else {
                        How::ByItself(told)
                    }
                }
                What::Low(_) | What::Reorder(_) | What::Risk(_) | What::Words(_) => {
                    How::AsEverybody
                }
            };
            return Ok(Some(Found { shown, place, how }));
        }
        Ok(None)
    }

    fn next_commit(&mut self, commits: &impl Commits) -> Result<Arc<Shown>, Gone> {
        if let Some(shown) = self.commits.next() {
            return Ok(shown);
        }
        if let After::Commits { next, .. } = commits.after(self.seen, COMMITS_PER_LOOK) {
            self.commits = next.into_iter();
        }
        self.commits.next().ok_or(Gone)
    }

    /// Whether several commits are told as one.
    fn is_behind(&self) -> bool {
        self.from.version.next() < self.to.version
    }

    /// How the client is told of a level, if it is.
    fn tell(
        &self,
        item: &Item,
        level: &FollowedLevel,
        filter: &Filter,
        last_had: &mut HashMap<StockKey, Option<i64>>,
        commits: &impl Commits,
    ) -> Result<Option<Told>, Gone> {
        let (mut kinds, mut first) = (level.kind(), (level.change.before, level.was_low));
        let mut has_kind = filter.has_change(level.kind());
        self.look_back(item, commits, |item| {
            if let What::Level(earlier) = &item.what {
                kinds = match (kinds, earlier.kind()) {
                    (Some(later), Some(earlier)) => Some(later.and(earlier)),
                    (later, earlier) => later.or(earlier),
                };
                has_kind |= filter.has_change(earlier.kind());
                first = (earlier.change.before, earlier.was_low);
            }
        })?;
        let (before, was_low) = first;
        if kinds.is_none() && (!filter.is_below_min() || was_low == level.is_low) {
            // Nothing but the minimum changed: to somebody else, or to and fro.
            return Ok(None);
        }
        let key = level.change.key;
        let stood = (!filter.is_below_min() || was_low).then(|| before.quantity());
        let had = last_had.get(&key).copied().unwrap_or(stood);
        if !has_kind {
            if last_had.len() >= LAST_HAD_MAX {
                return Err(Gone);
            }
            last_had.entry(key).or_insert(had);
            return Ok(None);
        }
        last_had.remove(&key);
        let has_left = filter.is_below_min() && !level.is_low;
        if has_left && had.is_none() {
            return Ok(None);
        }
        Ok(Some(Told {
            kind: kinds.unwrap_or(ChangeKind::Mixed),
            change: level.change.after.quantity() - had.unwrap_or(0),
            has_left,
        }))
    }

    /// Whether the state after the last of several crossings is another than before the first: they go to and fro.
    fn has_crossed(&self, item: &Item, commits: &impl Commits) -> Result<bool, Gone> {
        let mut crossings = 1;
        self.look_back(item, commits, |_| crossings += 1)?;
        Ok(crossings % 2 == 1)
    }

    /// The earlier items of the same key on this way, the latest first.
    fn look_back(
        &self,
        item: &Item,
        commits: &impl Commits,
        mut look: impl FnMut(&Item),
    ) -> Result<(), Gone> {
        let mut before = item.before();
        while let Some(place) = before.filter(|place| place.version > self.from.version) {
            let shown = commits.get(self.life, place.version).ok_or(Gone)?;
            let earlier = shown.item(place.item).ok_or(Gone)?;
            look(earlier);
            before = earlier.before();
        }
        Ok(())
    }
}
