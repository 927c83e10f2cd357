//! No gap, whatever happens in which order: clients that hold a cursor have the database's numbers of that commit.
//!
//! A database of a few keys makes commits, a process follows them late, and clients with filters of all kinds connect, take
//! snapshots that are read at one time and given at another, fall behind, go away after any frame, resume, and live through restores.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    filter::Filter,
    hub::{Hub, Listener, LiveSettings},
    quiet::{Onward, Quiet},
    ring::Ring,
    session::{Dialect, Frame, Session, Step},
    snapshot::Snapshot,
    stretch::Stretch,
};
use crate::{
    domain::{
        CommitPoint, InventoryId, Product, ProductId, ReservationId, Revision, StockKey,
        StockLevel, Tag, Timestamp, Version, Warehouse, WarehouseId,
        catalogue::Threshold,
        change::{Amounts, ChangeKind, LedgerRow},
        commit::WantedCommit,
        risk::{Line, Uncovered},
        stock::{PlacedLevel, ProductStock},
    },
    inventory::{
        feed::{Audience, Followed},
        watch::Watch,
    },
    store::{
        catalogue::CatalogueChange,
        commits::Commit,
        feed::{Did, FeedRow, LevelAt},
    },
};

const WAREHOUSES: u128 = 2;
const PRODUCTS: u128 = 3;
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Items in the ring: a few commits.
const RING_ITEMS: usize = 12;

/// What the database holds of each key at a commit: amounts and revision.
type Levels = BTreeMap<StockKey, (Amounts, i64)>;

/// Everything that ever was reserved, by key and the oldest first.
type Reserved = BTreeMap<StockKey, Vec<Line>>;

fn product_id(place: usize) -> ProductId {
    ProductId::new(Uuid::from_u128(1 + place as u128 % PRODUCTS)).unwrap()
}

/// One number for each key.
fn inventory_id(key: StockKey) -> InventoryId {
    let number = |id: Uuid| i64::try_from(id.as_u128()).unwrap();
    InventoryId(10 * number(key.warehouse.uuid()) + number(key.product.uuid()))
}

fn key(place: usize) -> StockKey {
    StockKey {
        warehouse: WarehouseId::new(Uuid::from_u128(1 + place as u128 % WAREHOUSES)).unwrap(),
        product: product_id(place / WAREHOUSES as usize),
    }
}

/// A database at one commit, and what a follower tells of the commit.
#[derive(Clone)]
struct State {
    followed: Followed,
    levels: Levels,
    reserved: Reserved,
    products: BTreeMap<ProductId, Product>,
    /// What a follower knows then.
    watch: Watch,
}

impl State {
    fn available(&self, product: ProductId) -> i64 {
        let of_product = self.levels.iter().filter(|(key, _)| key.product == product);
        of_product
            .map(|(_, (amounts, _))| amounts.available())
            .sum()
    }

    fn is_low(&self, key: StockKey) -> bool {
        self.products[&key.product].is_low(self.levels[&key].0.quantity())
    }

    /// The active reservations of a key, the newest first.
    fn active(&self, key: StockKey) -> impl Iterator<Item = &Line> {
        let lines = self.reserved.get(&key).into_iter().flatten().rev();
        lines.filter(|line| line.ended.is_none())
    }

    /// The reservations of a key that what is on hand does not cover.
    fn at_risk(&self, key: StockKey) -> BTreeSet<String> {
        let mut uncovered = Uncovered::of(self.levels[&key].0);
        self.active(key)
            .filter(|line| uncovered.next(line.quantity))
            .map(|line| line.reservation.to_string())
            .collect()
    }
}

/// Commits of a database, some of which a restore may take back.
struct Database {
    commits: Vec<State>,
    tags: u32,
    /// Reservations ever made, those included that a restore took back.
    reservations: u128,
}

impl Database {
    fn new() -> Self {
        let ids = (0..PRODUCTS as usize).map(product_id);
        let mut database = Self {
            commits: Vec::new(),
            tags: 0,
            reservations: 0,
        };
        let products: BTreeMap<_, _> = ids.map(|id| (id, Product::unnamed(id))).collect();
        let nothing = (Levels::new(), Reserved::new(), products, Watch::default());
        database.publish(nothing, Did::default());
        for place in 0..PRODUCTS as usize {
            database.set_thresholds(place, Some(2), None);
        }
        database
    }

