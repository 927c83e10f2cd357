//! What the tables should hold once a plan was published: totals in a file, and every line worked out again from the plan.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::{Plan, PlanOptions, Planned};
use crate::{
    domain::{MovementLine, ProductId, Side, StockKey, WarehouseId, batch::LineId},
    inventory::verify::Expected,
};

/// Lines held at once when each is compared: about 200 bytes apiece.
const LINES_PER_PART: u64 = 1_000_000;

/// Why there is no oracle.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    #[error("oracle file: {0}")]
    File(#[from] std::io::Error),
    #[error("oracle file: {0}")]
    Content(#[from] serde_json::Error),
}

/// The totals that a plan leads to, in tables that held nothing else before.
#[derive(Debug)]
pub struct Oracle {
    options: PlanOptions,
    totals: Totals,
    on_hand: BTreeMap<StockKey, i64>,
}

/// What the messages amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub messages: u64,
    /// Sides that are new: what the ledger should have rows of.
    pub facts: u64,
    pub duplicates: u64,
    /// By reason.
    pub dead_letters: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    options: PlanOptions,
    totals: Totals,
    levels: Vec<StoredLevel>,
}

#[derive(Serialize, Deserialize)]
struct StoredLevel {
    warehouse_id: Uuid,
    product_id: Uuid,
    on_hand: i64,
}

impl Oracle {
    pub(super) fn new(options: &PlanOptions) -> Self {
        Self {
            options: options.clone(),
            totals: Totals::default(),
            on_hand: BTreeMap::new(),
        }
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// A message was published.
    pub(super) fn expect(&mut self, message: &Planned) {
        self.totals.messages += 1;
        if let Some(reason) = message.poison {
            *self
                .totals
                .dead_letters
                .entry(reason.to_string())
                .or_default() += 1;
        }
        let Some(fact) = message.fact else { return };
        if message.is_duplicate {
            self.totals.duplicates += 1;
            return;
        }
        self.totals.facts += 1;
        let key = StockKey {
            warehouse: fact.report.warehouse,
            product: fact.product,
        };
        *self.on_hand.entry(key).or_default() += fact.on_hand_delta();
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), OracleError> {
        let levels = self.on_hand.iter().map(|(key, on_hand)| StoredLevel {
            warehouse_id: key.warehouse.uuid(),
            product_id: key.product.uuid(),
            on_hand: *on_hand,
        });
        let stored = Stored {
            options: self.options.clone(),
            totals: self.totals.clone(),
            levels: levels.collect(),
        };
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &stored)?;
        file.flush()?;
        Ok(())
    }

    pub fn read(path: &Path) -> Result<Self, OracleError> {
        let stored: Stored = serde_json::from_reader(BufReader::new(File::open(path)?))?;
        let level = |level: StoredLevel| {
            let warehouse = WarehouseId::new(level.warehouse_id)?;
            let product = ProductId::new(level.product_id)?;
            Some((StockKey { warehouse, product }, level.on_hand))
        };
        Ok(Self {
            options: stored.options,
            totals: stored.totals,
            on_hand: stored.levels.into_iter().filter_map(level).collect(),
        })
    }
}

impl Expected for Oracle {
    fn on_hand(&self) -> &BTreeMap<StockKey, i64> {
        &self.on_hand
    }

    fn parts(&self) -> usize {
        usize::try_from(self.totals.facts.div_ceil(LINES_PER_PART))
            .unwrap_or(1)
            .max(1)
    }

    fn lines(&self, part: usize) -> HashMap<LineId, MovementLine> {
        let mut lines: HashMap<LineId, MovementLine> = HashMap::new();
        for fact in Plan::new(&self.options).filter_map(|message| message.fact) {
            let id = (fact.movement, fact.product);
            if self.part_of(id) != part {
                continue;
            }
            let nothing = MovementLine {
                product: fact.product,
                departure: None,
                arrival: None,
            };
            let line = lines.entry(id).or_insert(nothing);
            match fact.side {
                Side::Departure => line.departure = Some(fact.report),
                Side::Arrival => line.arrival = Some(fact.report),
            }
        }
        lines
    }

    fn part_of(&self, (movement, _): LineId) -> usize {
        usize::from(movement.uuid().as_bytes()[15]) * self.parts() / 256
    }
}
