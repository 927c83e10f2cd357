//! Stockyard knows, at every moment, what stands in which warehouse.
//!
//! The modules stand on floors, and imports only point down (`tests/it/architecture.rs` checks it). In reading order:
//!
//! - floor 0, which knows nothing of the rest: [`domain`], [`config`], [`metrics`], [`clock`]
//! - floor 1, one technology each: [`event`] (the wire format), [`store`] (`PostgreSQL`), [`cache`], [`kafka`]
//! - floor 2, the use cases: [`inventory`]
//! - floor 3, which turns the outside world into calls: [`ingest`], [`http`], [`produce`]
//! - floor 4, which puts it together: [`cli`], [`app`], [`telemetry`]
//!
//! `ARCHITECTURE.md` tells the ideas, and how one fact and one request travel.

pub mod domain;

pub mod clock;
pub mod config;
pub mod metrics;

pub mod cache;
pub mod event;
pub mod kafka;
pub mod store;

pub mod inventory;

pub mod http;
pub mod ingest;
pub mod produce;

pub mod app;
pub mod cli;
pub mod telemetry;