    fn newest(&self) -> &State {
        self.commits.last().unwrap()
    }

    fn next_version(&self) -> Version {
        Version::new(i64::try_from(self.commits.len()).unwrap()).unwrap()
    }

    /// The next commit, of a database that is so before it is told.
    fn publish(
        &mut self,
        (levels, reserved, products, mut watch): (
            Levels,
            Reserved,
            BTreeMap<ProductId, Product>,
            Watch,
        ),
        did: Did,
    ) {
        self.tags += 1;
        let commit = Commit {
            point: CommitPoint {
                version: self.next_version(),
                tag: Tag(self.tags),
            },
            trace: None,
            committed_at: Timestamp::from_micros(0),
            levels_changed_at: None,
        };
        let followed = watch.tell(&[commit], did).remove(0);
        self.commits.push(State {
            followed,
            levels,
            reserved,
            products,
            watch,
        });
    }

    /// Facts, and reservations that are made or end: each change of a place is of what is on hand, or of what is reserved. Neither
    /// asks whether there is enough: what is told of it does not either.
    fn commit(&mut self, changes: &[(usize, Act)]) {
        let State {
            mut levels,
            mut reserved,
            products,
            watch,
            ..
        } = self.newest().clone();
        let version = self.next_version();
        let mut deltas: BTreeMap<StockKey, Vec<(ChangeKind, Amounts)>> = BTreeMap::new();
        for (place, act) in changes {
            let key = key(*place);
            let lines = reserved.entry(key).or_default();
            let did = self.act(*act, version, lines);
            deltas.entry(key).or_default().extend(did);
        }
        let mut rows = Vec::new();
        for (key, deltas) in deltas {
            if deltas.is_empty() {
                continue;
            }
            let (amounts, revision) = levels.entry(key).or_default();
            for (_, delta) in &deltas {
                amounts.on_hand += delta.on_hand;
                amounts.reserved += delta.reserved;
            }
            *revision += 1;
            rows.extend(deltas.into_iter().map(|(kind, delta)| FeedRow {
                version,
                movement: None,
                row: LedgerRow {
                    key,
                    inventory_id: inventory_id(key),
                    kind,
                    delta,
                    after: *amounts,
                    revision: Revision(*revision),
                },
            }));
        }
        // As a follower reads them: the newest first.
        let of_key = |(key, lines): (&StockKey, &Vec<Line>)| {
            (inventory_id(*key), lines.iter().rev().copied().collect())
        };
        let did = Did {
            rows,
            lines: reserved.iter().map(of_key).collect(),
            ..Did::default()
        };
        self.publish((levels, reserved, products, watch), did);
    }

    /// What it changes; nothing, where there is nothing to end.
    fn act(
        &mut self,
        act: Act,
        version: Version,
        lines: &mut Vec<Line>,
    ) -> Option<(ChangeKind, Amounts)> {
        let on_hand = |on_hand| Amounts {
            on_hand,
            reserved: 0,
        };
        match act {
            Act::Move(units) if units < 0 => Some((ChangeKind::Departure, on_hand(units))),
            Act::Move(units) => Some((ChangeKind::Arrival, on_hand(units))),
            Act::Reserve(quantity) => {
                self.reservations += 1;
                lines.push(Line {
                    reservation: ReservationId::new(Uuid::from_u128(self.reservations)).unwrap(),
                    quantity,
                    made: version,
                    ended: None,
                });
                let reserved = Amounts {
                    on_hand: 0,
                    reserved: quantity,
                };
                Some((ChangeKind::Reservation, reserved))
            }
            Act::End(nth, confirms) => {
                // One that was made in an earlier commit.
                let mut active = lines
                    .iter_mut()
                    .filter(|line| line.ended.is_none() && line.made < version);
                let line = active.nth(nth)?;
                line.ended = Some(version);
                let delta = Amounts {
                    on_hand: if confirms { -line.quantity } else { 0 },
                    reserved: -line.quantity,
                };
                let kind = if confirms {
                    ChangeKind::Confirm
                } else {
                    ChangeKind::Expiry
                };
                Some((kind, delta))
            }
        }
    }

