//! Streams of movements that tests publish, and what there must be of them afterwards.

use std::collections::BTreeMap;

use stockyard::{
    clock::Clock,
    inventory::verify::{Compared, Expected, Verifier},
    produce::{Oracle, Pace, Produced, plan::PlanOptions, produce},
};
use tokio::task::JoinHandle;

use super::{World, variable};

/// What a test draws at random begins with: anything, or what `STOCKYARD_TEST_SEED` says.
pub fn seed() -> u64 {
    variable("STOCKYARD_TEST_SEED")
        .map_or_else(rand::random, |seed| seed.parse().expect("a number"))
}

/// A stream with something of everything.
pub fn mixed(count: u64, seed: u64) -> PlanOptions {
    PlanOptions {
        count,
        warehouses: 20,
        products: 200,
        skew: 0.0,
        duplicates: 10.0,
        out_of_order: 5.0,
        losses: 2.0,
        poison: 1.0,
        seed,
        namespace: 0,
    }
}

impl World {
    /// Publishes the plan from a thread of its own, with these settings of the Kafka client alone: the world's are a
    /// consumer's. `rate` is in messages per second; 0: as fast as Kafka takes them.
    pub fn publish(
        &self,
        options: &PlanOptions,
        rate: u64,
        settings: &[(&str, &str)],
    ) -> JoinHandle<Produced> {
        let (mut kafka, options) = (self.config.kafka.clone(), options.clone());
        let settings = settings.iter().map(|(name, value)| (*name, *value));
        kafka.options = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let pace = Pace {
            rate,
            is_quiet: true,
        };
        tokio::task::spawn_blocking(move || {
            produce(&kafka, &options, pace, &Clock::system()).expect("published")
        })
    }

    /// What the tables' comparison with each other, and with what was published, finds.
    pub async fn compare(&self, oracle: Option<&Oracle>) -> (Compared, Vec<String>) {
        let store = self.database.store("stockyard_app");
        let mut found = Vec::new();
        let mut tell = |difference: &_| found.push(format!("{difference}"));
        let expected = oracle.map(|oracle| oracle as &dyn Expected);
        let compared = Verifier::new(&store, Clock::system(), &mut tell)
            .run(expected)
            .await
            .expect("compared");
        store.close().await;
        (compared, found)
    }

    /// What the tables' comparison with each other finds.
    pub async fn differences(&self) -> Vec<String> {
        self.compare(None).await.1
    }

    /// The tables hold what was published, once; its poison is in the dead letters, and nothing else is.
    pub async fn holds(&self, oracle: &Oracle, name: &str) {
        let (compared, found) = self.compare(Some(oracle)).await;
        assert_eq!(found, [""; 0], "{name}");
        let totals = oracle.totals();
        assert_eq!(compared.sides, totals.facts, "{name}");
        let mut letters: BTreeMap<String, u64> = BTreeMap::new();
        for letter in self.all_dead_letters().await {
            *letters.entry(letter.reason().to_owned()).or_default() += 1;
        }
        assert_eq!(letters, totals.dead_letters, "{name}");
    }
}
