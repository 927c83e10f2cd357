//! Requests decided, one by one, over levels that are locked: what is granted, what is refused, and what that changes.
//!
//! Invariants: nothing is promised or taken that is not there; `reserved` is never negative; a request is done whole or leaves no
//! trace; units of a reservation are given back once. Only facts take a level below zero. What is not here: who locks the levels,
//! and who writes what follows.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{
    CommandId, ProductId, ReservationId, Revision, StockKey, StockLevel, Timestamp, WarehouseId,
    change::{Amounts, ChangeKind},
    command::{Adjustment, AdjustmentKind, Item, Note, Request, Reserve},
    reservation::{Move, State, Step},
};

/// Most units on hand that a request may leave: sums of levels stay far inside 64 bits.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

/// A level as it was locked.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub key: StockKey,
    pub level: StockLevel,
}

/// A reservation as it stands under the locks of its levels.
#[derive(Clone, Debug)]
pub struct Held {
    pub state: State,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Units by level.
    pub lines: Vec<(StockKey, i64)>,
}

/// Units of a reservation whose time has run out.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub reservation: ReservationId,
    pub key: StockKey,
    pub quantity: i64,
    pub expires_at: Timestamp,
}

/// One row of the ledger to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: StockKey,
    pub kind: ChangeKind,
    /// The reservation, or the command.
    pub cause: Uuid,
    pub occurred_at: Timestamp,
    pub delta: Amounts,
    pub note: Note,
}

/// A reservation that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub id: ReservationId,
    /// Units by level, each level once.
    pub lines: Vec<(StockKey, i64)>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub note: Note,
    pub is_order: bool,
}

/// What was decided, as it is to be written.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub entries: Vec<Entry>,
    pub made: Vec<Made>,
    /// Reservations and their new states.
    pub moved: Vec<(ReservationId, State)>,
    /// Reservations and when they expire now.
    pub extended: Vec<(ReservationId, Timestamp)>,
}

impl Effects {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.moved.is_empty() && self.extended.is_empty()
    }
}

/// What of an item is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub product: ProductId,
    /// `None`: wherever.
    pub warehouse: Option<WarehouseId>,
    pub requested: i64,
    pub available: i64,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownProduct(ProductId),
    UnknownWarehouse(WarehouseId),
    /// Too little is there: every line that is short.
    Short(Vec<Short>),
    /// The level is not what the caller thinks.
    NotAsExpected(StockKey),
    NoReservation,
    /// Nothing of the kind can be done to a reservation in this state.
    Stands(State),
    /// A level would hold more than [`ON_HAND_MAX`].
    TooLarge,
    /// Another product has the sku of the one that was to be created.
    SkuTaken,
}

/// A reservation that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub id: ReservationId,
    pub lines: Vec<(StockKey, i64)>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A reservation after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped {
    pub id: ReservationId,
    pub state: State,
    pub lines: Vec<(StockKey, i64)>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Adjusted(StockKey),
    /// Each by itself.
    AdjustedMany(Vec<Result<StockKey, Refusal>>),
    Reserved(Reserved),
    Stepped(Stepped),
    Tidied,
    /// Of several adjustments that belong together, the place of the one at fault.
    Refused(Refusal, Option<usize>),
}

/// The tag that clients read with a level.
pub type TagOf = fn(StockKey, &StockLevel) -> String;

#[derive(Clone, Copy, Debug)]
struct Kept {
    locked: StockLevel,
    now: Amounts,
    is_changed: bool,
    /// By a request, not only by time.
    is_touched: bool,
}

/// The levels and reservations that requests are decided over, all locked.
#[derive(Debug)]
pub struct Book {
    now: Timestamp,
    levels: BTreeMap<StockKey, Kept>,
    by_product: HashMap<ProductId, Vec<StockKey>>,
    held: HashMap<ReservationId, Held>,
    /// Products and warehouses that are not in the catalogue.
    unknown: HashSet<Uuid>,
    tag_of: TagOf,
    effects: Effects,
}