    fn set_thresholds(&mut self, place: usize, min: Option<i64>, reorder: Option<i64>) {
        let State {
            levels,
            reserved,
            mut products,
            watch,
            ..
        } = self.newest().clone();
        let id = product_id(place);
        let product = Product {
            min_stock: min.map(Threshold::stored),
            reorder_point: reorder.map(Threshold::stored),
            ..Product::unnamed(id)
        };
        products.insert(id, product.clone());
        let version = self.next_version();
        let of_product = levels.iter().filter(|(key, _)| key.product == id);
        let standing = of_product.map(|(key, (amounts, revision))| LevelAt {
            key: *key,
            inventory_id: inventory_id(*key),
            amounts: *amounts,
            revision: Revision(*revision),
        });
        let did = Did {
            rows: Vec::new(),
            catalogue: vec![(version, CatalogueChange::Product(product))],
            levels: HashMap::from([(version, standing.collect())]),
            ..Did::default()
        };
        self.publish((levels, reserved, products, watch), did);
    }

    /// What a read now gives.
    fn snapshot(&self, filter: &Filter) -> Snapshot {
        let state = self.newest();
        let products = state.products.values().map(|product| {
            let of_product = state
                .levels
                .iter()
                .filter(|(key, _)| key.product == product.id);
            let placed = of_product.map(|(key, (amounts, revision))| PlacedLevel {
                warehouse: Warehouse::unnamed(key.warehouse),
                level: StockLevel {
                    on_hand: amounts.on_hand,
                    reserved: amounts.reserved,
                    revision: Revision(*revision),
                    updated_at: None,
                },
            });
            ProductStock {
                product: product.clone(),
                levels: placed.collect(),
            }
        });
        let products: Vec<ProductStock> = products.collect();
        Snapshot::write(state.followed.point, &products, filter, 400)
    }

    fn at(&self, cursor: &str) -> Option<&State> {
        let mut commits = self.commits.iter();
        commits.find(|state| state.followed.point.to_string() == cursor)
    }
}

/// A process that follows.
struct Process {
    ring: Ring,
    followed: usize,
}

impl Process {
    /// One that has not begun to follow.
    fn new() -> Self {
        Self {
            ring: Ring::new(RING_ITEMS),
            followed: 0,
        }
    }

    /// Follows the next commit; begins anew if what it followed is not there any more.
    fn follow(&mut self, database: &Database) {
        let at = self.ring.position();
        let known = self.followed.checked_sub(1);
        let known = known
            .and_then(|last| database.commits.get(last))
            .map(|state| state.followed.point);
        if known != Some(at) {
            let (_, newest) = database
                .commits
                .split_at(database.commits.len().saturating_sub(3));
            let (base, history) = newest.split_first().unwrap();
            let history = history.iter().map(|state| state.followed.clone());
            self.ring.begin(base.followed.point, history.collect());
            self.ring.link();
            self.followed = database.commits.len();
        } else if let Some(state) = database.commits.get(self.followed) {
            self.ring.push(state.followed.clone());
            self.followed += 1;
        }
    }
}

/// What a client believes.
#[derive(Clone, Default)]
struct Picture {
    /// By warehouse and product: quantity, on hand, revision.
    model: BTreeMap<(String, String), (i64, i64, i64)>,
    /// Keys that are low, as far as snapshots and alerts say.
    low: BTreeSet<(String, String)>,
    /// Products to be reordered, as far as those say.
    to_reorder: BTreeSet<String>,
    /// Reservations at risk: those of the commit at which it joined (a snapshot does not say), and what it was told since.
    at_risk: BTreeMap<String, (String, String)>,
    /// It joined at a commit that was undone since: nobody can say any more what was at risk then.
    is_unsure_of_risks: bool,
}

