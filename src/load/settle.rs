//! The end of a run: waits until everything that was asked for and published is in, and compares everything with the account.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    LoadError,
    catalogue::Product,
    client::{Call, Client},
    invariants::Invariant,
    levels,
    movements::Published,
    operations::Operation,
    oracle::{Expected, Key, Told},
    picture::version_of,
    run::Run,
    sockets::Sockets,
};
use crate::{
    clock::Clock,
    config::Config,
    dead_letters::DeadLetters,
    domain::{MovementId, MovementLine, SideReport, Timestamp},
    event::dead_letter::Reason,
    inventory::verify::Verifier,
    store::Store,
};

/// Keys of one question.
const KEYS: usize = 500;
/// Longest nothing may come nearer before what differs is called wrong, unless told otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest in all.
const SETTLE_MAX: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Products whose other views are compared.
const VIEWS: usize = 100;
/// Ledgers that are read and counted, and the longest of them.
const LEDGERS: usize = 40;
const LEDGER_ROWS_MAX: i64 = 1_000;

/// What a run is compared with.
pub(super) struct Truth<'t> {
    pub config: &'t Config,
    /// Where the tables can be read themselves.
    pub store: Option<&'t Store>,
    /// Longest nothing may come nearer before what differs is called wrong.
    pub patience: Duration,
    /// Products whose other views are compared, too.
    pub(super) products: &'t [Product],
    /// Whether the service says that it told live clients several commits as one.
    pub(super) has_conflated: bool,
    /// When the run began: dead letters are looked for from then on.
    pub since: Timestamp,
}

/// Waits and compares; the sockets' pictures as well.
pub(super) async fn settle(
    run: &Arc<Run>,
    truth: &Truth<'_>,
    published: &Published,
    sockets: &[Sockets],
) {
    let mut client = Client::new(run, 0);
    let (found, version) = levels_settle(run, &mut client, truth.patience).await;
    for sockets in sockets {
        sockets.are_current(version).await;
        sockets.compare(&found, truth.has_conflated);
    }
    views(run, &mut client, truth.products, &found).await;
    movements(run, &mut client, &published.lines).await;
    ledgers(run, &mut client).await;
    if let Err(error) = dead_letters(run, truth, &published.dead).await {
        let why = format!("they cannot be looked at: {error}");
        run.oracle.findings.broken(Invariant::DeadLettersKept, why);
    }
    if published.lost > 0 {
        let why = format!("kafka did not take {} messages", published.lost);
        run.oracle.findings.broken(Invariant::EventsOnce, why);
    }
    if let Some(store) = truth.store
        && let Err(error) = verify(run, store).await
    {
        // Its address is only a guess where the service is somewhere else.
        tracing::warn!(%error, "the tables are not compared with each other");
    }
}

fn is_there(expected: Expected, found: Told) -> bool {
    (found.on_hand, found.reserved) == (expected.on_hand, expected.reserved)
}

/// Waits until everything is in, or nothing comes nearer.
pub(super) async fn all_in(run: &Arc<Run>, patience: Duration) -> bool {
    let mut client = Client::new(run, 0);
    let expected = run.oracle.expected();
    let (found, _) = come_in(run, &mut client, &expected, patience).await;
    let mut pairs = expected.iter().zip(&found);
    found.len() == expected.len()
        && pairs.all(|((_, expected), (_, found))| expected.is_none_or(|e| is_there(e, *found)))
}

