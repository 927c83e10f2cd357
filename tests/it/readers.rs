//! Readers that ask a service all the time while a server of its own is away: of what is cached, of what was never read, and
//! of what does not exist. An answer is right, or it is none, and says so; zeros and "no such thing" for want of a server are
//! wrong.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use stockyard::{
    clock::Clock,
    domain::{MovementId, StockKey},
    produce::plan::{Plan, PlanOptions},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    servers_away::seldom,
    support::{Answer, Service, World},
};

/// How long the cache may vouch for what it holds after the last look at the database.
const VOUCHED_FOR: Duration = Duration::from_secs(1);
/// Every request is answered by then, with a second for a loaded machine.
const ANSWER_MAX: Duration = Duration::from_secs(11);
/// Between two reads of one reader.
const READ_EVERY: Duration = Duration::from_millis(15);

/// What reads get while the server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Nothing but 503, once the cache may vouch for nothing any more.
    Fail,
    /// What they always get.
    Work,
    /// Either.
    MayFail,
}

/// What readers may ask for: things of which everything was taken before the fault.
#[derive(Clone)]
pub struct Told {
    /// A movement that does not change any more.
    pub known: MovementId,
    movements: Vec<MovementId>,
    keys: Vec<StockKey>,
    /// By side, what each movement is made of.
    sides: BTreeMap<MovementId, BTreeMap<&'static str, i64>>,
}

impl Told {
    /// What the first messages of the plan tell.
    pub fn by(options: &PlanOptions, messages: u64) -> Self {
        let mut sides: BTreeMap<MovementId, BTreeMap<&'static str, i64>> = BTreeMap::new();
        let (mut movements, mut keys) = (Vec::new(), Vec::new());
        let first = usize::try_from(messages).expect("a count");
        for fact in Plan::new(options).take(first).filter_map(|m| m.fact) {
            let side = fact.side.as_str();
            let units = fact.report.quantity.units();
            sides.entry(fact.movement).or_default().insert(side, units);
            movements.push(fact.movement);
            keys.push(StockKey {
                warehouse: fact.report.warehouse,
                product: fact.product,
            });
        }
        movements.sort_unstable();
        movements.dedup();
        let whole = movements.iter().find(|id| sides[id].len() == 2);
        Self {
            known: *whole.expect("a whole movement"),
            movements,
            keys,
            sides,
        }
    }

    /// Waits until all of it is in the tables: one partition may be ahead of the others.
    pub async fn is_taken(&self, world: &World) {
        let sides: Vec<String> = self
            .sides
            .iter()
            .flat_map(|(id, sides)| {
                sides
                    .keys()
                    .map(move |side| format!("('{id}'::uuid,'{side}')"))
            })
            .collect();
        let taken = format!(
            "select count(*) from (values {}) told (id, side) join movements on movement_id = id
            where case side when 'departure' then departure_at else arrival_at end is not null",
            sides.join(",")
        );
        let all = i64::try_from(sides.len()).expect("a count");
        seldom("what is read is taken", async || {
            (world.database.number(&taken).await == all).then_some(())
        })
        .await;
    }

    /// Whether the answer holds the sides that were taken before the fault.
    pub fn is_right(&self, id: MovementId, answer: &Answer) -> bool {
        let holds = |(side, units): (&&str, &i64)| answer.body[*side]["quantity"] == *units;
        answer.status == 200
            && answer.body["id"] == json!(id.uuid())
            && self.sides[&id].iter().all(holds)
    }
}

/// What an answer amounts to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// 503, as a problem document.
    None,
    Wrong(String),
}

/// An answer that a reader got.
pub struct Seen {
    reader: &'static str,
    began: Duration,
    ended: Duration,
    verdict: Verdict,
}