/// A client.
struct Client {
    filter: Arc<Filter>,
    /// It hears of some kinds of changes only: its numbers are those of the last change it was told.
    is_by_kind: bool,
    session: Session,
    /// Whether it is told what is worked out for all who stand where it does, and what was and is not told yet.
    is_in_company: bool,
    stretch: Option<Stretch>,
    /// A way on which it is told nothing.
    quiet: Quiet,
    /// A snapshot that was read and not given yet.
    fetched: Option<Arc<Snapshot>>,
    picture: Picture,
    cursor: Option<String>,
    /// What it believed at its last cursor, to resume from.
    kept: Option<(Picture, String)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Client {
    fn new(filter: Filter, is_by_kind: bool, is_in_company: bool, ring: &Ring) -> Self {
        let filter = Arc::new(filter);
        Self {
            session: Session::new(Dialect::Full, Arc::clone(&filter), None, HEARTBEAT, ring),
            filter,
            is_by_kind,
            is_in_company,
            stretch: None,
            quiet: Quiet::at(ring.life(), ring.position()),
            fetched: None,
            picture: Picture::default(),
            cursor: None,
            kept: None,
        }
    }

    /// Goes away, and comes back with what it had at its last cursor.
    fn resume(&mut self, ring: &Ring) {
        if self.is_by_kind {
            *self = Self::new((*self.filter).clone(), true, self.is_in_company, ring);
            return;
        }
        let mut since = None;
        if let Some((picture, cursor)) = self.kept.clone() {
            self.picture = picture;
            since = cursor.parse().ok();
        }
        self.session = Session::new(
            Dialect::Full,
            Arc::clone(&self.filter),
            since,
            HEARTBEAT,
            ring,
        );
        self.fetched = None;
        self.stretch = None;
    }

    /// Is called, or put further, as a hub does for all who look at the same.
    fn call(&mut self, ring: &Ring) {
        let (quiet, now) = (self.quiet, Quiet::at(ring.life(), ring.position()));
        let stretch = Stretch::from(quiet.next, quiet.life, Dialect::Full, &self.filter, ring);
        let (Onward::Passed(on) | Onward::Called(on)) = quiet.onward(stretch.as_ref(), now);
        self.quiet = on;
    }

    /// Is told the stretch that begins where it stands; whether there was one. It is worked out at one step and told at a later one.
    fn step_in_company(
        &mut self,
        ring: &Ring,
        database: &Database,
        now: Duration,
    ) -> Result<bool, TestCaseError> {
        let Some((life, at)) = self.session.stands().filter(|_| self.is_in_company) else {
            return Ok(false);
        };
        let known = self.stretch.take();
        let known = known.filter(|stretch| (stretch.life, stretch.from) == (life, at));
        let Some(stretch) = known else {
            self.stretch = Stretch::from(at, life, Dialect::Full, &self.filter, ring);
            return Ok(self.stretch.as_ref().is_some_and(|s| !s.texts.is_empty()));
        };
        self.session.was_told(&stretch, now);
        for text in &stretch.texts {
            let told: Value = serde_json::from_slice(text).unwrap();
            let cursor: Option<WantedCommit> = told["cursor"].as_str().map(|c| c.parse().unwrap());
            let frame = Frame {
                text: text.clone(),
                cursor: cursor.map(|cursor| CommitPoint {
                    version: cursor.version,
                    tag: cursor.tag.unwrap(),
                }),
                committed_at: None,
            };
            self.hear(&frame, database)?;
        }
        Ok(!stretch.texts.is_empty())
    }

    /// Takes one step; whether there was something to do.
    fn step(
        &mut self,
        ring: &Ring,
        database: &Database,
        now: Duration,
    ) -> Result<bool, TestCaseError> {
        self.session.pass(self.quiet);
        if self.step_in_company(ring, database, now)? {
            return Ok(true);
        }
        match self.session.next(ring, now) {
            Step::Send(frame) => {
                self.hear(&frame, database)?;
                Ok(true)
            }
            Step::Wait(until) => {
                prop_assert!(until > now, "it waits for something to come");
                Ok(false)
            }
            Step::Fetch => {
                match self.fetched.take() {
                    Some(snapshot) => self.session.give(snapshot, ring, now),
                    None => self.fetched = Some(Arc::new(database.snapshot(&self.filter))),
                }
                Ok(true)
            }
        }
    }

    fn hear(&mut self, frame: &Frame, database: &Database) -> Result<(), TestCaseError> {
        let told: Value = serde_json::from_slice(&frame.text).unwrap();
        let shown = told.get("cursor").map(text);
        prop_assert_eq!(shown.clone(), frame.cursor.map(|cursor| cursor.to_string()));
        match told["type"].as_str().unwrap() {
            "snapshot" => {
                self.take_part(&told);
                if let Some(cursor) = &shown {
                    let state = database.at(cursor);
                    self.picture.is_unsure_of_risks = state.is_none();
                    self.picture.at_risk =
                        state.map_or_else(BTreeMap::new, |state| self.expected_at_risk(state));
                }
            }
            "update" => self.update(&told["data"])?,
            "resync" => self.cursor = None,
            "low_stock_alert" => {
                prop_assert!(self.picture.low.insert(named(&told)), "told once: {}", told);
            }
            "stock_recovered" => {
                prop_assert!(
                    self.picture.low.remove(&named(&told)),
                    "it was low: {}",
                    told
                );
            }
            "reorder_needed" => {
                let is_news = self.picture.to_reorder.insert(text(&told["product_id"]));
                prop_assert!(is_news, "told once: {}", told);
            }
            "reorder_recovered" => {
                let was = self
                    .picture
                    .to_reorder
                    .remove(told["product_id"].as_str().unwrap());
                prop_assert!(was, "it was to be reordered: {}", told);
            }
            "reservation_at_risk" => {
                let id = text(&told["reservation_id"]);
                let known = self.picture.at_risk.insert(id, named(&told));
                let is_news = known.is_none() || self.picture.is_unsure_of_risks;
                prop_assert!(is_news, "told once: {}", told);
            }
            "reservation_healed" => {
                let id = told["reservation_id"].as_str().unwrap();
                let known = self.picture.at_risk.remove(id);
                let was = known == Some(named(&told)) || self.picture.is_unsure_of_risks;
                prop_assert!(was, "it was at risk: {}", told);
            }
            "heartbeat" | "catalogue" => {}
            other => panic!("{other}"),
        }
        if let Some(cursor) = shown {
            // A commit that was undone cannot be compared with anything.
            if let Some(state) = database.at(&cursor) {
                self.is_right(state)?;
            }
            self.kept = Some((self.picture.clone(), cursor.clone()));
            self.cursor = Some(cursor);
        }
        Ok(())
    }

    fn take_part(&mut self, told: &Value) {
        if told["part"].as_u64().unwrap_or(1) == 1 {
            self.picture = Picture::default();
        }
        for product in told["data"].as_array().unwrap() {
            if product["reorder_needed"] == true {
                self.picture.to_reorder.insert(text(&product["product_id"]));
            }
            for level in product["levels"].as_array().unwrap() {
                let key = (text(&level["warehouse_id"]), text(&product["product_id"]));
                let now = amounts(level);
                if level["low"] == true {
                    self.picture.low.insert(key.clone());
                }
                self.picture.model.insert(key, now);
            }
        }
    }

    fn update(&mut self, data: &Value) -> Result<(), TestCaseError> {
        let key = named(data);
        let had = self
            .picture
            .model
            .get(&key)
            .map_or(0, |(quantity, ..)| *quantity);
        let now = amounts(data);
        prop_assert_eq!(data["change"].as_i64().unwrap(), now.0 - had, "{}", data);
        if data["left"] == true {
            prop_assert!(
                self.picture.model.remove(&key).is_some(),
                "it was there: {}",
                data
            );
        } else {
            self.picture.model.insert(key, now);
        }
        Ok(())
    }

    fn is_right(&self, state: &State) -> Result<(), TestCaseError> {
        if self.is_by_kind {
            return Ok(());
        }
        prop_assert_eq!(&self.picture.model, &self.expected(state));
        let low = self.looked_at(state).filter(|key| state.is_low(*key));
        prop_assert_eq!(&self.picture.low, &low.map(name).collect());
        // Of what has ended nobody is told that it is not at risk any more.
        let active = state.levels.keys().flat_map(|key| state.active(*key));
        let active: BTreeSet<String> = active.map(|line| line.reservation.to_string()).collect();
        let told = self.picture.at_risk.clone().into_iter();
        let still: BTreeMap<_, _> = told.filter(|(id, _)| active.contains(id)).collect();
        prop_assert_eq!(still, self.expected_at_risk(state));
        // Who looks at a warehouse is told of totals once, and not of their changes.
        if self.filter.warehouses().is_empty() || !self.filter.products().is_empty() {
            let products = state.products.values();
            let to_reorder = products.filter(|product| {
                self.filter.has_total(product.id)
                    && product.is_to_be_reordered(state.available(product.id))
            });
            let to_reorder = to_reorder.map(|product| product.id.to_string()).collect();
            prop_assert_eq!(&self.picture.to_reorder, &to_reorder);
        }
        Ok(())
    }

    fn looked_at(&self, state: &State) -> impl Iterator<Item = StockKey> {
        let keys = state.levels.keys().copied();
        keys.filter(|key| self.filter.has_key(*key))
    }

    fn expected_at_risk(&self, state: &State) -> BTreeMap<String, (String, String)> {
        let of_key = |key| {
            state
                .at_risk(key)
                .into_iter()
                .map(move |id| (id, name(key)))
        };
        self.looked_at(state).flat_map(of_key).collect()
    }

    fn expected(&self, state: &State) -> BTreeMap<(String, String), (i64, i64, i64)> {
        let looked_at = self.looked_at(state);
        let shown = looked_at.filter(|key| !self.filter.is_below_min() || state.is_low(*key));
        shown
            .map(|key| {
                let (amounts, revision) = state.levels[&key];
                (name(key), (amounts.quantity(), amounts.on_hand, revision))
            })
            .collect()
    }
}

fn name(key: StockKey) -> (String, String) {
    (key.warehouse.to_string(), key.product.to_string())
}

fn named(told: &Value) -> (String, String) {
    (text(&told["warehouse_id"]), text(&told["product_id"]))
}

fn amounts(level: &Value) -> (i64, i64, i64) {
    let number = |name: &str| level[name].as_i64().unwrap();
    (number("quantity"), number("on_hand"), number("revision"))
}

/// What may happen to a level.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Units arrive, or depart.
    Move(i64),
    Reserve(i64),
    /// Of the active reservations, that one ends; confirmed, its units leave as well.
    End(usize, bool),
}

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    Commit(Vec<(usize, Act)>),
    /// A product's minimum and reorder point.
    Thresholds(usize, Option<i64>, Option<i64>),
    Follow,
    /// Everybody is called who may have something to hear.
    Call,
    Connect([bool; 4], bool),
    Step(Index),
    Drain(Index),
    Resume(Index),
    /// The database is put back by so many commits.
    Restore(usize),
    Later,
}

