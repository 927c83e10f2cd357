//! A batch of facts, folded: what to write, and what became of each fact.
//!
//! Invariants: one side of one product is set once, and only what set it changes stock. The same side again with the
//! same content is a duplicate, with other content a conflict; both change nothing. Which of two conflicting facts wins
//! is decided by who comes first, in the database before this batch, and in the batch by place. Of a side that was taken back
//! the first fact with a content that was not is its correction; what was taken back is a duplicate for good.
//!
//! The fold is in steps, because only the database knows what came before: [`merge`] says what to offer it,
//! [`Merged::correct`] what is new of lines of which something was taken back, [`Merged::changes`] what changes by those sides
//! that were new, [`Merged::outcomes`] what became of each fact.

use std::collections::HashMap;

use super::{
    Fact, MovementId, MovementLine, ProductId, Side, SideReport, Sides, StockKey, Timestamp,
    change::ChangeKind,
};

/// What identifies a line.
pub type LineId = (MovementId, ProductId);

/// The facts of a batch, gathered by line. Lines are in the order of their ids: the order in which they are locked.
#[derive(Debug)]
pub struct Merged {
    ids: Vec<LineId>,
    lines: Vec<MovementLine>,
    /// For each line and side the place of the fact that is offered: the first of the batch.
    offered: Vec<[Option<usize>; 2]>,
    /// For each fact the place of its line.
    line_of: Vec<usize>,
}

/// One side that was really new, or was taken back, and so one row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: StockKey,
    pub side: Side,
    pub is_taken_back: bool,
    pub movement: MovementId,
    pub occurred_at: Timestamp,
    pub on_hand_delta: i64,
}

impl Change {
    /// By a side that was new.
    fn reported(fact: &Fact) -> Self {
        Self {
            key: StockKey {
                warehouse: fact.report.warehouse,
                product: fact.product,
            },
            side: fact.side,
            is_taken_back: false,
            movement: fact.movement,
            occurred_at: fact.report.at,
            on_hand_delta: fact.on_hand_delta(),
        }
    }

    /// By a side that was known.
    pub fn taken_back(fact: &Fact) -> Self {
        let reported = Self::reported(fact);
        Self {
            is_taken_back: true,
            on_hand_delta: -reported.on_hand_delta,
            ..reported
        }
    }

    /// Why the level changed.
    pub fn kind(&self) -> ChangeKind {
        if self.is_taken_back {
            ChangeKind::Void
        } else {
            self.side.into()
        }
    }
}

/// What is stored of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub line: MovementLine,
    /// What was taken back of it, as it was reported.
    pub voided: Vec<(Side, SideReport)>,
}

impl Stored {
    /// Whether it was told before that this happened.
    fn knows(&self, side: Side, report: SideReport) -> bool {
        self.line.side(side) == Some(report) || self.voided.contains(&(side, report))
    }
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Duplicate,
    Conflict,
}

/// Gathers facts by line; of several facts about one side the first is offered.
pub fn merge(facts: &[Fact]) -> Merged {
    let mut order: Vec<usize> = (0..facts.len()).collect();
    order.sort_unstable_by_key(|&place| (facts[place].movement, facts[place].product, place));

    let mut merged = Merged {
        ids: Vec::with_capacity(facts.len()),
        lines: Vec::with_capacity(facts.len()),
        offered: Vec::with_capacity(facts.len()),
        line_of: vec![0; facts.len()],
    };
    for place in order {
        let fact = &facts[place];
        let id = (fact.movement, fact.product);
        if merged.ids.last() != Some(&id) {
            merged.ids.push(id);
            merged.lines.push(MovementLine {
                product: fact.product,
                departure: None,
                arrival: None,
            });
            merged.offered.push([None, None]);
        }
        let at = merged.ids.len() - 1;
        merged.line_of[place] = at;
        let offered = &mut merged.offered[at][slot(fact.side)];
        if offered.is_none() {
            *offered = Some(place);
            merged.lines[at].set(fact.side, Some(fact.report));
        }
    }
    merged
}

