//! The fold against what must always hold, over random books and requests.

use proptest::prelude::*;

use super::*;
use crate::domain::Quantity;

const NOW: i64 = 1_000_000_000;

fn key(warehouse: u128, product: u128) -> StockKey {
    StockKey {
        warehouse: WarehouseId::new(Uuid::from_u128(warehouse)).unwrap(),
        product: ProductId::new(Uuid::from_u128(product)).unwrap(),
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn standing(key: StockKey, on_hand: i64, reserved: i64) -> Standing {
    Standing {
        key,
        level: StockLevel {
            on_hand,
            reserved,
            revision: Revision(3),
            updated_at: Some(at(7)),
        },
    }
}

fn tag_of(_: StockKey, level: &StockLevel) -> String {
    format!("{}/{}/{}", level.on_hand, level.reserved, level.revision.0)
}

fn book(standing: impl IntoIterator<Item = Standing>) -> Book {
    Book::new(at(NOW), standing, tag_of)
}

fn command(id: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(id)).unwrap()
}

fn reservation(id: u128) -> ReservationId {
    ReservationId::new(Uuid::from_u128(id)).unwrap()
}

fn adjustment(key: StockKey, kind: AdjustmentKind, units: i64) -> Adjustment {
    Adjustment::new(command(1), key, kind, units, Note::default()).unwrap()
}

fn adjust(key: StockKey, kind: AdjustmentKind, units: i64) -> Request {
    Request::Adjust {
        adjustment: adjustment(key, kind, units),
        expected: None,
    }
}

fn item(product: u128, warehouse: Option<u128>, units: i64) -> Item {
    let key = key(warehouse.unwrap_or(1), product);
    Item {
        product: key.product,
        warehouse: warehouse.map(|_| key.warehouse),
        quantity: Quantity::new(units).unwrap(),
    }
}

fn reserve(id: u128, items: Vec<Item>) -> Request {
    Request::Reserve(Reserve {
        id: reservation(id),
        items,
        ttl_seconds: Some(60),
        note: Note::default(),
        is_order: false,
    })
}

fn step(id: u128, step: Step) -> Request {
    Request::Step {
        reservation: reservation(id),
        step,
        id: command(id),
        note: Note::default(),
    }
}

fn held(state: State, expires_at: Option<i64>, lines: Vec<(StockKey, i64)>) -> Held {
    Held {
        state,
        created_at: at(1),
        expires_at: expires_at.map(at),
        lines,
    }
}

fn lines(verdict: &Verdict) -> Vec<(u128, i64)> {
    let Verdict::Reserved(reserved) = verdict else {
        panic!("{verdict:?}")
    };
    let line = |(key, units): &(StockKey, i64)| (key.warehouse.uuid().as_u128(), *units);
    reserved.lines.iter().map(line).collect()
}

fn short(verdict: &Verdict) -> Vec<(i64, i64)> {
    let Verdict::Refused(Refusal::Short(short), _) = verdict else {
        panic!("{verdict:?}")
    };
    short.iter().map(|s| (s.requested, s.available)).collect()
}

#[test]
fn a_sale_needs_what_is_available_and_damage_what_is_on_hand() {
    let key = key(1, 1);
    let mut book = book([standing(key, 10, 8)]);
    assert_eq!(
        short(&book.decide(&adjust(key, AdjustmentKind::Sale, -3))),
        [(3, 2)]
    );
    assert_eq!(book.effects().entries, []);
    assert_eq!(
        book.decide(&adjust(key, AdjustmentKind::Sale, -2)),
        Verdict::Adjusted(key)
    );
    assert_eq!(
        book.decide(&adjust(key, AdjustmentKind::Damage, -8)),
        Verdict::Adjusted(key)
    );
    assert_eq!(
        short(&book.decide(&adjust(key, AdjustmentKind::Adjustment, -1))),
        [(1, 0)]
    );
    let level = book.level(key);
    assert_eq!(
        (level.on_hand, level.reserved, level.revision),
        (0, 8, Revision(4))
    );
}

#[test]
fn a_count_says_what_there_is() {
    let key = key(1, 1);
    let mut book = book([standing(key, -4, 0)]);
    book.decide(&adjust(key, AdjustmentKind::Count, 0));
    assert_eq!(book.effects().entries[0].delta.on_hand, 4);
    book.decide(&adjust(key, AdjustmentKind::Count, 0));
    assert_eq!(book.effects().entries[1].delta.on_hand, 0);
    assert_eq!(book.level(key).on_hand, 0);
}

#[test]
fn nothing_grows_beyond_its_bound() {
    let key = key(1, 1);
    let mut book = book([standing(key, ON_HAND_MAX - 1, 0)]);
    let restock = |units| adjust(key, AdjustmentKind::Restock, units);
    assert_eq!(
        book.decide(&restock(2)),
        Verdict::Refused(Refusal::TooLarge, None)
    );
    assert_eq!(book.decide(&restock(1)), Verdict::Adjusted(key));
}

#[test]
fn the_fullest_warehouse_serves_and_else_as_few_as_can_be() {
    let stand = || {
        [
            standing(key(1, 1), 5, 0),
            standing(key(2, 1), 9, 2),
            standing(key(3, 1), 3, 0),
        ]
    };
    let one = |units| book(stand()).decide(&reserve(1, vec![item(1, None, units)]));
    assert_eq!(lines(&one(6)), [(2, 6)]);
    assert_eq!(lines(&one(12)), [(1, 5), (2, 7)]);
    assert_eq!(lines(&one(15)), [(1, 5), (2, 7), (3, 3)]);
    assert_eq!(short(&one(16)), [(16, 15)]);
}

#[test]
fn all_items_or_none_and_every_short_one_is_named() {
    let mut book = book([standing(key(1, 1), 5, 0), standing(key(1, 2), 1, 0)]);
    let wanted = vec![item(1, Some(1), 5), item(2, Some(1), 2), item(1, None, 1)];
    assert_eq!(short(&book.decide(&reserve(1, wanted))), [(2, 1), (1, 0)]);
    assert!(book.effects().is_empty() && book.changed().next().is_none());
    // The same level twice is one line.
    let wanted = vec![item(1, Some(1), 2), item(1, None, 3)];
    assert_eq!(lines(&book.decide(&reserve(2, wanted))), [(1, 5)]);
}

#[test]
fn adjustments_that_belong_together_leave_no_trace_alone() {
    let (one, other) = (key(1, 1), key(1, 2));
    let both = |is_atomic| Request::AdjustMany {
        adjustments: vec![
            adjustment(one, AdjustmentKind::Restock, 5),
            adjustment(other, AdjustmentKind::Sale, -1),
        ],
        is_atomic,
    };
    let stand = || [standing(one, 0, 0), standing(other, 0, 0)];
    let mut together = book(stand());
    let verdict = together.decide(&both(true));
    assert!(matches!(
        verdict,
        Verdict::Refused(Refusal::Short(_), Some(1))
    ));
    assert!(together.effects().is_empty());
    let mut apart = book(stand());
    let Verdict::AdjustedMany(each) = apart.decide(&both(false)) else {
        panic!("not each by itself")
    };
    assert!(each[0].is_ok() && each[1].is_err());
    assert_eq!(apart.level(one).on_hand, 5);
}

#[test]
fn a_level_is_compared_as_clients_read_it() {
    let key = key(1, 1);
    let request = |tag: &str| Request::Adjust {
        adjustment: adjustment(key, AdjustmentKind::Sale, -1),
        expected: Some(vec![tag.to_owned()]),
    };
    let mut book = book([standing(key, 10, 4)]);
    // What is due is not reserved any more to who reads, though nothing was committed yet.
    book.expire([Due {
        reservation: reservation(1),
        key,
        quantity: 4,
        expires_at: at(NOW - 1),
    }]);
    let refused = Verdict::Refused(Refusal::NotAsExpected(key), None);
    assert_eq!(book.decide(&request("10/4/3")), refused);
    assert_eq!(book.decide(&request("10/0/3")), Verdict::Adjusted(key));
    assert_eq!(book.decide(&request("10/0/3")), refused);
    assert_eq!(
        book.decide(&request("9/0/4")),
        refused,
        "nobody has seen it"
    );
    assert_eq!(book.decide(&request("*")), Verdict::Adjusted(key));
}

#[test]
fn what_nobody_knows_is_named() {
    let key = key(1, 1);
    let mut book = book([]);
    book.know_unknown([key.product.uuid()]);
    let unknown = Verdict::Refused(Refusal::UnknownProduct(key.product), None);
    assert_eq!(
        book.decide(&adjust(key, AdjustmentKind::Restock, 1)),
        unknown
    );
    assert_eq!(book.decide(&reserve(1, vec![item(1, None, 1)])), unknown);
    assert_eq!(
        book.decide(&step(9, Step::Confirm)),
        Verdict::Refused(Refusal::NoReservation, None)
    );
}

#[test]
fn what_is_due_cannot_be_confirmed_and_what_is_damaged_cannot_be_taken() {
    let key = key(1, 1);
    let mut book = book([standing(key, 3, 5)]);
    book.hold([
        (
            reservation(1),
            held(State::Active, Some(NOW), vec![(key, 1)]),
        ),
        (reservation(2), held(State::Active, None, vec![(key, 4)])),
        (
            reservation(3),
            held(State::Active, Some(NOW + 1), vec![(key, 1)]),
        ),
    ]);
    let expired = Verdict::Refused(Refusal::Stands(State::Expired), None);
    assert_eq!(book.decide(&step(1, Step::Confirm)), expired);
    assert_eq!(book.decide(&step(1, Step::Extend { seconds: 9 })), expired);
    assert_eq!(short(&book.decide(&step(2, Step::Confirm))), [(4, 3)]);
    for _ in 0..2 {
        let verdict = book.decide(&step(3, Step::Confirm));
        assert!(matches!(
            verdict,
            Verdict::Stepped(Stepped {
                state: State::Confirmed,
                ..
            })
        ));
    }
    assert_eq!(book.effects().entries.len(), 1, "taken once");
}

#[derive(Clone, Debug)]
enum Asked {
    Adjust(AdjustmentKind, i64),
    Reserve(Vec<(u128, Option<u128>, i64)>),
    Step(u128, Step),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Confirm),
        Just(Step::Release),
        Just(Step::Extend { seconds: 5 }),
        Just(Step::Pay),
        Just(Step::Ship),
        Just(Step::Cancel),
    ]
}

