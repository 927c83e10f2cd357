//! The last commits, for everybody.
//!
//! Items of one key are linked: each knows the one before it and the version of the one after it. So a client that is behind can
//! be told the newest state of each key while it walks over the commits once, without a list of its own.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;

use super::{filter::Filter, frames};
use crate::{
    domain::{
        CommitPoint, ProductId, ReservationId, StockKey, Tag, Timestamp, Version, WarehouseId,
    },
    inventory::feed::{Crossing, Followed, FollowedLevel, Reorder, Risk},
    store::catalogue::CatalogueChange,
};

/// A client that is so many commits behind is told the newest state of each key only,
const CONFLATED_AFTER_COMMITS: i64 = 256;
/// and so is one that is behind by this part of the ring, because soon it would not be in it any more.
const CONFLATED_AFTER_SHARE: usize = 4;
/// The part of the ring that is kept while nobody looks.
const ASIDE_SHARE: usize = 10;
/// No later item of the key is known.
const NONE_YET: i64 = i64::MAX;

/// A commit in the ring.
#[derive(Debug)]
pub struct Shown {
    pub point: CommitPoint,
    pub committed_at: Timestamp,
    /// Words and alerts, then levels by key.
    items: Vec<Item>,
    /// Items of this and all earlier commits since following began.
    total: usize,
    /// Where the levels begin.
    levels_from: usize,
    /// The places of the levels, by product.
    by_product: Vec<u32>,
    heartbeat: OnceLock<Bytes>,
}

/// Something to tell.
#[derive(Debug)]
pub struct Item {
    pub what: What,
    /// The version of the next item of this key.
    superseded: AtomicI64,
    /// The item of this key before, if the ring has it.
    before: Option<Place>,
    frame: OnceLock<Bytes>,
    frame_with_cursor: OnceLock<Bytes>,
    flat: OnceLock<Bytes>,
}

/// What an item tells.
#[derive(Debug)]
pub enum What {
    Level(FollowedLevel),
    Low(Crossing),
    Reorder(Reorder),
    Risk(Risk),
    Words(CatalogueChange),
}

/// What an item is about: of one about the same thing, only the newest is of interest to who is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum About {
    Level(StockKey),
    Low(StockKey),
    Reorder(ProductId),
    Risk(ReservationId, StockKey),
    Product(ProductId),
    Warehouse(WarehouseId),
}

/// Where an item is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub version: Version,
    pub item: u32,
}

impl What {
    fn about(&self) -> About {
        match self {
            Self::Level(level) => About::Level(level.change.key),
            Self::Low(crossing) => About::Low(crossing.key),
            Self::Reorder(reorder) => About::Reorder(reorder.product),
            Self::Risk(risk) => About::Risk(risk.reservation, risk.key),
            Self::Words(CatalogueChange::Product(product) | CatalogueChange::Archived(product)) => {
                About::Product(product.id)
            }
            Self::Words(CatalogueChange::Warehouse(place)) => About::Warehouse(place.id),
        }
    }
}

impl Item {
    fn new(what: What) -> Self {
        Self {
            what,
            superseded: AtomicI64::new(NONE_YET),
            before: None,
            frame: OnceLock::new(),
            frame_with_cursor: OnceLock::new(),
            flat: OnceLock::new(),
        }
    }

    /// Whether a later item of the key is in a commit up to that version.
    pub fn is_superseded_by(&self, version: Version) -> bool {
        self.superseded.load(Ordering::Acquire) <= version.number()
    }

    pub fn before(&self) -> Option<Place> {
        self.before
    }
}

impl Shown {
    fn new(commit: Followed) -> Self {
        let words = commit.catalogue.into_iter().map(What::Words);
        let low = commit.crossings.into_iter().map(What::Low);
        let reorders = commit.reorders.into_iter().map(What::Reorder);
        let risks = commit.risks.into_iter().map(What::Risk);
        let first = words.chain(low).chain(reorders).chain(risks);
        let mut items: Vec<Item> = first.map(Item::new).collect();
        let levels_from = items.len();
        items.extend(commit.levels.into_iter().map(What::Level).map(Item::new));
        // A batch has some thousands of rows at most.
        let last = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let first = u32::try_from(levels_from).unwrap_or(u32::MAX);
        let mut shown = Self {
            point: commit.point,
            committed_at: commit.committed_at,
            total: 0,
            items,
            levels_from,
            by_product: (first..last).collect(),
            heartbeat: OnceLock::new(),
        };
        let mut by_product = std::mem::take(&mut shown.by_product);
        by_product
            .sort_unstable_by_key(|&place| (shown.key(place as usize).map(|k| k.product), place));
        shown.by_product = by_product;
        shown
    }