fn any_event() -> impl Strategy<Value = Event> {
    let act = prop_oneof![
        4 => (-4..6_i64).prop_map(Act::Move),
        2 => (1..4_i64).prop_map(Act::Reserve),
        1 => (0..4_usize, any::<bool>()).prop_map(|(nth, confirms)| Act::End(nth, confirms)),
    ];
    let change = (0..6_usize, act);
    prop_oneof![
        6 => prop::collection::vec(change, 1..6).prop_map(Event::Commit),
        2 => (0..3_usize, prop::option::of(0..6_i64), prop::option::of(0..9_i64))
            .prop_map(|(product, min, reorder)| Event::Thresholds(product, min, reorder)),
        6 => Just(Event::Follow),
        4 => Just(Event::Call),
        1 => any::<([bool; 4], bool)>().prop_map(|(wants, company)| Event::Connect(wants, company)),
        8 => any::<Index>().prop_map(Event::Step),
        2 => any::<Index>().prop_map(Event::Drain),
        2 => any::<Index>().prop_map(Event::Resume),
        1 => (1..4_usize).prop_map(Event::Restore),
        1 => Just(Event::Later),
    ]
}

fn filter([by_warehouse, by_product, by_kind, below_min]: [bool; 4]) -> Filter {
    fn only<T>(is_wanted: bool, value: T) -> Vec<T> {
        Vec::from_iter(is_wanted.then_some(value))
    }
    let StockKey { warehouse, product } = key(3);
    Filter::new(
        only(by_warehouse, warehouse),
        only(by_product, product),
        only(by_kind, ChangeKind::Departure),
        below_min,
    )
}

