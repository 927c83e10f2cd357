//! What one live client knows: the frames it was told, taken one by one, each judged on what went before.
//!
//! `change` of an update is its quantity minus the one this client last had, so a frame proves that none before it that changed the
//! quantity is missing, conflated or not. Each commit that changes a key raises its revision by one: while nothing was conflated, a
//! frame also proves that no other is missing. A cursor says that nothing up to its version is still to come; what was told after
//! the last cursor is undone when the client comes back with that cursor.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    invariants::{Findings, Invariant},
    oracle::{Key, Told},
};
use crate::domain::{Timestamp, commit::WantedCommit};

#[derive(Deserialize)]
struct Frame<'f> {
    #[serde(borrow)]
    r#type: Cow<'f, str>,
    version: Option<i64>,
    #[serde(borrow)]
    cursor: Option<Cow<'f, str>>,
    part: Option<u64>,
    parts: Option<u64>,
    #[serde(borrow)]
    data: Option<&'f RawValue>,
    /// Of alerts, as the warehouse.
    #[serde(borrow, rename = "product_id")]
    product: Option<Cow<'f, str>>,
    #[serde(rename = "warehouse_id")]
    warehouse: Option<Uuid>,
}

#[derive(Deserialize)]
struct Update<'f> {
    #[serde(borrow)]
    product_id: Cow<'f, str>,
    warehouse_id: Uuid,
    quantity: i64,
    on_hand: i64,
    reserved: i64,
    available_stock: i64,
    change: i64,
    revision: i64,
    #[serde(borrow)]
    timestamp: Cow<'f, str>,
}

#[derive(Deserialize)]
struct Product<'f> {
    #[serde(borrow, rename = "product_id")]
    id: Cow<'f, str>,
    min_stock: Option<i64>,
    levels: Vec<Level>,
}

#[derive(Deserialize)]
struct Level {
    warehouse_id: Uuid,
    on_hand: i64,
    reserved: i64,
    revision: i64,
}

/// What a client has of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub told: Told,
    min_stock: Option<i64>,
    /// What alerts said last, and whether any did.
    is_low: bool,
    was_told: bool,
    /// The connection over which it was told.
    life: u32,
}

impl Held {
    fn quantity(&self) -> i64 {
        self.told.on_hand.max(0)
    }

    /// Whether the quantity is at or below the minimum.
    fn should_be_low(&self) -> bool {
        self.min_stock.is_some_and(|min| self.quantity() <= min)
    }
}

/// What a frame brought, for whoever counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// The commit's time, of an update.
    pub committed_at: Option<Timestamp>,
    pub key: Option<(Key, Told)>,
}

/// The client's model.
#[derive(Debug, Default)]
pub(super) struct Picture {
    levels: HashMap<Key, Held>,
    /// What stood there at the last cursor, of keys that were told since.
    undo: Vec<(Key, Option<Held>)>,
    cursor: Option<String>,
    version: i64,
    minimum: HashMap<Arc<str>, i64>,
    /// What alerts said of keys that no update told of yet: in a commit they come first.
    early: HashMap<Key, bool>,
    life: u32,
    /// Frames that do not continue the revision before.
    jumps: Vec<String>,
    /// How often the service said that what it told may be wrong.
    resyncs: u64,
}

/// The version of a commit as it is written.
pub(super) fn version_of(commit: Option<&str>) -> Option<i64> {
    let commit: WantedCommit = commit?.parse().ok()?;
    Some(commit.version.number())
}

/// Jumps that are kept.
const JUMPS_MAX: usize = 5;

impl Picture {
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The version of the last cursor.
    pub(super) fn version(&self) -> i64 {
        version_of(self.cursor.as_deref()).unwrap_or(-1)
    }

    pub(super) fn levels(&self) -> &HashMap<Key, Held> {
        &self.levels
    }

    /// The connection is a new one: everything after the last cursor comes again.
    pub(super) fn begin_again(&mut self) {
        for (key, held) in self.undo.drain(..).rev() {
            match held {
                Some(held) => self.levels.insert(key, held),
                None => self.levels.remove(&key),
            };
        }
        self.version = 0;
        self.life += 1;
    }

    /// Frames that show that others are missing, if none were conflated.
    pub(super) fn jumps(&self) -> &[String] {
        &self.jumps
    }