    pub fn item(&self, place: u32) -> Option<&Item> {
        self.items.get(place as usize)
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn key(&self, place: usize) -> Option<StockKey> {
        level_key(self.items.get(place)?)
    }

    /// The frame of an item as everybody gets it who keeps up.
    pub fn frame(&self, item: &Item, with_cursor: bool) -> Bytes {
        let kept = if with_cursor {
            &item.frame_with_cursor
        } else {
            &item.frame
        };
        let cursor = with_cursor.then_some(self.point);
        kept.get_or_init(|| frames::item(self, item, cursor))
            .clone()
    }

    /// The same in the flat dialect; `None` for what that has no words for.
    pub fn flat_frame(&self, item: &Item) -> Option<Bytes> {
        if let Some(flat) = item.flat.get() {
            return Some(flat.clone());
        }
        let flat = frames::flat(self, item)?;
        Some(item.flat.get_or_init(|| flat).clone())
    }

    /// That nothing has happened since.
    pub fn heartbeat(&self) -> Bytes {
        self.heartbeat
            .get_or_init(|| frames::heartbeat(self.point))
            .clone()
    }
}

impl Shown {
    /// The first item from that place on that the filter looks at.
    pub fn next_looked_at(&self, filter: &Filter, from: u32) -> Option<u32> {
        let mut place = from;
        while (place as usize) < self.levels_from {
            if self.item(place).is_some_and(|item| filter.looks_at(item)) {
                return Some(place);
            }
            place += 1;
        }
        match (filter.warehouses(), filter.products()) {
            ([], []) => self.item(place).map(|_| place),
            (_, [product]) => self.next_of_product(filter, *product, place),
            ([warehouse], []) => {
                let levels = self.items.get(place as usize..)?;
                let before =
                    |item: &Item| level_key(item).is_some_and(|key| key.warehouse < *warehouse);
                let skipped = levels.partition_point(before);
                let found = level_key(levels.get(skipped)?)?;
                (found.warehouse == *warehouse)
                    .then(|| u32::try_from(skipped).map(|skipped| place + skipped))?
                    .ok()
            }
            _ => {
                let levels = self.items.get(place as usize..)?;
                let found = levels.iter().position(|item| filter.looks_at(item))?;
                u32::try_from(found).ok().map(|found| place + found)
            }
        }
    }

    fn next_of_product(&self, filter: &Filter, product: ProductId, from: u32) -> Option<u32> {
        let order = |place: &u32| (self.key(*place as usize).map(|key| key.product), *place);
        let wanted = (Some(product), from);
        let first = self
            .by_product
            .partition_point(|place| order(place) < wanted);
        let of_product = self.by_product[first..]
            .iter()
            .take_while(|place| order(place).0 == Some(product));
        of_product
            .copied()
            .find(|place| self.item(*place).is_some_and(|item| filter.looks_at(item)))
    }
}

fn level_key(item: &Item) -> Option<StockKey> {
    match &item.what {
        What::Level(level) => Some(level.change.key),
        What::Low(_) | What::Reorder(_) | What::Risk(_) | What::Words(_) => None,
    }
}

/// The last commits and where they begin.
///
/// While nobody looks, commits are only put aside, and fewer of them: to link them costs more than to fold them.
#[derive(Debug)]
pub struct Ring {
    /// The commit before the first in the ring: who stands there can go on.
    base: CommitPoint,
    commits: VecDeque<Arc<Shown>>,
    items: usize,
    items_max: usize,
    newest: HashMap<About, Place>,
    /// The commits after those, not linked yet.
    aside: VecDeque<Followed>,
    aside_items: usize,
    /// The last commit that changed the catalogue, or where following began.
    words_since: Version,
    /// How often following has begun anew.
    life: u64,
}

/// What came after a commit.
#[derive(Debug)]
pub enum After {
    Commits {
        /// The life of the feed that they are of.
        life: u64,
        /// The next ones, at most as many as were asked for; none: that commit is the newest.
        next: Vec<Arc<Shown>>,
        /// It is so far behind that only the newest state of each key is of interest, up to here.
        conflate_to: Option<CommitPoint>,
    },
    /// The commit is ahead of this process.
    Ahead,
    /// The ring does not have it any more, or it never was a commit of this database.
    Unknown,
}

impl Ring {
    /// An empty one. It holds commits with so many items at most, and always the newest.
    pub fn new(items_max: usize) -> Self {
        Self {
            base: CommitPoint {
                version: Version::ZERO,
                tag: Tag(0),
            },
            commits: VecDeque::new(),
            items: 0,
            items_max,
            newest: HashMap::new(),
            aside: VecDeque::new(),
            aside_items: 0,
            words_since: Version::ZERO,
            life: 0,
        }
    }

