//! Reservations that what is on hand does not cover any more: told once by every process and across restarts, the newest first, and
//! told again when they are covered.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use stockyard::{
    app::Parts,
    domain::{CommitPoint, ReservationId, reservation::State},
};
use uuid::Uuid;

use crate::support::{
    Service, World, eventually, is_long,
    live::{LiveClient, Picture},
    messages::Move,
    reserved::{End, Reserved},
};

const NORTH: Uuid = Uuid::from_u128(1);
const SOUTH: Uuid = Uuid::from_u128(2);
const PRODUCT: Uuid = Uuid::from_u128(3);

const ANSWERS: Parts = Parts {
    answers: true,
    ingests: false,
};

/// What a frame says of a reservation, if it says something of one.
fn told(frame: &Value) -> Option<(i64, String, Uuid, bool)> {
    let is_at_risk = match frame["type"].as_str()? {
        "reservation_at_risk" => true,
        "reservation_healed" => false,
        _ => return None,
    };
    let id = frame["reservation_id"].as_str()?.to_owned();
    let warehouse = frame["warehouse_id"].as_str()?.parse().ok()?;
    Some((frame["version"].as_i64()?, id, warehouse, is_at_risk))
}

/// The frames about reservations that a client gets up to that version.
async fn frames(client: &mut LiveClient, version: i64) -> Vec<Value> {
    let mut frames = Vec::new();
    while client.picture.version() < version {
        let frame = client.next().await.expect("the connection");
        frames.extend(told(&frame).map(|_| frame));
    }
    frames
}

/// What a client is told of reservations up to that version.
async fn heard(client: &mut LiveClient, version: i64) -> Vec<(i64, String, Uuid, bool)> {
    let frames = frames(client, version).await;
    frames.iter().filter_map(told).collect()
}

/// The same, without version and place.
async fn news(client: &mut LiveClient, world: &World) -> Vec<(String, bool)> {
    let heard = heard(client, world.newest_version().await).await;
    let news = heard.into_iter();
    news.map(|(_, id, _, is_at_risk)| (id, is_at_risk))
        .collect()
}

async fn at_risk(world: &World, reserved: &Reserved) -> bool {
    let inventory = world.inventory();
    let read = inventory.store().reservation(reserved.id).await.unwrap();
    inventory.store().close().await;
    let reservation = read.value.expect("it is there");
    reservation.lines.iter().any(|line| line.is_at_risk)
}

async fn resume(service: &Service, picture: &Picture) -> LiveClient {
    LiveClient::resume(service, "", picture.clone())
        .await
        .expect("a connection")
}

