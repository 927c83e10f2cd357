//! Users: how many there are, how they come, and when each takes a step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use tokio::task::{JoinError, JoinSet};

use super::{
    invariants::Invariant,
    pace::{Due, Schedule},
    run::Run,
};

/// Somebody who makes requests.
pub(super) trait User: Send + 'static {
    /// One request, due then.
    fn step(&mut self, due: Duration) -> impl Future<Output = ()> + Send;
}

/// When users take their steps.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The closed model: each thinks after an answer, for a time between the two.
    pub think: (Duration, Duration),
    /// The open model, while something is due: requests have set times, and users are whoever is free.
    pub schedule: Arc<Schedule>,
}

impl Model {
    pub(super) fn closed(think: (Duration, Duration)) -> Self {
        Self {
            think,
            schedule: Arc::new(Schedule::new(0.0, Duration::ZERO)),
        }
    }

    /// Users think as well once nothing has a set time any more.
    pub(super) fn open(per_second: f64, from: Duration, think: (Duration, Duration)) -> Self {
        Self {
            think,
            schedule: Arc::new(Schedule::new(per_second, from)),
        }
    }
}

/// How many users there are to be. May be changed while they work.
#[derive(Debug)]
pub(super) struct Crowd {
    wanted: AtomicUsize,
    /// New users a second, in thousandths.
    spawn_rate: AtomicU64,
}

/// How often the number of users is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Crowd {
    pub(super) fn new(wanted: usize, spawn_rate: f64) -> Self {
        let crowd = Self {
            wanted: AtomicUsize::new(wanted),
            spawn_rate: AtomicU64::new(0),
        };
        crowd.set_spawn_rate(spawn_rate);
        crowd
    }

    pub(super) fn want(&self, users: usize) {
        self.wanted.store(users, Ordering::Relaxed);
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
    pub(super) fn spawn_rate(&self) -> f64 {
        self.spawn_rate.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are positive and far below 2^63"
    )]
    pub(super) fn set_spawn_rate(&self, per_second: f64) {
        let thousandths = (per_second.max(0.001) * 1_000.0).round() as u64;
        self.spawn_rate.store(thousandths, Ordering::Relaxed);
    }

    /// Lets users come, go and work until the run is over and each has ended his last step; `count` is told how many there are.
    pub(super) async fn work<U: User>(
        self: Arc<Self>,
        run: Arc<Run>,
        model: Model,
        mut make: impl FnMut(usize) -> U,
        count: impl Fn(usize),
    ) {
        let mut users = JoinSet::new();
        let (mut there, mut owed, mut last) = (0, 0.0, run.clock.elapsed());
        // Whoever comes later is somebody else, also on the place of one who left.
        let mut ids = 0..;
        while !run.is_over() {
            let now = run.clock.elapsed();
            owed += self.spawn_rate() * now.saturating_sub(last).as_secs_f64();
            last = now;
            let wanted = self.wanted();
            // Who is too many leaves by himself.
            there = there.min(wanted);
            while there < wanted && owed >= 1.0 {
                owed -= 1.0;
                let working = Arc::clone(&self).one(
                    there,
                    Arc::clone(&run),
                    model.clone(),
                    make(ids.next().unwrap_or(there)),
                );
                users.spawn(working);
                there += 1;
            }
            if there >= wanted {
                owed = 0.0;
            }
            count(there);
            while let Some(ended) = users.try_join_next() {
                has_ended(&run, ended);
            }
            if !run.sleep_until(now + LOOK_EVERY).await {
                break;
            }
        }
        while let Some(ended) = users.join_next().await {
            has_ended(&run, ended);
        }
        count(0);
    }

    async fn one<U: User>(
        self: Arc<Self>,
        number: usize,
        run: Arc<Run>,
        model: Model,
        mut user: U,
    ) {
        // Thinking is not among the choices that a seed repeats: how many steps there are depends on the service.
        while number < self.wanted() && !run.is_over() {
            match model.schedule.take(run.clock.elapsed()) {
                Due::At(due) => {
                    if !run.sleep_until(due).await {
                        return;
                    }
                    user.step(due).await;
                }
                Due::LookAgain(_) => {
                    user.step(run.clock.elapsed()).await;
                    let (least, most) = model.think;
                    let rest = if most > least {
                        rand::rng().random_range(least..most)
                    } else {
                        least
                    };
                    if !run.sleep_until(run.clock.elapsed() + rest).await {
                        return;
                    }
                }
            }
        }
    }
}

/// One whose task broke leaves an account that is not kept to its end.
fn has_ended(run: &Run, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        let why = format!("a user of the load test itself: {error}");
        run.oracle.findings.broken(Invariant::CommandsOnce, why);
    }
}