    pub(super) fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Takes a frame; what is wrong with it is told to the findings.
    pub(super) fn hear(&mut self, text: &str, findings: &Findings, who: &str) -> Brought {
        let mut brought = Brought::default();
        match serde_json::from_str::<Frame<'_>>(text) {
            Ok(frame) => self.take(&frame, findings, who, &mut brought),
            Err(error) => findings.broken(Invariant::NoGap, format!("{who}: {error}: {text}")),
        }
        brought
    }

    fn take(&mut self, frame: &Frame<'_>, findings: &Findings, who: &str, brought: &mut Brought) {
        let data = frame.data.map_or("null", RawValue::get);
        match &*frame.r#type {
            "snapshot" => self.snapshot(frame, data, findings, who),
            "resync" => self.resyncs += 1,
            "update" => match serde_json::from_str(data) {
                Ok(update) => self.update(&update, findings, who, brought),
                Err(error) => findings.broken(Invariant::NoGap, format!("{who}: {error}")),
            },
            "low_stock_alert" | "stock_recovered" => self.alert(frame, findings, who),
            _ => {}
        }
        if let Some(version) = frame.version {
            let last = std::mem::replace(&mut self.version, version);
            findings.look(Invariant::NoGap, version >= last, || {
                format!("{who}: version {version} after {last}")
            });
        }
        if let Some(cursor) = &frame.cursor {
            self.cursor = Some(cursor.clone().into_owned());
            self.undo.clear();
        }
    }

    fn snapshot(&mut self, frame: &Frame<'_>, data: &str, findings: &Findings, who: &str) {
        if frame.part.unwrap_or(1) == 1 {
            self.levels.clear();
            self.undo.clear();
            self.early.clear();
            if frame.parts.unwrap_or(1) > 1 {
                // Until the last part there is no place to come back to.
                self.cursor = None;
            }
        }
        let products: Vec<Product<'_>> = match serde_json::from_str(data) {
            Ok(products) => products,
            Err(error) => {
                return findings.broken(Invariant::NoGap, format!("{who}: {error}"));
            }
        };
        for product in products {
            let name: Arc<str> = product.id.as_ref().into();
            if let Some(min_stock) = product.min_stock {
                self.minimum.insert(Arc::clone(&name), min_stock);
            }
            for level in product.levels {
                let told = Told {
                    on_hand: level.on_hand,
                    reserved: level.reserved,
                    revision: level.revision,
                };
                let mut held = Held {
                    told,
                    min_stock: product.min_stock,
                    is_low: false,
                    was_told: false,
                    life: self.life,
                };
                held.is_low = held.should_be_low();
                let key = Key {
                    warehouse: level.warehouse_id,
                    product: Arc::clone(&name),
                };
                self.levels.insert(key, held);
            }
        }
    }

    fn update(
        &mut self,
        update: &Update<'_>,
        findings: &Findings,
        who: &str,
        brought: &mut Brought,
    ) {
        let key = Key {
            warehouse: update.warehouse_id,
            product: update.product_id.as_ref().into(),
        };
        let told = Told {
            on_hand: update.on_hand,
            reserved: update.reserved,
            revision: update.revision,
        };
        let before = self.levels.get(&key).copied();
        let had = before.map_or(0, |held| held.quantity());
        let follows = update.change == update.quantity - had
            && before.is_none_or(|held| told.revision > held.told.revision);
        findings.look(Invariant::NoGap, follows, || {
            let before = before.map_or("nothing".to_owned(), |held| held.told.to_string());
            format!(
                "{who}: {key}: {told}, change {}, after {before}",
                update.change
            )
        });
        if let Some(held) = before
            && told.revision > held.told.revision + 1
            && held.life == self.life
            && self.jumps.len() < JUMPS_MAX
        {
            let jump = format!("{who}: {key}: {told} after {}", held.told);
            self.jumps.push(jump);
        }
        let left = told.on_hand.saturating_sub(told.reserved).max(0);
        let is_shown = update.quantity == told.on_hand.max(0) && update.available_stock == left;
        findings.look(Invariant::NeverBelowZero, is_shown, || {
            let Update {
                quantity,
                available_stock,
                ..
            } = update;
            format!("{who}: {key}: {quantity} shown, {available_stock} available of {told}")
        });
        let early = self.early.remove(&key);
        let held = Held {
            told,
            min_stock: before.map_or_else(
                || self.minimum.get(&key.product).copied(),
                |held| held.min_stock,
            ),
            is_low: early.unwrap_or_else(|| before.is_some_and(|held| held.is_low)),
            was_told: early.is_some() || before.is_some_and(|held| held.was_told),
            life: self.life,
        };
        brought.committed_at = Timestamp::parse_fact_time(&update.timestamp).ok();
        brought.key = Some((key.clone(), told));
        self.put(key, held, before);
    }

    fn put(&mut self, key: Key, held: Held, before: Option<Held>) {
        self.undo.push((key.clone(), before));
        self.levels.insert(key, held);
    }

    fn alert(&mut self, frame: &Frame<'_>, findings: &Findings, who: &str) {
        let (Some(product), Some(warehouse)) = (&frame.product, frame.warehouse) else {
            return findings.broken(
                Invariant::AlertsInTurn,
                format!("{who}: an alert of nothing"),
            );
        };
        let key = Key {
            warehouse,
            product: product.as_ref().into(),
        };
        let is_low = frame.r#type == "low_stock_alert";
        let Some(before) = self.levels.get(&key).copied() else {
            self.early.insert(key, is_low);
            return;
        };
        findings.look(Invariant::AlertsInTurn, is_low != before.is_low, || {
            format!("{who}: {key}: {} twice in a row", frame.r#type)
        });
        let held = Held {
            is_low,
            was_told: true,
            ..before
        };
        self.put(key, held, Some(before));
    }

    /// When everything has settled: whether alerts told how it ended.
    pub(super) fn alerts_are_right(&self, findings: &Findings, who: &str) {
        for (key, held) in &self.levels {
            let is_right = held.is_low == held.should_be_low();
            // One that never came near its minimum proves nothing.
            if held.min_stock.is_some() && (held.was_told || !is_right) {
                findings.look(Invariant::AlertsInTurn, is_right, || {
                    let told = if held.is_low { "low" } else { "not low" };
                    format!("{who}: {key}: told to be {told} with {}", held.told)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAREHOUSE: Uuid = Uuid::from_u128(7);

    fn update(version: i64, on_hand: i64, change: i64, revision: i64, cursor: bool) -> String {
        let quantity = on_hand.max(0);
        let cursor = if cursor {
            format!(r#""cursor":"{version}-0000000a","#)
        } else {
            String::new()
        };
        format!(
            r#"{{"type":"update","version":{version},{cursor}"data":{{"product_id":"P","warehouse":"W","warehouse_id":"{WAREHOUSE}","quantity":{quantity},"on_hand":{on_hand},"reserved":0,"available_stock":{quantity},"change":{change},"update_type":"arrival","revision":{revision},"timestamp":"2025-06-01T00:00:00Z"}}}}"#
        )
    }

    fn snapshot(on_hand: i64, min_stock: i64) -> String {
        format!(
            r#"{{"type":"snapshot","version":1,"cursor":"1-0000000a","data":[{{"product_id":"P","min_stock":{min_stock},"levels":[{{"warehouse_id":"{WAREHOUSE}","on_hand":{on_hand},"reserved":0,"revision":1}}]}}]}}"#
        )
    }

    fn alert(kind: &str, version: i64) -> String {
        format!(
            r#"{{"type":"{kind}","version":{version},"product_id":"P","warehouse_id":"{WAREHOUSE}"}}"#
        )
    }

    fn broken(frames: &[String]) -> Vec<Invariant> {
        let (mut picture, findings) = (Picture::default(), Findings::default());
        for frame in frames {
            picture.hear(frame, &findings, "a client");
        }
        for jump in picture.jumps() {
            findings.broken(Invariant::NoGap, jump.clone());
        }
        picture.alerts_are_right(&findings, "a client");
        let all = findings.all().into_iter();
        all.filter(|(_, finding)| finding.broken > 0)
            .map(|(invariant, _)| invariant)
            .collect()
    }

    #[test]
    fn each_frame_follows_from_the_one_before() {
        let whole = [
            snapshot(5, 0),
            update(2, 9, 4, 2, true),
            update(3, -1, -9, 3, true),
            update(4, 2, 2, 4, true),
            update(5, 2, 0, 5, true),
            update(6, 2, 0, 6, true),
        ];
        assert_eq!(broken(&whole), []);
        for left_out in 1..5 {
            let mut frames = whole.to_vec();
            frames.remove(left_out);
            assert_eq!(broken(&frames), [Invariant::NoGap], "without {left_out}");
        }
        let mut twice = whole.to_vec();
        twice.insert(2, whole[1].clone());
        assert_eq!(broken(&twice), [Invariant::NoGap]);
    }

    #[test]
    fn alerts_come_in_turn_and_the_last_word_is_right() {
        let low = [
            snapshot(5, 3),
            update(2, 2, -3, 2, true),
            alert("low_stock_alert", 2),
        ];
        assert_eq!(broken(&low), []);
        assert_eq!(broken(&low[..2]), [Invariant::AlertsInTurn]);
        let twice = [&low[..], &low[2..]].concat();
        assert_eq!(broken(&twice), [Invariant::AlertsInTurn]);
    }

    #[test]
    fn an_alert_of_a_new_key_may_come_before_it() {
        let frames = [
            snapshot(5, 3),
            alert("low_stock_alert", 2).replace("\"P\"", "\"Q\""),
            update(2, 1, 1, 1, true).replace("\"P\"", "\"Q\""),
        ];
        assert_eq!(broken(&frames), []);
    }

    #[test]
    fn what_came_after_the_last_cursor_comes_again() {
        let (mut picture, findings) = (Picture::default(), Findings::default());
        picture.hear(&snapshot(5, 0), &findings, "");
        picture.hear(&update(2, 9, 4, 2, false), &findings, "");
        assert_eq!(picture.version(), 1);
        picture.begin_again();
        picture.hear(&update(2, 9, 4, 2, true), &findings, "");
        assert_eq!(picture.version(), 2);
        assert!(
            findings
                .all()
                .iter()
                .all(|(_, finding)| finding.broken == 0)
        );
    }
}