/// What levels would be, until it is known whether a request is granted.
type Draft = BTreeMap<StockKey, Amounts>;

impl Book {
    /// What is locked, at this moment of the database. A level with revision 0 was not there before.
    pub fn new(
        now: Timestamp,
        standing: impl IntoIterator<Item = Standing>,
        tag_of: TagOf,
    ) -> Self {
        let mut by_product: HashMap<ProductId, Vec<StockKey>> = HashMap::new();
        let kept = standing.into_iter().map(|Standing { key, level }| {
            by_product.entry(key.product).or_default().push(key);
            let kept = Kept {
                locked: level,
                now: level.amounts(),
                is_changed: false,
                is_touched: false,
            };
            (key, kept)
        });
        Self {
            now,
            levels: kept.collect(),
            by_product,
            held: HashMap::new(),
            unknown: HashSet::new(),
            tag_of,
            effects: Effects::default(),
        }
    }

    /// Gives back what is due. Before any request: who comes when it is due finds the units free.
    pub fn expire(&mut self, due: impl IntoIterator<Item = Due>) {
        for due in due {
            let delta = Amounts {
                on_hand: 0,
                reserved: -due.quantity,
            };
            self.change(due.key, delta, false);
            self.effects.entries.push(Entry {
                key: due.key,
                kind: ChangeKind::Expiry,
                cause: due.reservation.uuid(),
                occurred_at: due.expires_at,
                delta,
                note: Note::default(),
            });
        }
    }

    /// The reservations that steps are asked for.
    pub fn hold(&mut self, held: impl IntoIterator<Item = (ReservationId, Held)>) {
        self.held.extend(held);
    }

    /// Products and warehouses that nobody has heard of.
    pub fn know_unknown(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        self.unknown.extend(ids);
    }

    /// Decides a request, over what the ones before it left.
    pub fn decide(&mut self, request: &Request) -> Verdict {
        match request {
            Request::Adjust {
                adjustment,
                expected,
            } => match self.adjust(adjustment, expected.as_deref()) {
                Ok(key) => Verdict::Adjusted(key),
                Err(refusal) => Verdict::Refused(refusal, None),
            },
            Request::AdjustMany {
                adjustments,
                is_atomic: false,
            } => {
                let each = adjustments.iter().map(|one| self.adjust(one, None));
                Verdict::AdjustedMany(each.collect())
            }
            Request::AdjustMany {
                adjustments,
                is_atomic: true,
            } => self.adjust_all(adjustments),
            Request::Reserve(reserve) => self.reserve(reserve),
            Request::Step {
                reservation,
                step,
                id,
                note,
            } => match self.step(*reservation, *step, *id, note) {
                Ok(stepped) => Verdict::Stepped(stepped),
                Err(refusal) => Verdict::Refused(refusal, None),
            },
            Request::Tidy(_) => Verdict::Tidied,
        }
    }

    fn adjust(
        &mut self,
        adjustment: &Adjustment,
        expected: Option<&[String]>,
    ) -> Result<StockKey, Refusal> {
        let key = adjustment.key;
        if let Some(tags) = expected {
            self.is_known(key)?;
            if !self.is_as_expected(key, tags) {
                return Err(Refusal::NotAsExpected(key));
            }
        }
        let delta = self.judge(adjustment, &Draft::new())?;
        self.record(adjustment, delta);
        Ok(key)
    }

    fn adjust_all(&mut self, adjustments: &[Adjustment]) -> Verdict {
        let (mut draft, mut deltas) = (Draft::new(), Vec::with_capacity(adjustments.len()));
        for (place, adjustment) in adjustments.iter().enumerate() {
            match self.judge(adjustment, &draft) {
                Ok(delta) => {
                    let after = self.drafted(adjustment.key, &draft).plus(delta);
                    draft.insert(adjustment.key, after);
                    deltas.push(delta);
                }
                Err(refusal) => return Verdict::Refused(refusal, Some(place)),
            }
        }
        for (adjustment, delta) in adjustments.iter().zip(deltas) {
            self.record(adjustment, delta);
        }
        let keys = adjustments.iter().map(|adjustment| Ok(adjustment.key));
        Verdict::AdjustedMany(keys.collect())
    }

