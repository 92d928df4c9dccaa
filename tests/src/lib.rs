//! What the tests stand on: a private PostgreSQL, a clock that can be moved, nodes, clients.
//!
//! In reading order:
//! - [`cluster`]: one PostgreSQL for a whole run, a database for each test
//! - [`clock`]: the test's time
//! - [`world`]: nodes on one database, from start to [`World::finish`]; [`node`]: one of them
//! - [`client`]: HTTP with a token; [`socket`], [`stream`]: live feeds
//! - [`race`]: watchers by the thousand, of feeds as lean as [`feed`] and [`ws`] have them;
//!   [`size`]: how many
//! - [`browser`]: a headless Chromium; [`line`]: a network that goes silent
//! - [`wait`]: conditions awaited with a bound
//! - [`process`]: the real binary, and what the fault tests do to it
//! - [`invariants`]: what holds of every log at any time; [`fold`]: of every view

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod browser;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod feed;
pub mod fold;
pub mod invariants;
pub mod line;
pub mod node;
pub mod process;
pub mod race;
pub mod size;
pub mod socket;
pub mod stream;
pub mod wait;
pub mod world;
pub mod ws;

pub use client::{Answer, Client, instant};
pub use node::TestNode;
pub use socket::Socket;
pub use stream::EventStream;
pub use wait::{eventually, within};
pub use world::{Options, World};
