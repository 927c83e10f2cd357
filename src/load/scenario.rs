//! The scenarios: how many users, for how long, what they do, what goes on beside them, and what must be reached.

use std::time::Duration;

use clap::ValueEnum;

use super::{
    catalogue::Assortment,
    thresholds::{Limit, Measure},
};

/// A load test by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 10 users of a shop, 2 minutes: a smoke test.
    Quick,
    /// 50 users, 5 minutes: catalogue, stock and orders.
    Standard,
    /// 200 users, 10 minutes.
    Stress,
    /// The last items of a product, wanted by many at once, in growing rounds.
    Race,
    /// 1,000 users who read and watch one product.
    Crowd,
    /// 1,000 and then 10,000 sockets beside writers.
    Live,
    /// A backlog, and then a steady stream of movements.
    Ingest,
    /// 20, 50 and 100 users who read stock and movements, half of those unknown, beside a producer.
    Mixed,
    /// Servers of its own killed, frozen and cut off under load.
    Chaos,
    /// One after the other: quick, standard, race, crowd, live, ingest, mixed, chaos, stress.
    All,
    /// A shop whose users and rate are set on a page, on port 8089, while it goes.
    Interactive,
}

impl Scenario {
    /// What `all` runs.
    pub const EACH: [Self; 9] = [
        Self::Quick,
        Self::Standard,
        Self::Race,
        Self::Crowd,
        Self::Live,
        Self::Ingest,
        Self::Mixed,
        Self::Chaos,
        Self::Stress,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Stress => "stress",
            Self::Race => "race",
            Self::Crowd => "crowd",
            Self::Live => "live",
            Self::Ingest => "ingest",
            Self::Mixed => "mixed",
            Self::Chaos => "chaos",
            Self::All => "all",
            Self::Interactive => "interactive",
        }
    }
}

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Catalogue, stock and orders.
    Shop,
    /// The stock of one product, again and again.
    WatchOne,
    /// Stock and movements; half of the movements do not exist.
    Read,
}

/// A stretch of a run.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub users: usize,
    /// Live clients that are connected during it.
    pub sockets: usize,
    pub lasts: Duration,
}

/// What a scenario is made of.
#[derive(Clone, Debug)]
pub struct Profile {
    pub scenario: Scenario,
    pub doing: Doing,
    pub stages: Vec<Stage>,
    /// Users that come in a second.
    pub spawn_rate: f64,
    /// Between an answer and the next request, where users decide.
    pub think: (Duration, Duration),
    /// Requests a second, due at set times; `None`: users decide when.
    pub rate: Option<f64>,
    pub assortment: Assortment,
    /// Messages a second beside the users; 0: none.
    pub messages: f64,
    /// Changes a second of what is watched, beside the users; 0: none.
    pub writes: f64,
    pub limits: Vec<Limit>,
}

/// A think time that makes of 50 users the 300 requests a second that the guide expects of them.
const SHORT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));
const MINUTE: Duration = Duration::from_mins(1);

/// Of a shop: enough of each product that orders go on, and so little that some are sold out.
const SHOP: Assortment = Assortment {
    products: 100,
    stock: 60,
    min_stock: Some(50),
};

/// Of what writers take out and put in again: so near its minimum that it is low, and recovers.
const SWUNG: Assortment = Assortment {
    products: 1,
    stock: 30,
    min_stock: Some(20),
};

