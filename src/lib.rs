//! Stockyard knows, at every moment, what stands in which warehouse.
//!
//! The modules stand on floors, and imports only point down (`tests/it/architecture.rs` checks it). In reading order:
//!
//! - floor 0, which knows nothing of the rest: [`domain`], [`config`], [`metrics`], [`clock`], [`tls`]
//! - floor 1, one technology each: [`event`] (the wire format), [`store`] (`PostgreSQL`), [`cache`], [`kafka`], [`traces`] (`OpenTelemetry`)
//! - floor 2, the use cases: [`inventory`]; who may use them: [`access`]
//! - floor 3, commits in, frames out: [`live`]
//! - floor 4, which turns the outside world into calls: [`ingest`], [`http`], [`produce`], [`dead_letters`], [`demo`]
//! - floor 5, which puts the service to the test: [`load`]
//! - floor 6, which puts it together: [`cli`], [`app`], [`telemetry`]
//!
//! `ARCHITECTURE.md` tells the ideas, and how one fact and one request travel.

/// A named point at which a test may end the process, as `kill -9` would: `FAILPOINTS="after_commit=12*off->return"` ends it
/// there the thirteenth time. It is nothing in a build that is not for tests.
macro_rules! crash_point {
    ($name:literal) => {
        fail::fail_point!($name, |_| std::process::abort());
    };
}

pub mod domain;

pub mod clock;
pub mod config;
pub mod metrics;
pub mod tls;

pub mod cache;
pub mod event;
pub mod kafka;
pub mod store;
pub mod traces;

pub mod access;
pub mod inventory;

pub mod live;

pub mod dead_letters;
pub mod demo;
pub mod http;
pub mod ingest;
pub mod produce;

pub mod load;

pub mod app;
pub mod cli;
pub mod telemetry;