fn live_through(events: &[Event]) -> Result<(), TestCaseError> {
    let mut database = Database::new();
    let mut process = Process::new();
    let mut clients: Vec<Client> = Vec::new();
    let mut now = Duration::ZERO;
    for event in events {
        match event {
            Event::Commit(changes) => database.commit(changes),
            Event::Thresholds(product, min, reorder) => {
                database.set_thresholds(*product, *min, *reorder);
            }
            Event::Follow => process.follow(&database),
            Event::Call => clients
                .iter_mut()
                .for_each(|client| client.call(&process.ring)),
            Event::Connect(wants, company) => {
                let filter = filter(*wants);
                clients.push(Client::new(filter, wants[2], *company, &process.ring));
            }
            Event::Step(_) | Event::Drain(_) | Event::Resume(_) if clients.is_empty() => {}
            Event::Step(at) => {
                at.get_mut(&mut clients[..])
                    .step(&process.ring, &database, now)?;
            }
            Event::Drain(at) => {
                let client = at.get_mut(&mut clients[..]);
                while client.step(&process.ring, &database, now)? {}
            }
            Event::Resume(at) => at.get_mut(&mut clients[..]).resume(&process.ring),
            Event::Restore(back) => {
                let kept = database.commits.len().saturating_sub(*back).max(1);
                database.commits.truncate(kept);
            }
            Event::Later => now += HEARTBEAT,
        }
    }
    // In the end everybody has everything.
    for _ in 0..=events.len() {
        process.follow(&database);
    }
    let newest = database.newest();
    for client in &mut clients {
        // One that waits for a commit that was undone, and then for its heartbeat.
        for _ in 0..4 {
            while client.step(&process.ring, &database, now)? {}
            now += HEARTBEAT;
        }
        while client.step(&process.ring, &database, now)? {}
        prop_assert_eq!(
            client.cursor.as_ref(),
            Some(&newest.followed.point.to_string())
        );
        client.is_right(newest)?;
    }
    Ok(())
}