impl Profile {
    pub fn of(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Quick | Scenario::Race | Scenario::All => Self::shop(scenario, 10, 2),
            Scenario::Standard => Self::shop(scenario, 50, 5),
            // Users take twice their time: what they ask for together is still twice what `standard` does.
            Scenario::Stress => Self {
                spawn_rate: 20.0,
                think: (SHORT.0 * 2, SHORT.1 * 2),
                ..Self::shop(scenario, 200, 10)
            },
            Scenario::Crowd => Self::crowd(),
            Scenario::Live => Self::live(),
            Scenario::Ingest => Self {
                stages: vec![Stage {
                    users: 0,
                    sockets: 0,
                    lasts: MINUTE,
                }],
                messages: 5_000.0,
                ..Self::of_one_product(scenario)
            },
            Scenario::Mixed => Self {
                doing: Doing::Read,
                stages: [20, 50, 100]
                    .map(|users| Stage {
                        users,
                        sockets: 0,
                        lasts: MINUTE,
                    })
                    .to_vec(),
                spawn_rate: 100.0,
                think: (Duration::ZERO, Duration::ZERO),
                messages: 500.0,
                ..Self::of_one_product(scenario)
            },
            Scenario::Chaos => Self {
                rate: Some(100.0),
                ..Self::shop(scenario, 60, 4)
            },
            Scenario::Interactive => Self::shop(scenario, 10, 12 * 60),
        }
    }

    fn shop(scenario: Scenario, users: usize, minutes: u32) -> Self {
        Self {
            scenario,
            doing: Doing::Shop,
            stages: vec![Stage {
                users,
                sockets: 20,
                lasts: MINUTE * minutes,
            }],
            spawn_rate: 10.0,
            think: SHORT,
            rate: None,
            assortment: SHOP,
            messages: 50.0,
            writes: 0.0,
            limits: limits(scenario),
        }
    }

    fn of_one_product(scenario: Scenario) -> Self {
        Self {
            assortment: Assortment {
                products: 1,
                ..SHOP
            },
            messages: 0.0,
            ..Self::shop(scenario, 0, 0)
        }
    }

    fn crowd() -> Self {
        Self {
            doing: Doing::WatchOne,
            stages: vec![Stage {
                users: 1_000,
                sockets: 1_000,
                lasts: MINUTE * 2,
            }],
            spawn_rate: 100.0,
            think: (Duration::from_millis(500), Duration::from_millis(1_500)),
            assortment: Assortment {
                products: 1,
                ..SWUNG
            },
            writes: 10.0,
            ..Self::of_one_product(Scenario::Crowd)
        }
    }

    fn live() -> Self {
        let stage = |sockets| Stage {
            users: 0,
            sockets,
            lasts: MINUTE,
        };
        Self {
            stages: vec![stage(1_000), stage(10_000)],
            assortment: Assortment {
                products: 20,
                ..SWUNG
            },
            writes: 40.0,
            ..Self::of_one_product(Scenario::Live)
        }
    }

    /// How long all stages take together.
    pub fn lasts(&self) -> Duration {
        self.stages.iter().map(|stage| stage.lasts).sum()
    }

    /// So many requests a second at set times, or, where nobody asks, so many messages or writes.
    pub fn at_rate(&mut self, rate: f64) {
        match self.scenario {
            Scenario::Ingest => self.messages = rate,
            Scenario::Live => self.writes = rate,
            _ => self.rate = Some(rate),
        }
    }

    /// Stages that take so long together, each its share.
    pub fn last(&mut self, wanted: Duration) {
        let all = self.lasts().max(Duration::from_millis(1));
        for stage in &mut self.stages {
            stage.lasts = wanted.mul_f64(stage.lasts.as_secs_f64() / all.as_secs_f64());
        }
    }
}

/// What must be reached, and what should be. The first number is the floor, which a run that misses it is red by: those of
/// the load-test guide this follows, the stricter where it says two. The second is ours.
fn limits(scenario: Scenario) -> Vec<Limit> {
    use Measure::{
        FailedShare, FrameP99, FreshnessP99, LatencyBack, Mean, MeanOfReads, MeanOfWrites,
        MemoryBack, P95, P99, P999, PerSecond, SocketsLost, Unsent,
    };
    let own = match scenario {
        Scenario::Quick => vec![
            Limit::new(SocketsLost, 0.0, 0.0),
            Limit::new(P999, 100.0, 50.0),
            Limit::new(MeanOfReads, 100.0, 10.0),
            Limit::new(MeanOfWrites, 100.0, 20.0),
            Limit::new(FailedShare, 0.01, 0.0),
            Limit::new(PerSecond, 50.0, 60.0),
        ],
        Scenario::Standard => vec![
            Limit::new(SocketsLost, 0.0, 0.0),
            Limit::new(Mean, 500.0, 15.0),
            Limit::new(MeanOfReads, 200.0, 10.0),
            Limit::new(MeanOfWrites, 500.0, 20.0),
            Limit::new(P95, 500.0, 25.0),
            Limit::new(FailedShare, 0.01, 0.0),
            Limit::new(PerSecond, 300.0, 310.0),
        ],
        Scenario::Stress => vec![
            Limit::new(SocketsLost, 0.0, 0.0),
            Limit::new(P99, 2_000.0, 50.0),
            Limit::new(FailedShare, 0.05, 0.0),
            Limit::new(PerSecond, 100.0, 600.0),
        ],
        Scenario::Race => vec![
            Limit::new(P99, 5_000.0, 1_000.0),
            Limit::new(FailedShare, 0.0, 0.0),
        ],
        Scenario::Crowd => vec![
            Limit::new(SocketsLost, 0.0, 0.0),
            Limit::new(P95, 500.0, 100.0),
            Limit::new(FrameP99, 1_000.0, 250.0),
            Limit::new(FailedShare, 0.01, 0.0),
            Limit::new(PerSecond, 100.0, 800.0),
        ],
        Scenario::Live => vec![
            Limit::new(SocketsLost, 0.0, 0.0),
            Limit::new(FrameP99, 1_000.0, 250.0),
            Limit::new(FailedShare, 0.01, 0.0),
        ],
        Scenario::Ingest => vec![Limit::new(FreshnessP99, 1_000.0, 100.0)],
        Scenario::Mixed => vec![
            Limit::new(Mean, 88.0, 20.0),
            Limit::new(P99, 348.0, 100.0),
            Limit::new(FailedShare, 0.01, 0.0),
            Limit::new(PerSecond, 141.56, 2_000.0),
        ],
        Scenario::Chaos | Scenario::All | Scenario::Interactive => Vec::new(),
    };
    let always = [
        Limit::new(Unsent, 0.01, 0.001),
        Limit::new(MemoryBack, 128.0, 64.0),
        Limit::new(LatencyBack, 5.0, 2.0),
    ];
    own.into_iter().chain(always).collect()
}
