//! Black-box tests: every call of the contract over real HTTP and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod faults;
mod harness;
mod sessions;
mod tidy;