/// Interleavings to try.
fn cases() -> u32 {
    if std::env::var_os("STOCKYARD_TEST_LONG").is_some() {
        40_000
    } else {
        1_000
    }
}

#[test]
fn a_quiet_way_is_no_way_for_who_stands_at_a_commit_that_was_undone() {
    let (mut database, mut process) = (Database::new(), Process::new());
    process.follow(&database);
    let undone = database.newest().followed.point;
    let since = WantedCommit {
        version: undone.version,
        tag: Some(undone.tag),
    };
    let filter = Arc::new(filter([false, true, false, true]));
    let mut session = Session::new(Dialect::Full, filter, Some(since), HEARTBEAT, &process.ring);
    database.commits.pop();
    for _ in 0..3 {
        database.commit(&[(0, Act::Move(9))]);
    }
    process.follow(&database);
    session.pass(Quiet {
        life: process.ring.life(),
        from: Version::ZERO,
        to: process.ring.position(),
        next: process.ring.position(),
    });
    let step = session.next(&process.ring, Duration::ZERO);
    let Step::Send(frame) = step else {
        panic!("it is told that its picture is of no use, and not {step:?}")
    };
    let told: Value = serde_json::from_slice(&frame.text).unwrap();
    assert_eq!(told["type"], "resync");
}

/// What one of those who listen has had: its place, how many frames, and how often it was called and had nothing to hear.
#[derive(Clone, Copy, Debug, Default)]
struct Had {
    at: Option<CommitPoint>,
    frames: usize,
    calls_in_vain: usize,
    conflations: u64,
}

/// Clients that only look when they are called, and are told nothing of heartbeats.
async fn listen(
    hub: Arc<Hub>,
    (mut session, mut listener): (Session, Listener),
    had: watch::Sender<Had>,
) {
    let mut is_called = false;
    loop {
        session.pass(listener.quiet());
        if let Some(stretch) = hub.stretch(&session) {
            session.was_told(&stretch, Duration::ZERO);
            had.send_modify(|had| {
                had.at = Some(stretch.to);
                had.frames += stretch.texts.len();
                had.conflations += stretch.conflations;
                had.calls_in_vain += usize::from(is_called && stretch.texts.is_empty());
            });
            is_called = !stretch.is_full;
            if is_called {
                listener.called().await;
            }
        } else {
            match session.next(&*hub, Duration::ZERO) {
                Step::Send(_) => had.send_modify(|had| had.frames += 1),
                Step::Wait(_) => {}
                // There is no database to fetch from.
                Step::Fetch => return,
            }
        }
    }
}