    /// What the adjustment changes, if it can be made.
    fn judge(&self, adjustment: &Adjustment, draft: &Draft) -> Result<Amounts, Refusal> {
        let key = adjustment.key;
        self.is_known(key)?;
        let amounts = self.drafted(key, draft);
        let delta = adjustment.delta(amounts.on_hand);
        let there = match adjustment.kind() {
            AdjustmentKind::Sale => amounts.available(),
            AdjustmentKind::Damage | AdjustmentKind::Adjustment => amounts.on_hand.max(0),
            AdjustmentKind::Restock | AdjustmentKind::Return | AdjustmentKind::Count => i64::MAX,
        };
        if delta < 0 && there < -delta {
            return Err(Refusal::Short(vec![Short {
                product: key.product,
                warehouse: Some(key.warehouse),
                requested: -delta,
                available: there,
            }]));
        }
        let after = amounts.on_hand.checked_add(delta);
        if delta > 0 && after.is_none_or(|after| after > ON_HAND_MAX) {
            return Err(Refusal::TooLarge);
        }
        Ok(Amounts {
            on_hand: delta,
            reserved: 0,
        })
    }

    fn record(&mut self, adjustment: &Adjustment, delta: Amounts) {
        self.change(adjustment.key, delta, true);
        self.effects.entries.push(Entry {
            key: adjustment.key,
            kind: adjustment.kind().into(),
            cause: adjustment.id.uuid(),
            occurred_at: self.now,
            delta,
            note: adjustment.note.clone(),
        });
    }

    /// All items or none. Of those that cannot be had, every one is named.
    fn reserve(&mut self, reserve: &Reserve) -> Verdict {
        let (mut draft, mut short, mut lines) = (Draft::new(), Vec::new(), Vec::new());
        // Who can be served from anywhere does not take what somebody else must have from there.
        let bound = reserve.items.iter().filter(|item| item.warehouse.is_some());
        let free = reserve.items.iter().filter(|item| item.warehouse.is_none());
        for item in bound.chain(free) {
            match self.allocate(item, &draft) {
                Ok(taken) => {
                    for (key, quantity) in taken {
                        let promised = Amounts {
                            on_hand: 0,
                            reserved: quantity,
                        };
                        let after = self.drafted(key, &draft).plus(promised);
                        draft.insert(key, after);
                        lines.push((key, quantity));
                    }
                }
                Err(Refusal::Short(lines)) => short.extend(lines),
                Err(refusal) => return Verdict::Refused(refusal, None),
            }
        }
        if !short.is_empty() {
            return Verdict::Refused(Refusal::Short(short), None);
        }
        Verdict::Reserved(self.promise(reserve, by_key(lines)))
    }

    fn promise(&mut self, reserve: &Reserve, lines: Vec<(StockKey, i64)>) -> Reserved {
        for &(key, quantity) in &lines {
            let delta = Amounts {
                on_hand: 0,
                reserved: quantity,
            };
            self.change(key, delta, true);
            self.effects.entries.push(Entry {
                key,
                kind: ChangeKind::Reservation,
                cause: reserve.id.uuid(),
                occurred_at: self.now,
                delta,
                note: reserve.note.clone(),
            });
        }
        let expires_at = reserve.ttl_seconds.map(|seconds| self.after(seconds));
        self.effects.made.push(Made {
            id: reserve.id,
            lines: lines.clone(),
            created_at: self.now,
            expires_at,
            note: reserve.note.clone(),
            is_order: reserve.is_order,
        });
        Reserved {
            id: reserve.id,
            lines,
            created_at: self.now,
            expires_at,
        }
    }