#[tokio::test]
async fn a_late_departure_puts_the_newest_at_risk_and_an_arrival_heals_them() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let writer = world.start().await;
    let other = world.start_parts(ANSWERS).await;
    other.is_ready().await;
    let (sku, code) = (json!({"sku": "W-1"}), json!({"code": "NORTH"}));
    writer.put(&format!("/api/products/{PRODUCT}"), sku).await;
    writer.put(&format!("/api/warehouses/{NORTH}"), code).await;
    world.send(&Move::new(NORTH, PRODUCT, 10).arrival()).await;
    writer.has_on_hand(NORTH, PRODUCT, 10).await;
    let mut reserved = Vec::new();
    for units in [4, 3, 3] {
        reserved.push(
            world
                .database
                .reserve(PRODUCT, &[(NORTH, units)], None)
                .await,
        );
    }
    let [first, second, third] = reserved.try_into().unwrap();
    let id = |of: &Reserved| of.id.to_string();
    let mut clients = [
        LiveClient::connect(&writer, "").await,
        LiveClient::connect(&other, "").await,
    ];
    for client in &mut clients {
        assert_eq!(news(client, &world).await, []);
    }
    let away = clients[1].picture.clone();

    world.send(&Move::new(NORTH, PRODUCT, 5).departure()).await;
    writer.has_on_hand(NORTH, PRODUCT, 5).await;
    other.has_on_hand(NORTH, PRODUCT, 5).await;
    let both = [(id(&third), true), (id(&second), true)];
    let version = world.newest_version().await;
    let frames = frames(&mut clients[0], version).await;
    assert_eq!(frames.len(), 2, "{frames:?}");
    let timestamp = frames[0]["timestamp"].as_str().expect("a time");
    let expected = json!({
        "type": "reservation_at_risk", "version": version, "reservation_id": id(&third), "product_id": "W-1",
        "warehouse": "NORTH", "warehouse_id": NORTH, "quantity": 3, "timestamp": timestamp
    });
    assert_eq!(frames[0], expected);
    assert_eq!(frames[1]["reservation_id"], id(&second));
    assert_eq!(news(&mut clients[1], &world).await, both);
    let mut back = resume(&other, &away).await;
    assert_eq!(news(&mut back, &world).await, both, "what was missed");
    for (one, is_at_risk) in [(&first, false), (&second, true), (&third, true)] {
        assert_eq!(at_risk(&world, one).await, is_at_risk);
    }
    let totals = world.inventory().summary().await.unwrap().totals;
    assert_eq!((totals.reservations, totals.reservations_at_risk), (3, 2));

    world.send(&Move::new(NORTH, PRODUCT, 3).arrival()).await;
    writer.has_on_hand(NORTH, PRODUCT, 8).await;
    for client in &mut clients {
        assert_eq!(news(client, &world).await, [(id(&second), false)]);
    }

    // While a process is away: what ends is neither at risk nor healed.
    let away = clients[1].picture.clone();
    other.stop().await;
    world.database.end(third.id, End::Released).await;
    world.send(&Move::new(NORTH, PRODUCT, 6).departure()).await;
    writer.has_on_hand(NORTH, PRODUCT, 2).await;
    let both = [(id(&second), true), (id(&first), true)];
    assert_eq!(news(&mut clients[0], &world).await, both);
    let other = world.start_parts(ANSWERS).await;
    let mut back = resume(&other, &away).await;
    assert_eq!(news(&mut back, &world).await, both, "across a restart");
    assert_eq!((back.picture.snapshots, back.picture.resyncs), (1, 0));

    let mut elsewhere = LiveClient::connect(&writer, &format!("warehouse={SOUTH}")).await;
    world.send(&Move::new(NORTH, PRODUCT, 2).arrival()).await;
    writer.has_on_hand(NORTH, PRODUCT, 4).await;
    assert_eq!(news(&mut clients[0], &world).await, [(id(&first), false)]);
    assert_eq!(news(&mut elsewhere, &world).await, []);

    let alerts = |kind: &str| format!(r#"warehouse_stock_alerts_total{{type="{kind}"}}"#);
    let told = [
        writer.count(&alerts("reservation_at_risk")).await,
        writer.count(&alerts("reservation_healed")).await,
    ];
    assert_eq!(told, [4, 2]);
    let newest = world.newest_version().await;
    let totals = eventually("totals of now", async || {
        let totals = writer.get("/summary").await.body;
        (totals["version"].as_i64() >= Some(newest)).then_some(totals)
    })
    .await;
    assert_eq!(totals["reservations"], 2);
    let shown = r#"warehouse_reservations{state="at_risk"}"#;
    assert_eq!(totals["reservations_at_risk"], writer.count(shown).await);
    writer.stop().await;
    other.stop().await;
    world.database.remove().await;
}

/// What is on hand in a warehouse, and what is reserved of it: the oldest first, with the units.
#[derive(Clone, Debug, Default)]
struct Stood {
    on_hand: i64,
    active: Vec<(ReservationId, i64)>,
}

impl Stood {
    /// The definition: those whose running sum exceeds what is on hand, the newest first.
    fn at_risk(&self) -> Vec<ReservationId> {
        let mut sum = 0;
        let mut at_risk = Vec::new();
        for (id, units) in &self.active {
            sum += units;
            if sum > self.on_hand {
                at_risk.push(*id);
            }
        }
        at_risk.reverse();
        at_risk
    }
}

/// What was done to a database, and what is to be told of it.
struct Story {
    world: World,
    writer: Service,
    places: BTreeMap<Uuid, Stood>,
    expected: Vec<(i64, String, Uuid, bool)>,
}

impl Story {
    /// After a commit that changed these places.
    fn expect(&mut self, version: i64, places: &BTreeMap<Uuid, Stood>) {
        for (place, now) in places {
            let before = self.places.get(place).cloned().unwrap_or_default();
            let (was, is) = (before.at_risk(), now.at_risk());
            for (id, _) in now.active.iter().rev() {
                if was.contains(id) != is.contains(id) {
                    let told = (version, id.to_string(), *place, is.contains(id));
                    self.expected.push(told);
                }
            }
        }
        self.places.extend(places.clone());
    }