/// One that calls, with a ring of so many items, and where it begins.
fn calling_hub(ring_items_max: usize, database: &Database) -> (Arc<Hub>, WantedCommit) {
    let hub = Arc::new(Hub::new(LiveSettings {
        ring_items_max,
        snapshot_bytes_max: 0,
        part_bytes_max: 400,
        heartbeat_every: Duration::from_hours(1),
    }));
    // It ends with the test's runtime.
    tokio::spawn(Arc::clone(&hub).run(CancellationToken::new()));
    let base = database.newest().followed.point;
    hub.begin(base, Vec::new());
    let since = WantedCommit {
        version: base.version,
        tag: Some(base.tag),
    };
    (hub, since)
}

#[tokio::test(start_paused = true)]
async fn who_was_told_nothing_for_longer_than_the_ring_reaches_is_told_the_next_thing() {
    let mut database = Database::new();
    let (hub, since) = calling_hub(100, &database);
    let filter = filter([false, true, false, false]);
    let client = hub.listen(Dialect::Full, filter, Some(since));
    let (sender, had) = watch::channel(Had::default());
    tokio::spawn(listen(Arc::clone(&hub), client, sender));
    for _ in 0..2 {
        for _ in 0..500 {
            database.commit(&[(0, Act::Move(1))]);
            hub.follow(database.newest().followed.clone());
            sleep(Duration::from_millis(5)).await;
        }
        // The product of the filter.
        database.commit(&[(3, Act::Move(9))]);
        hub.follow(database.newest().followed.clone());
        sleep(Duration::from_millis(100)).await;
    }
    let had = *had.borrow();
    assert_eq!(had.at, Some(database.newest().followed.point));
    assert_eq!(had.frames, 2, "two updates, and nothing else");
    assert_eq!(had.conflations, 0);
}

/// One that looks at every commit, called or not.
struct Untiring {
    session: Session,
    frames: usize,
}

impl Untiring {
    fn new(filter: &Filter, since: WantedCommit, hub: &Hub) -> Self {
        let filter = Arc::new(filter.clone());
        let mut session = Session::new(Dialect::Full, filter, Some(since), HEARTBEAT, hub);
        session.hear_no_heartbeats();
        Self { session, frames: 0 }
    }

    fn look(&mut self, hub: &Hub) {
        while let Step::Send(_) = self.session.next(hub, Duration::ZERO) {
            self.frames += 1;
            self.session.hear_no_heartbeats();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_something_to_hear_is_called_and_nobody_else() {
    const CLIENTS: usize = 20;
    let mut database = Database::new();
    let (hub, since) = calling_hub(100_000, &database);
    // The last one hears of nothing: that warehouse has none of that product.
    let nothing = Filter::new(
        vec![key(0).warehouse],
        vec![ProductId::new(Uuid::from_u128(99)).unwrap()],
        Vec::new(),
        false,
    );
    let filters = (0..CLIENTS).map(|n| filter([n % 2 == 0, false, false, n % 5 == 0]));
    let mut clients: Vec<(watch::Receiver<Had>, Untiring)> = filters
        .chain([nothing])
        .map(|filter| {
            let untiring = Untiring::new(&filter, since, &hub);
            let client = hub.listen(Dialect::Full, filter, Some(since));
            let (sender, receiver) = watch::channel(Had::default());
            tokio::spawn(listen(Arc::clone(&hub), client, sender));
            (receiver, untiring)
        })
        .collect();
    // They have looked for the first time, and wait.
    sleep(Duration::from_millis(1)).await;
    for round in 0..500_u64 {
        database.commit(&[(usize::try_from(round).unwrap() % 6, Act::Move(1))]);
        hub.follow(database.newest().followed.clone());
        for (_, untiring) in &mut clients {
            untiring.look(&hub);
        }
        // More often than clients are called, and less often; at times in the middle of it.
        sleep(Duration::from_micros(round * 7_919 % 9_000)).await;
        if round % 50 == 0 {
            sleep(Duration::from_millis(100)).await;
            for (had, untiring) in &clients {
                let had = *had.borrow();
                assert_eq!(had.frames, untiring.frames, "nobody is left behind");
                assert_eq!(had.calls_in_vain, 0, "nobody is called for nothing");
            }
        }
    }
    let told_nothing = clients.iter().filter(|(had, _)| had.borrow().frames == 0);
    assert_eq!(told_nothing.count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn whoever_holds_a_cursor_has_the_numbers_of_its_commit(
        events in prop::collection::vec(any_event(), 1..120)
    ) {
        live_through(&events)?;
    }
}