/// Asks for every key until each is as it must be, or nothing comes nearer; what was found, and as of which version.
async fn come_in(
    run: &Arc<Run>,
    client: &mut Client,
    expected: &[(Key, Option<Expected>)],
    patience: Duration,
) -> (Vec<(Key, Told)>, i64) {
    let began = run.clock.elapsed();
    // Nearer: fewer levels differ, or something still comes in.
    let (mut nearest, mut highest, mut nearer_at) = (usize::MAX, i64::MIN, began);
    let (mut found, mut version) = (Vec::new(), 0);
    loop {
        let now = run.clock.elapsed();
        let read = read_all(run, client, expected).await;
        if let Some(read) = read {
            (found, version) = read;
            let pairs = expected.iter().zip(&found);
            let differ = pairs
                .filter(|((_, expected), (_, found))| {
                    expected.is_some_and(|expected| !is_there(expected, *found))
                })
                .count();
            let revisions = found.iter().map(|(_, told)| told.revision).sum();
            if differ < nearest || revisions > highest {
                (nearest, highest, nearer_at) = (differ.min(nearest), revisions, now);
            }
            if differ == 0 {
                break;
            }
        }
        let is_quiet = now.saturating_sub(nearer_at) > patience;
        if is_quiet || now.saturating_sub(began) > SETTLE_MAX {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    (found, version)
}

/// Waits for the levels, and compares them; what was found, and as of which version.
async fn levels_settle(
    run: &Arc<Run>,
    client: &mut Client,
    patience: Duration,
) -> (Vec<(Key, Told)>, i64) {
    let expected = run.oracle.expected();
    let (found, version) = come_in(run, client, &expected, patience).await;
    for ((key, expected), (_, found)) in expected.iter().zip(&found) {
        match expected {
            Some(expected) => run.oracle.compare(key, *expected, *found),
            None => run.oracle.findings.broken(
                run.oracle.counts_once(key),
                format!("{key}: nobody knows what became of a command"),
            ),
        }
    }
    if found.len() < expected.len() {
        let why = "the levels could not be read at the end".to_owned();
        run.oracle.findings.broken(Invariant::CommandsOnce, why);
    }
    (found, version)
}

/// All levels, and the newest version that any of them is as of.
async fn read_all(
    run: &Run,
    client: &mut Client,
    expected: &[(Key, Option<Expected>)],
) -> Option<(Vec<(Key, Told)>, i64)> {
    let (mut found, mut version) = (Vec::with_capacity(expected.len()), 0);
    for part in expected.chunks(KEYS) {
        let keys: Vec<Key> = part.iter().map(|(key, _)| key.clone()).collect();
        let now = run.clock.elapsed();
        let (told, answer) = levels::query(run, client, now, &keys).await?;
        let as_of = version_of(answer.version.as_deref());
        version = version.max(as_of.unwrap_or(0));
        found.extend(keys.into_iter().zip(told));
    }
    Some((found, version))
}

/// What the other ways to ask say of some products.
async fn views(run: &Run, client: &mut Client, products: &[Product], found: &[(Key, Told)]) {
    for product in products.iter().take(VIEWS) {
        let level = found.binary_search_by(|(key, _)| key.cmp(&product.key));
        let Ok((_, told)) = level.map(|place| &found[place]) else {
            continue;
        };
        let left = (told.on_hand - told.reserved).max(0);
        let asked = [
            (
                Operation::GetProduct,
                format!("/products/{}", product.number),
                vec![("stock", left)],
            ),
            (
                Operation::GetInventory,
                format!("/inventory/{}", product.sku),
                vec![
                    ("total_stock", told.on_hand.max(0)),
                    ("reserved_stock", told.reserved),
                    ("available_stock", left),
                ],
            ),
            (
                Operation::GetStock,
                format!("/stock?product={}", product.sku),
                vec![("quantity", told.on_hand.max(0))],
            ),
        ];
        for (operation, path, wanted) in asked {
            let call = Call::new(operation, path.clone());
            let Some(answer) = client.ask(run.clock.elapsed(), call).await else {
                continue;
            };
            let body = answer.json();
            let is_same = wanted.iter().all(|(field, number)| body[*field] == *number);
            run.oracle
                .findings
                .look(Invariant::ViewsAgree, is_same, || {
                    format!("{path}: {body}, and the level is {told}")
                });
        }
    }
}

/// Each remembered line with what the service says of its movement.
async fn movements(run: &Run, client: &mut Client, lines: &HashMap<MovementId, MovementLine>) {
    for (movement, line) in lines {
        let call = Call::new(Operation::GetMovement, format!("/api/movements/{movement}"));
        let answer = client.ask(run.clock.elapsed(), call.expects(&[404])).await;
        let body = answer.as_ref().map(super::client::Answer::json);
        let side = |name: &str, side: Option<SideReport>| {
            let told = body.as_ref().map(|body| &body[name]);
            told.is_some_and(|told| is_side(told, side))
        };
        let is_right = side("departure", line.departure) && side("arrival", line.arrival);
        run.oracle
            .findings
            .look(Invariant::EventsOnce, is_right, || {
                let body = body
                    .as_ref()
                    .map_or("no answer".to_owned(), Value::to_string);
                format!("movement {movement}: {body}, and not {line:?}")
            });
    }
}

fn is_side(told: &Value, side: Option<SideReport>) -> bool {
    let Some(side) = side else {
        return told.is_null();
    };
    told["warehouse_id"] == side.warehouse.to_string()
        && told["quantity"] == side.quantity.units()
        && told["at"]
            .as_str()
            .is_some_and(|at| Timestamp::parse_fact_time(at) == Ok(side.at))
}

/// Some keys' whole ledgers: as many rows as there were changes, and their sums.
async fn ledgers(run: &Run, client: &mut Client) {
    let expected = run.oracle.expected();
    let known = expected
        .iter()
        .filter_map(|(key, expected)| Some((key, (*expected)?)));
    let short: Vec<_> = known
        .filter(|(_, expected)| expected.changes <= LEDGER_ROWS_MAX)
        .collect();
    for (key, expected) in short.iter().step_by((short.len() / LEDGERS).max(1)) {
        let path = format!(
            "/api/warehouses/{}/products/{}/history?limit={LEDGER_ROWS_MAX}",
            key.warehouse, key.product
        );
        let call = Call::new(Operation::GetLevel, path);
        let Some(answer) = client.ask(run.clock.elapsed(), call).await else {
            continue;
        };
        let body = answer.json();
        let rows = body["history"].as_array().map_or(&[][..], Vec::as_slice);
        let sum = |field: &str| -> i64 { rows.iter().filter_map(|row| row[field].as_i64()).sum() };
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let found = Expected {
            on_hand: sum("on_hand_delta"),
            reserved: sum("reserved_delta"),
            changes: count,
        };
        run.oracle
            .findings
            .look(Invariant::LedgerIsLevels, found == *expected, || {
                format!("the ledger of {key}: {found}, and not {expected}")
            });
    }
}

/// Every message that cannot count is among the dead letters, as one message, with its reason.
async fn dead_letters(
    run: &Run,
    truth: &Truth<'_>,
    dead: &HashMap<String, Reason>,
) -> Result<(), LoadError> {
    let began = run.clock.elapsed();
    let found = loop {
        let found = letters(truth, dead).await?;
        let is_whole = dead.keys().all(|key| found.contains_key(key));
        if is_whole || run.clock.elapsed().saturating_sub(began) > truth.patience {
            break found;
        }
        sleep(LOOK_EVERY).await;
    };
    for (key, reason) in dead {
        let letters = found.get(key).map_or(&[][..], Vec::as_slice);
        let mut reasons = letters.iter().map(|(_, found)| found);
        // What is sent again because nobody said that it arrived has an origin of its own.
        let is_once = letters.len() == 1 || run.is_disturbed && !letters.is_empty();
        let is_right = is_once && reasons.all(|found| found == reason);
        run.oracle
            .findings
            .look(Invariant::DeadLettersKept, is_right, || {
                format!("message with key {key}: {letters:?}, and not once {reason}")
            });
    }
    Ok(())
}

/// Dead letters of the run's messages by their keys: where each came from, and why.
type Letters = HashMap<String, Vec<(String, Reason)>>;

async fn letters(truth: &Truth<'_>, dead: &HashMap<String, Reason>) -> Result<Letters, LoadError> {
    if dead.is_empty() {
        return Ok(Letters::new());
    }
    let reader = DeadLetters::new(truth.config, Clock::system());
    let (keys, since) = (dead.clone(), truth.since);
    let reading = tokio::task::spawn_blocking(move || {
        let mut found = Letters::new();
        reader.tell(Some(since), |key, origin, reason| {
            let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
            if let Some(key) = key.filter(|key| keys.contains_key(key)) {
                let letters = found.entry(key).or_default();
                let origin = origin.to_string();
                // After a crash one message may have two letters.
                if !letters.iter().any(|(known, _)| *known == origin) {
                    letters.push((origin, reason));
                }
            }
        })?;
        Ok::<_, LoadError>(found)
    });
    reading
        .await
        .map_err(|error| LoadError::Settle(error.to_string()))?
}

/// Compares all tables with each other.
async fn verify(run: &Run, store: &Store) -> Result<(), LoadError> {
    let findings = &run.oracle.findings;
    let mut tell = |difference: &_| {
        findings.broken(Invariant::LedgerIsLevels, format!("{difference}"));
    };
    let compared = Verifier::new(store, Clock::system(), &mut tell)
        .run(None)
        .await;
    let compared = compared.map_err(|error| LoadError::Settle(error.to_string()))?;
    findings.held(Invariant::LedgerIsLevels, compared.levels);
    Ok(())
}
