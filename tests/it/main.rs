//! Whole-service tests: one binary, real Kafka, `PostgreSQL` and Redis, whose addresses `scripts/with-servers.sh` gives.
//!
//! Each test has a database, a topic, a group and a key prefix of its own. Nothing sleeps for luck: what is to come is
//! awaited with a deadline (`support::eventually`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails panics"
)]
#![expect(clippy::print_stderr, reason = "figures, for whoever looks")]
#![expect(clippy::too_many_lines, reason = "a test is a story")]
#![expect(unreachable_pub, reason = "a binary of tests has no outside")]

mod support;

mod aborted;
mod access;
mod adjustments;
mod alerts;
mod answers;
mod architecture;
mod at_a_time;
mod at_risk;
mod bad_commands;
mod bad_messages;
mod cache_rule;
mod catalogue;
mod commands;
mod contention;
mod crashes;
mod dashboard;
mod dead_letter_tools;
mod decoder;
mod demo;
mod due;
mod following;
mod frozen_writer;
mod full_disk;
mod generator;
mod groups;
mod held_up;
mod hostile;
mod inventory;
mod kafka_away;
mod last_items;
mod leaving;
mod limits;
mod live;
mod load;
mod lost_commits;
mod memory;
mod names;
mod once;
mod operations;
mod order;
mod orders;
mod pages;
mod poison;
mod positions;
mod postgres_away;
mod problems;
mod readers;
mod rebuild;
mod redis_away;
mod redis_faults;
mod reservations;
mod restored;
mod rolling;
mod samples;
mod schema;
mod secrets;
mod servers_away;
mod tls;
mod together;
mod traces;
mod transit;
mod verifier;
mod voids;
mod watching;
