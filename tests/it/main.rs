//! Black-box tests: every call of the contract over real HTTP and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod auth;
mod bad_input;
mod browser;
mod bulk;
mod claims;
mod compat_chat;
mod compat_examples;
mod compat_login;
mod compat_planner;
mod compat_polling;
mod compat_races;
mod expiry;
mod faults;
mod groups;
mod guards;
mod harness;
mod heartbeats;
mod import;
mod live_changes;
mod live_hidden;
mod live_race;
mod live_session;
mod live_socket;
mod live_stream;
mod messages;
mod operations;
mod policy;
mod replay;
mod sessions;
mod spans;
mod statuses;
mod tidy;
mod traps_append;
mod traps_lab;
mod traps_lapses;
mod traps_leaves;
mod traps_mail;
mod traps_plans;
mod traps_race;
mod traps_rights;
mod traps_time;
mod traps_writing;
mod views;
mod visibility;
