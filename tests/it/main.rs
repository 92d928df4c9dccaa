//! Black-box tests: every call of the contract over real HTTP and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod alerts;
mod auth;
mod bad_input;
mod bulk;
mod claims;
mod doctor;
mod expiry;
mod faults;
mod guards;
mod harness;
mod health;
mod health_system;
mod heartbeats;
mod import;
mod operations;
mod policy;
mod replay;
mod retention;
mod sessions;
mod statuses;
mod tidy;
mod traps_append;
mod traps_lab;
mod traps_lapses;
mod traps_leaves;
mod traps_plans;
mod traps_race;
mod traps_rights;
mod traps_time;
mod traps_writing;