    /// From where the units of an item come: from one warehouse that has them all, the fullest first, else from as few as can be.
    fn allocate(&self, item: &Item, draft: &Draft) -> Result<Vec<(StockKey, i64)>, Refusal> {
        let wanted = item.quantity.units();
        let mut places = match item.warehouse {
            Some(warehouse) => {
                let key = StockKey {
                    warehouse,
                    product: item.product,
                };
                self.is_known(key)?;
                vec![(self.drafted(key, draft).available(), key)]
            }
            None => self.places(item.product, draft)?,
        };
        let total = places
            .iter()
            .fold(0_i64, |total, place| total.saturating_add(place.0));
        if total < wanted {
            return Err(Refusal::Short(vec![Short {
                product: item.product,
                warehouse: item.warehouse,
                requested: wanted,
                available: total,
            }]));
        }
        // The fullest first; of equally full ones, in the order of their ids.
        places.sort_by_key(|(available, key)| (std::cmp::Reverse(*available), *key));
        let (mut taken, mut left) = (Vec::with_capacity(1), wanted);
        for (available, key) in places {
            let from_here = available.min(left);
            if from_here > 0 {
                taken.push((key, from_here));
                left -= from_here;
            }
        }
        Ok(taken)
    }

    /// What is available of a product, by place.
    fn places(&self, product: ProductId, draft: &Draft) -> Result<Vec<(i64, StockKey)>, Refusal> {
        if self.unknown.contains(&product.uuid()) {
            return Err(Refusal::UnknownProduct(product));
        }
        let keys = self.by_product.get(&product).into_iter().flatten();
        let place = |key: &StockKey| (self.drafted(*key, draft).available(), *key);
        Ok(keys.map(place).collect())
    }

    fn step(
        &mut self,
        id: ReservationId,
        step: Step,
        command: CommandId,
        note: &Note,
    ) -> Result<Stepped, Refusal> {
        let mut held = self.held.get(&id).cloned().ok_or(Refusal::NoReservation)?;
        held.state = held.state.at(self.now, held.expires_at);
        match step.from(held.state) {
            Move::Nothing => {}
            Move::Refused => return Err(Refusal::Stands(held.state)),
            Move::Longer => self.extend(id, &mut held, step),
            Move::To(next) => {
                self.move_to(id, &held, next, command, note)?;
                held.state = next;
            }
        }
        let stepped = Stepped {
            id,
            state: held.state,
            lines: held.lines.clone(),
            created_at: held.created_at,
            expires_at: held.expires_at,
        };
        self.held.insert(id, held);
        Ok(stepped)
    }

    fn extend(&mut self, id: ReservationId, held: &mut Held, step: Step) {
        if let (Step::Extend { seconds }, Some(expires_at)) = (step, held.expires_at)
            && self.after(seconds) > expires_at
        {
            held.expires_at = Some(self.after(seconds));
            self.effects.extended.push((id, self.after(seconds)));
        }
    }

    /// Takes or gives back the units of a reservation.
    fn move_to(
        &mut self,
        id: ReservationId,
        held: &Held,
        next: State,
        command: CommandId,
        note: &Note,
    ) -> Result<(), Refusal> {
        // What a unit of the reservation does to its level, why, and because of what.
        let (kind, cause, on_hand, reserved) = match next {
            State::Confirmed => (ChangeKind::Confirm, id.uuid(), -1, -1),
            State::Released => (ChangeKind::Release, id.uuid(), 0, -1),
            State::Returned => (ChangeKind::Return, command.uuid(), 1, 0),
            State::Shipped | State::Active | State::Expired => {
                self.effects.moved.push((id, next));
                return Ok(());
            }
        };
        if next == State::Confirmed {
            self.has_all(&held.lines)?;
        }
        for &(key, quantity) in &held.lines {
            let delta = Amounts {
                on_hand: on_hand * quantity,
                reserved: reserved * quantity,
            };
            self.change(key, delta, true);
            self.effects.entries.push(Entry {
                key,
                kind,
                cause,
                occurred_at: self.now,
                delta,
                note: note.clone(),
            });
        }
        self.effects.moved.push((id, next));
        Ok(())
    }