    /// Begins anew after this commit, with the ones right after it.
    pub fn begin(&mut self, base: CommitPoint, history: Vec<Followed>) {
        self.commits.clear();
        self.newest.clear();
        self.items = 0;
        self.life += 1;
        self.base = base;
        self.words_since = base.version;
        for commit in &history {
            self.take_words(commit);
        }
        self.aside_items = history.iter().map(|commit| weight(commit.len())).sum();
        self.aside = history.into();
    }

    /// The commit right after the newest, while nobody looks.
    pub fn put_aside(&mut self, commit: Followed) {
        self.take_words(&commit);
        self.aside_items += weight(commit.len());
        self.aside.push_back(commit);
        while self.items + self.aside_items > self.items_max / ASIDE_SHARE && self.aside.len() > 1 {
            if !self.drop_first()
                && let Some(first) = self.aside.pop_front()
            {
                self.aside_items -= weight(first.len());
                self.base = first.point;
            }
        }
    }

    fn take_words(&mut self, commit: &Followed) {
        if !commit.catalogue.is_empty() {
            self.words_since = commit.point.version;
        }
    }

    /// The commit right after the newest, while somebody looks.
    pub fn push(&mut self, commit: Followed) {
        self.take_words(&commit);
        self.aside.push_back(commit);
        self.link();
    }

    /// Links what was put aside: somebody will look.
    pub fn link(&mut self) {
        while let Some(commit) = self.aside.pop_front() {
            self.push_linked(commit);
        }
        self.aside_items = 0;
    }

    fn push_linked(&mut self, commit: Followed) {
        let mut shown = Shown::new(commit);
        let version = shown.point.version;
        for (place, item) in shown.items.iter_mut().enumerate() {
            let here = Place {
                version,
                item: u32::try_from(place).unwrap_or(u32::MAX),
            };
            item.before = self.newest.insert(item.what.about(), here);
        }
        for before in shown.items.iter().filter_map(|item| item.before) {
            if let Some(item) = self.get(before.version).and_then(|c| c.item(before.item)) {
                item.superseded.store(version.number(), Ordering::Release);
            }
        }
        self.items += weight(shown.len());
        shown.total = self.total() + weight(shown.len());
        self.commits.push_back(Arc::new(shown));
        while self.items > self.items_max && self.commits.len() > 1 {
            self.drop_first();
        }
    }

    /// Whether there was one.
    fn drop_first(&mut self) -> bool {
        let Some(first) = self.commits.pop_front() else {
            return false;
        };
        self.items -= weight(first.len());
        self.base = first.point;
        for item in &first.items {
            let about = item.what.about();
            if self
                .newest
                .get(&about)
                .is_some_and(|place| place.version == first.point.version)
            {
                self.newest.remove(&about);
            }
        }
        true
    }

    /// The newest commit that can be looked at.
    pub fn position(&self) -> CommitPoint {
        self.commits.back().map_or(self.base, |newest| newest.point)
    }

    pub fn life(&self) -> u64 {
        self.life
    }

    /// The version whose words everything after it is told in.
    pub fn words_since(&self) -> Version {
        self.words_since
    }

    fn total(&self) -> usize {
        self.commits.back().map_or(0, |newest| newest.total)
    }

    /// The commit with that version, if the ring has it.
    pub fn get(&self, version: Version) -> Option<&Arc<Shown>> {
        let first = self.commits.front()?.point.version.number();
        let place = usize::try_from(version.number() - first).ok()?;
        self.commits.get(place)
    }

    /// Whether somebody who stands at that commit can go on from here.
    pub fn has(&self, at: CommitPoint) -> bool {
        at == self.base || self.get(at.version).is_some_and(|shown| shown.point == at)
    }

    /// What came after that commit.
    pub fn after(&self, at: CommitPoint, most: usize) -> After {
        let position = self.position();
        // Before following begins, everything is ahead.
        if self.life == 0 || at.version > position.version {
            return After::Ahead;
        }
        if !self.has(at) {
            return After::Unknown;
        }
        let behind = position.version.number() - at.version.number();
        let skipped =
            self.commits.len() - usize::try_from(behind).unwrap_or(0).min(self.commits.len());
        let next = self.commits.iter().skip(skipped).take(most);
        let items = self.total() - self.total_before(skipped);
        let is_behind =
            behind > CONFLATED_AFTER_COMMITS || items > self.items_max / CONFLATED_AFTER_SHARE;
        After::Commits {
            life: self.life,
            next: next.map(Arc::clone).collect(),
            conflate_to: is_behind.then_some(position),
        }
    }

    /// Items before the commit at that place.
    fn total_before(&self, place: usize) -> usize {
        let commit = self.commits.get(place);
        commit.map_or(self.total(), |shown| shown.total - weight(shown.len()))
    }
}

/// What a commit counts for: one that has nothing to tell takes room as well.
fn weight(items: usize) -> usize {
    items + 1
}