impl Merged {
    /// The lines to offer the database, in the order of their ids.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (LineId, &MovementLine)> {
        self.ids.iter().copied().zip(&self.lines)
    }

    /// The sides of each line that were new, from those of the lines in `set`, which are in the order of the lines;
    /// `None` if there is one among them that was not offered.
    pub fn new_sides(&self, set: &[(LineId, Sides)]) -> Option<Vec<Sides>> {
        let mut set = set.iter().peekable();
        let new = self
            .ids
            .iter()
            .map(|id| {
                set.next_if(|(taken, _)| taken == id)
                    .map_or(Sides::NONE, |(_, sides)| *sides)
            })
            .collect();
        set.next().is_none().then_some(new)
    }

    /// Looks again at the lines of which something was taken back. The database takes no side of those as new, so that what
    /// was taken back does not come again: of each side that is missing the first fact with a content that was not taken back is
    /// new. Adds those to `new`, and returns the sides to be set with their lines, in the order of the lines. `stored` holds
    /// every line of [`Merged::unsettled`].
    pub fn correct(
        &mut self,
        facts: &[Fact],
        stored: &HashMap<LineId, Stored>,
        new: &mut [Sides],
    ) -> Vec<(LineId, MovementLine)> {
        let mut corrected: Vec<usize> = Vec::new();
        for (place, fact) in facts.iter().enumerate() {
            let at = self.line_of[place];
            let Some(known) = stored.get(&self.ids[at]) else {
                continue;
            };
            let is_new = !known.voided.is_empty()
                && known.line.side(fact.side).is_none()
                && !new[at].has(fact.side)
                && !known.knows(fact.side, fact.report);
            if is_new {
                new[at] = new[at].with(fact.side);
                self.offered[at][slot(fact.side)] = Some(place);
                self.lines[at].set(fact.side, Some(fact.report));
                corrected.push(at);
            }
        }
        corrected.sort_unstable();
        corrected.dedup();
        let line = |at: usize| {
            let mut line = self.lines[at];
            for side in Side::BOTH {
                if !new[at].has(side) {
                    line.set(side, None);
                }
            }
            (self.ids[at], line)
        };
        corrected.into_iter().map(line).collect()
    }

    /// What changes, ordered by key, given the sides of each line that were new.
    pub fn changes(&self, new: &[Sides]) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.ids.len());
        for (((movement, product), line), new) in self.lines().zip(new) {
            for side in Side::BOTH {
                let Some(report) = line.side(side).filter(|_| new.has(side)) else {
                    continue;
                };
                changes.push(Change::reported(&Fact {
                    movement,
                    product,
                    side,
                    report,
                    code: None,
                }));
            }
        }
        changes.sort_by_key(|change| change.key);
        changes
    }

    /// The lines of which a fact was not applied: what is stored of them tells duplicate from conflict.
    pub fn unsettled(&self, facts: &[Fact], new: &[Sides]) -> Vec<LineId> {
        let mut lines: Vec<LineId> = facts
            .iter()
            .enumerate()
            .filter(|&(place, fact)| !self.is_applied(place, fact, new))
            .map(|(_, fact)| (fact.movement, fact.product))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// What became of each fact. `stored` is what the database held, before anything was corrected, of every line of
    /// [`Merged::unsettled`]; a side it does not hold cannot make a fact a duplicate.
    pub fn outcomes(
        &self,
        facts: &[Fact],
        new: &[Sides],
        stored: &HashMap<LineId, Stored>,
    ) -> Vec<Outcome> {
        let outcome = |(place, fact): (usize, &Fact)| {
            let at = self.line_of[place];
            let is_known = (new[at].has(fact.side)
                && self.lines[at].side(fact.side) == Some(fact.report))
                || stored
                    .get(&self.ids[at])
                    .is_some_and(|stored| stored.knows(fact.side, fact.report));
            if self.is_applied(place, fact, new) {
                Outcome::Applied
            } else if is_known {
                Outcome::Duplicate
            } else {
                Outcome::Conflict
            }
        };
        facts.iter().enumerate().map(outcome).collect()
    }

    fn is_applied(&self, place: usize, fact: &Fact, new: &[Sides]) -> bool {
        let line = self.line_of[place];
        new[line].has(fact.side) && self.offered[line][slot(fact.side)] == Some(place)
    }
}

/// The sum of the changes of each key, ordered by key.
pub fn deltas_by_key(changes: &[Change]) -> Vec<(StockKey, i64)> {
    let mut deltas: Vec<(StockKey, i64)> = Vec::with_capacity(changes.len());
    for change in changes {
        match deltas.last_mut() {
            Some((key, sum)) if *key == change.key => *sum += change.on_hand_delta,
            _ => deltas.push((change.key, change.on_hand_delta)),
        }
    }
    deltas
}

