//! What the tests stand on: servers, a service with everything of its own, and waiting for a point.

pub mod balancer;
pub mod browser;
mod database;
pub mod liar;
pub mod live;
pub mod member;
pub mod messages;
pub mod own;
pub mod process;
pub mod receiver;
pub mod reserved;
mod service;
pub mod stream;
pub mod tls;

use std::time::Duration;

use stockyard::clock::Clock;

pub use database::{TestDatabase, run_on};
pub use service::{Answer, Service, World};
pub use stockyard::load::chaos::way as proxy;

/// Longest a test waits for anything: far beyond what a loaded machine needs.
pub fn deadline() -> Duration {
    Duration::from_mins(if is_long() { 10 } else { 1 })
}

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until `look` finds something; panics with `what` when the deadline has passed.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Clock::system();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            began.elapsed() < deadline(),
            "not within {:?}: {what}",
            deadline()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the long forms of tests were asked for.
pub fn is_long() -> bool {
    variable("STOCKYARD_TEST_LONG").is_some()
}

/// Whether nothing else runs on this machine, so that times mean something: `STOCKYARD_TEST_QUIET=1`.
pub fn is_quiet() -> bool {
    variable("STOCKYARD_TEST_QUIET").is_some()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own settings")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address of a server, or what to do about it.
pub fn server(name: &str) -> String {
    variable(name).unwrap_or_else(|| {
        panic!("{name} is not set: run the tests by `make test`, or under scripts/with-servers.sh")
    })
}

/// A name nobody else uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}