    /// Whether the units are there to be taken: they were promised, but goods may have been lost since.
    fn has_all(&self, lines: &[(StockKey, i64)]) -> Result<(), Refusal> {
        let short: Vec<Short> = lines
            .iter()
            .filter_map(|&(key, requested)| {
                let available = self.drafted(key, &Draft::new()).quantity();
                (available < requested).then_some(Short {
                    product: key.product,
                    warehouse: Some(key.warehouse),
                    requested,
                    available,
                })
            })
            .collect();
        if short.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Short(short))
        }
    }

    /// A level that is there has its product and warehouse in the catalogue.
    fn is_known(&self, key: StockKey) -> Result<(), Refusal> {
        if self.unknown.contains(&key.product.uuid()) {
            Err(Refusal::UnknownProduct(key.product))
        } else if self.unknown.contains(&key.warehouse.uuid()) {
            Err(Refusal::UnknownWarehouse(key.warehouse))
        } else {
            Ok(())
        }
    }

    /// What one request has changed before another in the same commit, nobody has seen: no tag stands for it.
    fn is_as_expected(&self, key: StockKey, tags: &[String]) -> bool {
        let kept = self.levels.get(&key);
        let is_there = kept.is_some_and(|kept| kept.is_changed || kept.locked.revision.0 > 0);
        if tags.iter().any(|tag| tag == "*") {
            return is_there;
        }
        if kept.is_some_and(|kept| kept.is_touched) {
            return false;
        }
        let level = kept.map_or(StockLevel::EMPTY, |kept| StockLevel {
            reserved: kept.now.reserved,
            ..kept.locked
        });
        let tag = (self.tag_of)(key, &level);
        tags.contains(&tag)
    }

    fn drafted(&self, key: StockKey, draft: &Draft) -> Amounts {
        let stands = || self.levels.get(&key).map(|kept| kept.now);
        draft.get(&key).copied().or_else(stands).unwrap_or_default()
    }

    fn change(&mut self, key: StockKey, delta: Amounts, by_request: bool) {
        if let Some(kept) = self.levels.get_mut(&key) {
            kept.now = kept.now.plus(delta);
            kept.is_changed = true;
            kept.is_touched |= by_request;
        }
    }

    fn after(&self, seconds: i64) -> Timestamp {
        let later = seconds.saturating_mul(SECOND_US);
        Timestamp::from_micros(self.now.micros().saturating_add(later))
    }

    /// A level as the commit leaves it.
    pub fn level(&self, key: StockKey) -> StockLevel {
        let Some(kept) = self.levels.get(&key) else {
            return StockLevel::EMPTY;
        };
        if !kept.is_changed {
            return kept.locked;
        }
        StockLevel {
            on_hand: kept.now.on_hand,
            reserved: kept.now.reserved,
            revision: Revision(kept.locked.revision.0 + 1),
            updated_at: kept.locked.changed_at(self.now),
        }
    }

    /// The levels that change, by key.
    pub fn changed(&self) -> impl Iterator<Item = (StockKey, StockLevel)> {
        let changed = self.levels.iter().filter(|(_, kept)| kept.is_changed);
        changed.map(|(key, _)| (*key, self.level(*key)))
    }

    /// Levels that were made to be locked and that nothing has touched: they are not to be.
    pub fn untouched(&self) -> impl Iterator<Item = StockKey> {
        let is_new = |kept: &Kept| kept.locked.revision.0 == 0 && !kept.is_changed;
        let untouched = self.levels.iter().filter(move |(_, kept)| is_new(kept));
        untouched.map(|(key, _)| *key)
    }

    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }
}

/// Units by level, each level once.
fn by_key(mut lines: Vec<(StockKey, i64)>) -> Vec<(StockKey, i64)> {
    lines.sort_unstable_by_key(|(key, _)| *key);
    lines.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            first.1 += later.1;
        }
        is_same
    });
    lines
}

#[cfg(test)]
mod tests;
