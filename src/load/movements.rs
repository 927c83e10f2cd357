//! Publishes movements while the load goes, and keeps account of them: facts, duplicates, what contradicts, what is none.
//!
//! What Kafka has not acknowledged is sent again until it has: twice is a duplicate, and changes nothing. So everything
//! that was published counts exactly once in the end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use uuid::Uuid;

use super::{
    freshness,
    oracle::Key,
    pace::{Due, Schedule},
    run::Run,
};
use crate::{
    config::Kafka,
    domain::{
        Fact, MovementId, MovementLine, ProductId, Quantity, Side, SideReport, StockKey, Timestamp,
        WarehouseId,
    },
    event::dead_letter::Reason,
    kafka,
    produce::plan::{self, Plan, PlanOptions},
};

/// Longest Kafka is given to take what is left at the end.
const FLUSH_MAX: Duration = Duration::from_mins(2);
/// How long one flush may take before it is looked what is left.
const FLUSH_STEP: Duration = Duration::from_secs(1);
/// One fact of so many is contradicted by a later message.
const CONTRADICTED: u64 = 400;
/// Lines of movements that are remembered whole, to be compared at the end.
const LINES_MAX: usize = 5_000;
/// Where marked messages arrive.
const MARKED: u32 = u32::MAX;

/// What is published.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub kafka: Kafka,
    pub options: PlanOptions,
    /// `None`: as fast as Kafka takes them.
    pub schedule: Option<Arc<Schedule>>,
    /// Marked messages beside it, to see how fresh answers are.
    pub is_marked: bool,
}

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub messages: u64,
    pub facts: u64,
    pub duplicates: u64,
    /// Messages that become dead letters, by their keys, with the reason.
    pub dead: HashMap<String, Reason>,
    /// Some of the lines, as they must be in the end.
    pub lines: HashMap<MovementId, MovementLine>,
    /// What Kafka did not take in the end.
    pub lost: u64,
    pub took: Duration,
}

impl Published {
    /// What was published after it.
    pub(super) fn absorb(&mut self, later: Self) {
        self.messages += later.messages;
        self.facts += later.facts;
        self.duplicates += later.duplicates;
        self.lost += later.lost;
        self.took += later.took;
        self.dead.extend(later.dead);
        self.lines.extend(later.lines);
    }
}

/// The key of a fact's level, as answers and frames have it.
fn key_of(stock: StockKey) -> Key {
    Key {
        warehouse: stock.warehouse.uuid(),
        product: stock.product.to_string().into(),
    }
}

/// The product of marked messages.
pub(super) fn marked_product(namespace: u64) -> Option<ProductId> {
    plan::product_of(namespace, MARKED)
}

impl Stream {
    /// Publishes on a thread of its own, until the plan or the run is over.
    pub(super) fn publish(
        self,
        run: Arc<Run>,
    ) -> tokio::task::JoinHandle<Result<Published, KafkaError>> {
        tokio::task::spawn_blocking(move || {
            let returned = Arc::<Returned>::default();
            let mut config = kafka::producer_config(&self.kafka);
            config
                .set("linger.ms", "1")
                .set("queue.buffering.max.kbytes", "65536");
            let producer = config
                .create_with_context(Context(Arc::clone(&returned)))
                .map_err(kafka::without_value)?;
            let mut publisher = Publisher {
                producer,
                returned,
                keys: HashMap::new(),
                published: Published::default(),
                marked_at: run.clock.elapsed(),
                stream: self,
                run,
            };
            publisher.all()?;
            Ok(publisher.published)
        })
    }
}

struct Publisher {
    producer: ThreadedProducer<Context>,
    returned: Arc<Returned>,
    keys: HashMap<StockKey, Key>,
    published: Published,
    marked_at: Duration,
    stream: Stream,
    run: Arc<Run>,
}

impl Publisher {
    fn all(&mut self) -> Result<(), KafkaError> {
        let began = self.run.clock.elapsed();
        let mut plan = Plan::new(&self.stream.options);
        while !self.run.is_over() {
            if let Some(schedule) = &self.stream.schedule {
                match schedule.take(self.run.clock.elapsed()) {
                    Due::At(due) => self.wait_until(due)?,
                    Due::LookAgain(after) => {
                        self.wait_until(self.run.clock.elapsed() + after)?;
                        continue;
                    }
                }
            } else {
                self.mark()?;
            }
            let Some(planned) = plan.next() else { break };
            let Some(value) = planned.value.as_deref() else {
                // A tombstone.
                self.dead(&planned.key, planned.poison);
                self.send(&planned.key, None)?;
                continue;
            };
            match &planned.fact {
                Some(_) if planned.is_duplicate => self.published.duplicates += 1,
                Some(fact) => self.expect(fact),
                None => self.dead(&planned.key, planned.poison),
            }
            self.send(&planned.key, Some(value))?;
            if let Some(fact) = planned.fact.filter(|_| !planned.is_duplicate) {
                self.run.published(fact.movement);
                self.contradict(&fact)?;
            }
        }
        self.flush()?;
        self.published.took = self.run.clock.elapsed().saturating_sub(began);
        Ok(())
    }