impl Seen {
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// Readers that never stop.
pub struct Watch {
    pub stop: CancellationToken,
    readers: JoinSet<Vec<Seen>>,
}

impl Watch {
    pub fn start(base: &str, told: &Told, clock: &Clock) -> Self {
        let (stop, mut readers) = (CancellationToken::new(), JoinSet::new());
        for reader in [
            "known",
            "unread movement",
            "unread level",
            "nothing",
            "empty level",
        ] {
            let (service, told) = (Service::at(base), told.clone());
            let (clock, stop) = (clock.clone(), stop.clone());
            readers.spawn(async move {
                let mut seen = Vec::new();
                let mut turn = 0;
                while !stop.is_cancelled() {
                    let began = clock.elapsed();
                    let verdict = read(reader, turn, &service, &told).await;
                    seen.push(Seen {
                        reader,
                        began,
                        ended: clock.elapsed(),
                        verdict,
                    });
                    turn += 1;
                    tokio::time::sleep(READ_EVERY).await;
                }
                seen
            });
        }
        Self { stop, readers }
    }

    pub async fn seen(self) -> Vec<Seen> {
        self.stop.cancel();
        self.readers
            .join_all()
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

async fn read(reader: &str, turn: usize, service: &Service, told: &Told) -> Verdict {
    let (answer, is_right) = match reader {
        "known" => {
            let answer = service.movement(told.known).await;
            let is_right = told.is_right(told.known, &answer);
            (answer, is_right)
        }
        "unread movement" => {
            let id = told.movements[turn % told.movements.len()];
            let answer = service.movement(id).await;
            let is_right = told.is_right(id, &answer);
            (answer, is_right)
        }
        "unread level" => {
            let key = told.keys[turn % told.keys.len()];
            let answer = service.stock(key.warehouse, key.product).await;
            let is_right = answer.status == 200
                && answer.body["revision"].as_i64().is_some_and(|r| r > 0)
                && answer.body["product_id"] == json!(key.product.uuid());
            (answer, is_right)
        }
        "nothing" => {
            let answer = service.movement(Uuid::new_v4()).await;
            let is_right = answer.status == 404 && answer.body["detail"] == "Movement not found";
            (answer, is_right)
        }
        _ => {
            let answer = service.stock(Uuid::new_v4(), Uuid::new_v4()).await;
            let is_right = answer.status == 200 && answer.body["revision"] == 0;
            (answer, is_right)
        }
    };
    let is_problem = answer.header("content-type") == "application/problem+json"
        && answer.body["detail"].is_string();
    if is_right {
        Verdict::Right
    } else if answer.status == 503 && is_problem {
        Verdict::None
    } else {
        let body: &Value = &answer.body;
        Verdict::Wrong(format!("{} {body}", answer.status))
    }
}

/// Every answer is right or none; which of the two, the server's absence says. Returns how many there were during it.
pub fn judge(name: &str, reads: Reads, seen: &[Seen], (from, to): (Duration, Duration)) -> usize {
    let from = from + VOUCHED_FOR;
    let mut during: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in seen {
        let (reader, verdict) = (answer.reader, &answer.verdict);
        let since = answer.began.saturating_sub(from);
        assert!(
            !matches!(verdict, Verdict::Wrong(_)),
            "{name}: {reader}, {since:?} into the absence: {verdict:?}"
        );
        let took = answer.took();
        assert!(
            took <= ANSWER_MAX,
            "{name}: {reader} answered after {took:?}"
        );
        let is_during = answer.began >= from && answer.ended <= to;
        if is_during {
            *during.entry(reader).or_default() += 1;
        }
        match reads {
            Reads::Fail => assert!(
                !is_during || *verdict == Verdict::None,
                "{name}: {reader} answered {since:?} into the absence"
            ),
            Reads::Work => assert_eq!(
                *verdict,
                Verdict::Right,
                "{name}: {reader}, {since:?} into the absence"
            ),
            Reads::MayFail => {}
        }
    }
    assert_eq!(during.len(), 5, "{name}: all the time, by all: {during:?}");
    during.values().sum()
}