    async fn step(&mut self, random: &mut SmallRng) {
        let place = if random.random_bool(0.5) {
            NORTH
        } else {
            SOUTH
        };
        let mut places = self.places.clone();
        let stood = places.entry(place).or_default();
        let commit: Option<CommitPoint> = match random.random_range(0..10) {
            0..5 => {
                let units = random.random_range(1..8);
                let (there, delta) = (Move::new(place, PRODUCT, units), units);
                // As much goes as comes, so that it goes to and fro around what is reserved.
                let sum: i64 = stood.active.iter().map(|(_, units)| units).sum();
                let arrives = random.random_bool(if stood.on_hand < sum { 0.8 } else { 0.2 });
                let message = if arrives {
                    there.arrival()
                } else {
                    there.departure()
                };
                stood.on_hand += if arrives { delta } else { -delta };
                self.world.send(&message).await;
                self.writer.has_on_hand(place, PRODUCT, stood.on_hand).await;
                None
            }
            5..8 => {
                let mut units = vec![(place, random.random_range(1..4))];
                if random.random_bool(0.3) {
                    units = vec![(NORTH, 1), (SOUTH, 2)];
                }
                let reserved = self.world.database.reserve(PRODUCT, &units, None).await;
                for (place, units) in units {
                    let stood = places.entry(place).or_default();
                    stood.active.push((reserved.id, units));
                }
                Some(reserved.commit)
            }
            _ => {
                let Some((id, _)) = stood.active.first().copied() else {
                    return;
                };
                let ends = [End::Confirmed, End::Released, End::Expired];
                let end = ends[random.random_range(0..3)];
                for stood in places.values_mut() {
                    let held = stood.active.iter().find(|(of, _)| *of == id);
                    let units = held.map_or(0, |(_, units)| *units);
                    if matches!(end, End::Confirmed) {
                        stood.on_hand -= units;
                    }
                    stood.active.retain(|(of, _)| *of != id);
                }
                Some(self.world.database.end(id, end).await)
            }
        };
        let version = match commit {
            Some(commit) => commit.version.number(),
            None => self.world.newest_version().await,
        };
        self.expect(version, &places);
    }
}

#[tokio::test]
async fn what_is_told_is_what_the_definition_says() {
    // So many that a process that begins has them all in its history.
    const STEPS: usize = 45;
    for seed in 0..if is_long() { 20 } else { 2 } {
        let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
        let mut story = Story {
            writer: world.start().await,
            world,
            places: BTreeMap::new(),
            expected: Vec::new(),
        };
        let mut random = SmallRng::seed_from_u64(seed);
        let other = story.world.start_parts(ANSWERS).await;
        let mut clients = [
            LiveClient::connect(&story.writer, "").await,
            LiveClient::connect(&other, "").await,
        ];
        for client in &mut clients {
            client.hear("snapshot").await;
        }
        let beginning = clients[0].picture.clone();
        for _ in 0..STEPS {
            story.step(&mut random).await;
        }
        let (world, expected) = (&story.world, &story.expected);
        let healed = expected.iter().filter(|(.., is_at_risk)| !is_at_risk);
        let healed = healed.count();
        assert!(healed > 2 && expected.len() - healed > 2, "seed {seed}");
        let newest = world.newest_version().await;
        for client in &mut clients {
            assert_eq!(&heard(client, newest).await, expected, "seed {seed}");
        }
        let late = world.start_parts(ANSWERS).await;
        let mut back = resume(&late, &beginning).await;
        assert_eq!(&heard(&mut back, newest).await, expected, "seed {seed}");

        let inventory = world.inventory();
        let mut lines = 0;
        for (place, stood) in &story.places {
            for (id, _) in &stood.active {
                let read = inventory.store().reservation(*id).await.unwrap();
                let reservation = read.value.expect("it is there");
                assert_eq!(reservation.state, State::Active);
                let mut of_place = reservation.lines.iter();
                let line = of_place.find(|line| line.warehouse.id.uuid() == *place);
                let is_at_risk = line.expect("the line").is_at_risk;
                assert_eq!(is_at_risk, stood.at_risk().contains(id), "seed {seed}");
                lines += i64::from(is_at_risk);
            }
        }
        let totals = inventory.summary().await.unwrap().totals;
        assert_eq!(totals.reservations_at_risk, lines);
        inventory.store().close().await;
        let verified = world.stockyard(&["verify"]);
        assert!(verified.status.success(), "seed {seed}: {verified:?}");
        story.writer.stop().await;
        other.stop().await;
        late.stop().await;
        story.world.database.remove().await;
    }
}