    /// Until then, marked messages when they are due.
    fn wait_until(&mut self, due: Duration) -> Result<(), KafkaError> {
        loop {
            self.mark()?;
            let now = self.run.clock.elapsed();
            if now >= due || self.run.is_over() {
                return Ok(());
            }
            let marked = if self.stream.is_marked {
                self.marked_at
            } else {
                due
            };
            let next = due.min(marked).max(now);
            thread::sleep(next.saturating_sub(now).min(freshness::EVERY));
        }
    }

    /// Sends the marked messages that are due.
    fn mark(&mut self) -> Result<(), KafkaError> {
        while self.stream.is_marked && self.run.clock.elapsed() >= self.marked_at {
            let namespace = self.stream.options.namespace;
            let key = plan::warehouse_of(namespace, MARKED).zip(marked_product(namespace));
            let movement = MovementId::new(Uuid::new_v4());
            let (Some((warehouse, product)), Some(movement)) = (key, movement) else {
                return Ok(());
            };
            let fact = arrival(movement, warehouse, product);
            self.expect(&fact);
            let value = plan::envelope(&fact, movement);
            self.run.markers.sent(self.marked_at);
            self.marked_at += freshness::EVERY;
            self.send(&product.to_string(), Some(value.as_bytes()))?;
        }
        Ok(())
    }

    /// A fact that counts.
    fn expect(&mut self, fact: &Fact) {
        self.published.facts += 1;
        let stock = StockKey {
            warehouse: fact.report.warehouse,
            product: fact.product,
        };
        let key = self.keys.entry(stock).or_insert_with(|| key_of(stock));
        self.run.oracle.publishes(key, fact.on_hand_delta());
        let lines = &mut self.published.lines;
        if lines.len() < LINES_MAX || lines.contains_key(&fact.movement) {
            let line = lines.entry(fact.movement).or_insert(MovementLine {
                product: fact.product,
                departure: None,
                arrival: None,
            });
            match fact.side {
                Side::Departure => line.departure = Some(fact.report),
                Side::Arrival => line.arrival = Some(fact.report),
            }
        }
    }

    fn dead(&mut self, key: &str, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.published.dead.insert(key.to_owned(), reason);
        }
    }

    /// Now and then a later message says something else of the same side. Both have one key, so they keep their order, unless
    /// the first has to be sent again.
    fn contradict(&mut self, fact: &Fact) -> Result<(), KafkaError> {
        let is_due = self.published.facts.is_multiple_of(CONTRADICTED);
        if !is_due || self.run.is_disturbed {
            return Ok(());
        }
        let other = Fact {
            report: SideReport {
                quantity: Quantity::new(fact.report.quantity.units() + 1).unwrap_or(Quantity::ZERO),
                ..fact.report
            },
            ..*fact
        };
        let key = fact.movement.to_string();
        self.dead(&key, Some(Reason::Conflict));
        let value = plan::envelope(&other, fact.movement);
        self.send(&key, Some(value.as_bytes()))
    }

    fn send(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), KafkaError> {
        self.published.messages += 1;
        enqueue(&self.producer, &self.stream.kafka.topic, key, value)?;
        self.send_returned()
    }

    /// Sends again what Kafka did not take.
    fn send_returned(&self) -> Result<(), KafkaError> {
        for (key, value) in self.returned.take() {
            enqueue(
                &self.producer,
                &self.stream.kafka.topic,
                &key,
                value.as_deref(),
            )?;
        }
        Ok(())
    }

    /// Waits until Kafka has everything.
    fn flush(&mut self) -> Result<(), KafkaError> {
        let began = self.run.clock.elapsed();
        loop {
            let flushed = self.producer.flush(FLUSH_STEP);
            if flushed.is_ok() && self.returned.is_empty() {
                return Ok(());
            }
            if self.run.clock.elapsed().saturating_sub(began) > FLUSH_MAX {
                self.published.lost = u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
                return Ok(());
            }
            self.send_returned()?;
        }
    }
}

fn arrival(movement: MovementId, warehouse: WarehouseId, product: ProductId) -> Fact {
    Fact {
        movement,
        product,
        side: Side::Arrival,
        report: SideReport {
            warehouse,
            at: Timestamp::from_micros(plan::FIRST_DEPARTURE_US),
            quantity: Quantity::new(1).unwrap_or(Quantity::ZERO),
        },
        code: None,
    }
}

fn enqueue(
    producer: &ThreadedProducer<Context>,
    topic: &str,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), KafkaError> {
    let key = key.to_owned();
    let mut record = BaseRecord::to(topic).key(&key);
    record.payload = value;
    kafka::enqueue(producer, record)
}

/// A message's key and value.
type Bare = (String, Option<Vec<u8>>);

/// Messages that Kafka did not take in time.
#[derive(Default)]
struct Returned(Mutex<Vec<Bare>>);

impl Returned {
    fn take(&self) -> Vec<Bare> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

struct Context(Arc<Returned>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((_, message)) = result {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let value = message.payload().map(<[u8]>::to_vec);
            let mut returned = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            returned.push((key, value));
        }
    }
}
