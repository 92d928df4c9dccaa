//! What the tests stand on: a private PostgreSQL, a clock that can be moved, nodes, clients.
//!
//! In reading order:
//! - [`cluster`]: one PostgreSQL for a whole run, a database for each test
//! - [`clock`]: the test's time
//! - [`world`]: nodes on one database, from start to [`World::finish`]; [`node`]: one of them
//! - [`client`]: HTTP with a token; [`socket`], [`stream`]: live feeds
//! - [`wait`]: conditions awaited with a bound
//! - [`process`]: the real binary, and what the fault tests do to it
//! - [`invariants`]: what holds of every log at any time; [`fold`]: of every view

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod client;
pub mod clock;
pub mod cluster;
pub mod fold;
pub mod invariants;
pub mod node;
pub mod process;
pub mod socket;
pub mod stream;
pub mod wait;
pub mod world;

pub use client::{Answer, Client, instant};
pub use node::TestNode;
pub use socket::Socket;
pub use stream::EventStream;
pub use wait::{eventually, within};
pub use world::{Options, World};