fn slot(side: Side) -> usize {
    match side {
        Side::Departure => 0,
        Side::Arrival => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Quantity, WarehouseId};

    fn fact(movement: u128, product: u128, side: Side, warehouse: u128, units: i64) -> Fact {
        Fact {
            movement: MovementId::new(Uuid::from_u128(movement)).unwrap(),
            product: ProductId::new(Uuid::from_u128(product)).unwrap(),
            side,
            report: SideReport {
                warehouse: WarehouseId::new(Uuid::from_u128(warehouse)).unwrap(),
                at: Timestamp::from_micros(units),
                quantity: Quantity::new(units).unwrap(),
            },
            code: None,
        }
    }

    /// The short reference: what the database is, without a database.
    #[derive(Default, Debug, PartialEq)]
    struct Model {
        sides: BTreeMap<(LineId, Side), SideReport>,
        voided: BTreeMap<LineId, Vec<(Side, SideReport)>>,
        on_hand: BTreeMap<StockKey, i64>,
    }

    impl Model {
        fn take(&mut self, fact: &Fact) -> Outcome {
            let line = (fact.movement, fact.product);
            let is_voided = |voided: &Vec<_>| voided.contains(&(fact.side, fact.report));
            if self.voided.get(&line).is_some_and(is_voided) {
                return Outcome::Duplicate;
            }
            match self.sides.get(&(line, fact.side)) {
                Some(held) if *held == fact.report => Outcome::Duplicate,
                Some(_) => Outcome::Conflict,
                None => {
                    self.sides.insert((line, fact.side), fact.report);
                    self.change(&Change::reported(fact));
                    Outcome::Applied
                }
            }
        }

        fn change(&mut self, change: &Change) {
            *self.on_hand.entry(change.key).or_default() += change.on_hand_delta;
        }

        /// Takes a side back, if it is there.
        fn void(&mut self, line: LineId, side: Side) {
            if let Some(report) = self.sides.remove(&(line, side)) {
                self.voided.entry(line).or_default().push((side, report));
                let (movement, product) = line;
                self.change(&Change::taken_back(&Fact {
                    movement,
                    product,
                    side,
                    report,
                    code: None,
                }));
            }
        }

        /// The same through the fold, the model standing in for the tables.
        fn take_batch(&mut self, facts: &[Fact]) -> Vec<Outcome> {
            let mut merged = merge(facts);
            let mut new = Vec::new();
            for (id, line) in merged.lines() {
                let mut sides = Sides::NONE;
                let offered = Side::BOTH.map(|side| line.side(side).map(|report| (side, report)));
                for (side, report) in offered.into_iter().flatten() {
                    // As the upsert does: what has voids is left alone.
                    if !self.voided.contains_key(&id) {
                        self.sides.entry((id, side)).or_insert_with(|| {
                            sides = sides.with(side);
                            report
                        });
                    }
                }
                new.push(sides);
            }
            let stored = merged.unsettled(facts, &new).into_iter();
            let stored = stored.map(|id| (id, self.stored(id))).collect();
            for (id, line) in merged.correct(facts, &stored, &mut new) {
                let set = Side::BOTH
                    .into_iter()
                    .filter_map(|side| Some((side, line.side(side)?)));
                for (side, report) in set {
                    let before = self.sides.insert((id, side), report);
                    assert_eq!(before, None, "what is there is not corrected");
                }
            }
            for change in merged.changes(&new) {
                self.change(&change);
            }
            merged.outcomes(facts, &new, &stored)
        }

        fn stored(&self, id: LineId) -> Stored {
            let side = |side| self.sides.get(&(id, side)).copied();
            Stored {
                line: MovementLine {
                    product: id.1,
                    departure: side(Side::Departure),
                    arrival: side(Side::Arrival),
                },
                voided: self.voided.get(&id).cloned().unwrap_or_default(),
            }
        }
    }

    #[test]
    fn two_sides_that_meet_are_one_line() {
        let facts = [
            fact(1, 1, Side::Arrival, 2, 40),
            fact(1, 1, Side::Departure, 1, 100),
        ];
        let merged = merge(&facts);
        assert_eq!(merged.lines().len(), 1);
        let both = Sides::NONE.with(Side::Departure).with(Side::Arrival);
        let deltas: Vec<i64> = deltas_by_key(&merged.changes(&[both]))
            .into_iter()
            .map(|(_, delta)| delta)
            .collect();
        assert_eq!(deltas, [-100, 40]);
    }

    #[test]
    fn a_loser_in_the_batch_may_be_what_is_stored() {
        let mut model = Model::default();
        model.take(&fact(1, 1, Side::Departure, 1, 7));
        let batch = [
            fact(1, 1, Side::Departure, 1, 8),
            fact(1, 1, Side::Departure, 1, 7),
        ];
        assert_eq!(
            model.take_batch(&batch),
            [Outcome::Conflict, Outcome::Duplicate]
        );
    }

    #[test]
    fn what_was_taken_back_is_known_and_what_comes_instead_is_its_correction() {
        let mut model = Model::default();
        let [wrong, right, other] = [7, 8, 9].map(|units| fact(1, 1, Side::Departure, 1, units));
        let arrival = fact(1, 1, Side::Arrival, 2, 8);
        model.take(&wrong);
        model.void((wrong.movement, wrong.product), Side::Departure);
        // The first is no correction, and the other side was never there.
        assert_eq!(
            model.take_batch(&[wrong, right, other, arrival, right]),
            [
                Outcome::Duplicate,
                Outcome::Applied,
                Outcome::Conflict,
                Outcome::Applied,
                Outcome::Duplicate
            ]
        );
        assert_eq!(
            model.take_batch(&[other, wrong, right]),
            [Outcome::Conflict, Outcome::Duplicate, Outcome::Duplicate]
        );
    }

    /// What happens to the tables, one thing after another.
    #[derive(Clone, Debug)]
    enum Step {
        Batch(Vec<Fact>),
        Void(LineId, Side),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => prop::collection::vec(any_fact(), 0..12).prop_map(Step::Batch),
            1 => any_fact().prop_map(|fact| Step::Void((fact.movement, fact.product), fact.side)),
        ]
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        (1..4_u128, 1..3_u128, any::<bool>(), 1..3_u128, 0..3_i64).prop_map(
            |(movement, product, departs, warehouse, units)| {
                let side = if departs {
                    Side::Departure
                } else {
                    Side::Arrival
                };
                fact(movement, product, side, warehouse, units)
            },
        )
    }

    /// Facts of which no two are about one side.
    fn agreeing_facts() -> impl Strategy<Value = Vec<Fact>> {
        prop::collection::vec(any_fact(), 0..20).prop_map(|facts| {
            let mut first: BTreeMap<(LineId, Side), Fact> = BTreeMap::new();
            for fact in facts {
                let id = ((fact.movement, fact.product), fact.side);
                first.entry(id).or_insert(fact);
            }
            first.into_values().collect()
        })
    }

    /// The same facts in any order and any batches, each any number of times but at least once.
    fn retold(facts: Vec<Fact>) -> impl Strategy<Value = Vec<Vec<Fact>>> {
        const BATCHES: usize = 5;
        prop::collection::vec(any::<prop::sample::Index>(), 0..20)
            .prop_map(move |again| {
                let mut facts = facts.clone();
                if !facts.is_empty() {
                    let again: Vec<Fact> = again.iter().map(|place| *place.get(&facts)).collect();
                    facts.extend(again);
                }
                facts
            })
            .prop_shuffle()
            .prop_flat_map(|facts| {
                let batches = prop::collection::vec(0..BATCHES, facts.len());
                (Just(facts), batches)
            })
            .prop_map(|(facts, batches)| {
                let mut cut = vec![Vec::new(); BATCHES];
                for (fact, batch) in facts.into_iter().zip(batches) {
                    cut[batch].push(fact);
                }
                cut
            })
    }

    proptest! {
        /// However a stream is cut into batches, it ends where one fact at a time ends, fact by fact.
        /// Also where sides are taken back in between.
        #[test]
        fn batches_do_what_single_facts_do(steps in prop::collection::vec(any_step(), 0..10)) {
            let (mut single, mut batched) = (Model::default(), Model::default());
            for step in &steps {
                match step {
                    Step::Batch(batch) => {
                        let expected: Vec<Outcome> = batch.iter().map(|fact| single.take(fact)).collect();
                        prop_assert_eq!(batched.take_batch(batch), expected);
                    }
                    Step::Void(line, side) => {
                        single.void(*line, *side);
                        batched.void(*line, *side);
                    }
                }
            }
            prop_assert_eq!(single, batched);
        }

        /// Without conflicts neither order nor repetition nor the cut into batches changes anything.
        #[test]
        fn order_and_repetition_change_nothing((facts, retold) in agreeing_facts().prop_flat_map(|facts| {
            let retold = retold(facts.clone());
            (Just(facts), retold)
        })) {
            let (mut one, mut other) = (Model::default(), Model::default());
            one.take_batch(&facts);
            for batch in &retold {
                other.take_batch(batch);
            }
            prop_assert_eq!(one, other);
        }

        /// Of all that is told of a side one content is applied, once; every other is a conflict and leaves no trace.
        #[test]
        fn of_conflicting_facts_one_is_applied(batches in prop::collection::vec(prop::collection::vec(any_fact(), 0..12), 0..6)) {
            let mut all = Model::default();
            let (mut winners, mut others) = (Vec::new(), Vec::new());
            for batch in &batches {
                for (fact, outcome) in batch.iter().zip(all.take_batch(batch)) {
                    match outcome {
                        Outcome::Applied => winners.push(*fact),
                        outcome => others.push((*fact, outcome)),
                    }
                }
            }
            let mut without = Model::default();
            for winner in &winners {
                prop_assert_eq!(without.take(winner), Outcome::Applied, "a side is set once");
            }
            for (fact, outcome) in others {
                prop_assert_eq!(without.take(&fact), outcome, "{:?}", fact);
            }
            prop_assert_eq!(all, without);
        }
    }
}
