//! Load tests against a live service, with an account of everything that was done: a run proves what the service promises while it
//! measures how fast it is.
//!
//! A run makes products and publishes movements of its own, so it may share the service with others; it changes nothing else.
//! Users are tasks with one connection each (`users`); requests are due at set times or follow an answer (`pace`); every
//! answer is counted (`figures`) and judged by the account (`oracle`), every frame by the ones before it (`picture`). When
//! the load is over everything is waited for and compared (`settle`). What is asked of the service is what any client could
//! ask; the database is read only to prove that the ledger is what the levels say, and only where its address is known.

mod baseline;
mod catalogue;
pub mod chaos;
mod client;
mod figures;
mod freshness;
mod hosts;
mod invariants;
mod levels;
mod monitor;
mod movements;
mod operations;
mod oracle;
mod outcome;
mod pace;
mod page;
mod picture;
mod race;
mod readers;
mod report;
mod run;
mod scenario;
mod service;
mod settle;
mod shop;
mod sockets;
mod stages;
mod thresholds;
mod users;
mod writers;

use std::{path::PathBuf, time::Duration};

use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock, config::Config, dead_letters::DeadLettersError, domain::Timestamp, store::Store,
};
pub use hosts::Hosts;
pub use invariants::{Finding, Invariant};
pub use outcome::Outcome;
pub use report::{charts, machine::host, summary};
pub use scenario::{Profile, Scenario};
pub use thresholds::{Threshold, Verdict};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("nothing ready answers at {0}")]
    NotReady(String),
    #[error("before the load: {0}")]
    Prepare(String),
    #[error("after the load: {0}")]
    Settle(String),
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("dead letters: {0}")]
    DeadLetters(#[from] DeadLettersError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("report: {0}")]
    Report(String),
}

/// What to run, above what the scenario says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub users: Option<usize>,
    pub spawn_rate: Option<f64>,
    pub run_time: Option<Duration>,
    pub rate: Option<f64>,
    pub seed: u64,
    /// No progress on the terminal, and no page.
    pub is_quiet: bool,
    /// Where the page listens; `None`: 8089.
    pub page_port: Option<u16>,
    /// Ends the load when it is cancelled; what was done until then is compared and reported.
    pub interrupt: CancellationToken,
    /// Where reports go.
    pub folder: PathBuf,
    /// Longest nothing may come nearer at the end before what differs is called wrong.
    pub patience: Option<Duration>,
    /// An earlier run's CSV to compare with; `None`: the newest of this scenario in the folder.
    pub earlier: Option<PathBuf>,
}

/// What is tested.
pub struct Target<'t> {
    /// One service or more over one database.
    pub hosts: Hosts,
    /// Where its Kafka is, and what its topics are called.
    pub config: &'t Config,
    /// Its database, where that can be reached.
    pub store: Option<Store>,
    /// Where its servers are the test's own, to be broken meanwhile.
    pub stack: Option<&'t chaos::Stack>,
}

/// A run that is over, and where its report is.
#[derive(Debug)]
pub struct Reported {
    pub outcome: Outcome,
    pub html: PathBuf,
}

/// Runs one scenario, and writes its reports.
pub async fn run(
    target: &Target<'_>,
    mut profile: Profile,
    options: &Options,
) -> Result<Reported, LoadError> {
    change(&mut profile, options)?;
    let began_at = Timestamp::from_micros(Clock::system().unix_micros());
    let earlier = report::earlier(options, profile.scenario)?;
    let paths = report::paths(&options.folder, profile.scenario.name(), began_at)?;
    let outcome = stages::run(target, &profile, options, began_at, &paths.log).await?;
    report::write(&outcome, earlier.as_ref(), &paths)?;
    Ok(Reported {
        outcome,
        html: paths.html,
    })
}

/// What the command line says goes above what the scenario says.
fn change(profile: &mut Profile, options: &Options) -> Result<(), LoadError> {
    let wants_other = options.users.is_some()
        || options.spawn_rate.is_some()
        || options.run_time.is_some()
        || options.rate.is_some();
    if profile.scenario == Scenario::Race && wants_other {
        let why = "race has rounds of its own: users, rates and times are not to be set";
        return Err(LoadError::Prepare(why.to_owned()));
    }
    if let Some(users) = options.users {
        for stage in &mut profile.stages {
            stage.users = users;
        }
    }
    if let Some(rate) = options.spawn_rate {
        profile.spawn_rate = rate;
    }
    if let Some(time) = options.run_time {
        profile.last(time);
    }
    if let Some(rate) = options.rate {
        profile.at_rate(rate);
    }
    Ok(())
}