fn any_asked() -> impl Strategy<Value = (u128, u128, Asked)> {
    let kind = prop::sample::select(AdjustmentKind::ALL.to_vec());
    let items = prop::collection::vec((1..3_u128, prop::option::of(1..4_u128), 1..6_i64), 1..4);
    let asked = prop_oneof![
        (kind, 1..6_i64).prop_map(|(kind, units)| {
            let is_taking = matches!(kind, AdjustmentKind::Sale | AdjustmentKind::Damage);
            Asked::Adjust(kind, if is_taking { -units } else { units })
        }),
        (1..6_i64).prop_map(|units| Asked::Adjust(AdjustmentKind::Adjustment, -units)),
        items.prop_map(Asked::Reserve),
        (1..30_u128, any_step()).prop_map(|(id, step)| Asked::Step(id, step)),
    ];
    (1..4_u128, 1..3_u128, asked)
}

/// How many rows of each sort are to be written.
fn written(book: &Book) -> [usize; 4] {
    let effects = book.effects();
    [
        effects.entries.len(),
        effects.made.len(),
        effects.moved.len(),
        effects.extended.len(),
    ]
}

proptest! {
    /// After every request: nothing reserved is negative or more than the active reservations hold, nothing was granted that was
    /// not there, a refused request changed nothing, and the entries add up to the levels.
    #[test]
    fn nothing_is_promised_that_is_not_there(
        stock in prop::collection::vec(-3..12_i64, 6),
        due in 0..4_i64,
        requests in prop::collection::vec(any_asked(), 1..40),
    ) {
        let keys: Vec<StockKey> = (1..4).flat_map(|w| (1..3).map(move |p| key(w, p))).collect();
        let mut start: BTreeMap<StockKey, (i64, i64)> = keys.iter().zip(&stock).map(|(key, units)| (*key, (*units, 0))).collect();
        start.insert(keys[0], (stock[0].max(0), due));
        let mut book = book(start.iter().map(|(key, (on_hand, reserved))| standing(*key, *on_hand, *reserved)));
        if due > 0 {
            book.expire([Due { reservation: reservation(99), key: keys[0], quantity: due, expires_at: at(NOW - 5) }]);
        }
        let mut active: HashMap<u128, Vec<(StockKey, i64)>> = HashMap::new();
        for (place, (warehouse, product, asked)) in requests.into_iter().enumerate() {
            let before: Vec<Amounts> = keys.iter().map(|key| book.drafted(*key, &Draft::new())).collect();
            let (written, changed) = (written(&book), book.changed().collect::<Vec<_>>());
            let of = key(warehouse, product);
            let id = place as u128 + 1;
            let request = match &asked {
                Asked::Adjust(kind, units) => adjust(of, *kind, *units),
                Asked::Reserve(items) => reserve(id, items.iter().map(|(p, w, units)| item(*p, *w, *units)).collect()),
                Asked::Step(id, asked) => step(*id, *asked),
            };
            let verdict = book.decide(&request);
            let after: Vec<Amounts> = keys.iter().map(|key| book.drafted(*key, &Draft::new())).collect();
            match &verdict {
                Verdict::Refused(..) => {
                    prop_assert_eq!(&before, &after);
                    prop_assert_eq!((written, changed), (self::written(&book), book.changed().collect::<Vec<_>>()));
                }
                Verdict::Reserved(reserved) => {
                    for (key, units) in &reserved.lines {
                        let place = keys.iter().position(|k| k == key).unwrap();
                        prop_assert!(before[place].available() >= *units);
                    }
                    let wanted: i64 = match &asked { Asked::Reserve(items) => items.iter().map(|i| i.2).sum(), _ => 0 };
                    prop_assert_eq!(wanted, reserved.lines.iter().map(|l| l.1).sum::<i64>());
                    active.insert(id, reserved.lines.clone());
                    let lines = reserved.lines.clone();
                    book.hold([(reserved.id, held(State::Active, Some(NOW + 60), lines))]);
                }
                Verdict::Stepped(stepped) if stepped.state != State::Active => {
                    active.remove(&stepped.id.uuid().as_u128());
                }
                _ => {}
            }
            for (place, amounts) in after.iter().enumerate() {
                let held: i64 = active.values().flatten().filter(|(key, _)| *key == keys[place]).map(|(_, units)| units).sum();
                prop_assert_eq!(amounts.reserved, held, "reserved is the sum of what is active");
                prop_assert_eq!(amounts.available(), (amounts.on_hand - amounts.reserved).max(0));
                prop_assert!(amounts.on_hand >= 0 || amounts.on_hand >= before[place].on_hand, "only facts go below zero");
            }
        }
        for key in &keys {
            let (on_hand, reserved) = start[key];
            let sum = book.effects().entries.iter().filter(|e| e.key == *key).fold(Amounts { on_hand, reserved }, |sum, e| sum.plus(e.delta));
            let level = book.level(*key);
            prop_assert_eq!((sum.on_hand, sum.reserved), (level.on_hand, level.reserved));
        }
    }
}
