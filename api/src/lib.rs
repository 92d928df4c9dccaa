//! Rollcall's server: HTTP, tokens, sweeper, command line.
//!
//! *Absent here, on purpose:* rules (they are in `domain`) and SQL (it is in `projections`).
//!
//! In reading order:
//! - [`config`]: the command line; [`cli`]: what its commands do
//! - [`node`]: one node from start to a clean end; [`sweeper`]: what time does, recorded
//! - [`routes`]: which path leads where; [`app`]: what handlers get; [`shapes`]: what they answer
//! - [`viewer`]: whom a caller may see
//! - [`presence`], [`live`], [`ops`], [`import`]: the handlers
//! - [`compare`]: where a system that is being replaced says otherwise
//! - [`compat`]: the same for the clients of the systems that Rollcall replaces
//! - [`live`]: long polls, streams and WebSockets
//! - [`analytics`]: people in numbers; [`formats`]: the files that answers may be
//! - [`auth`], [`limits`], [`extract`], [`problem`]: who may, how much, and how it is refused
//! - [`serve`], [`layers`], [`telemetry`]: the listener, what surrounds every route, logs, metrics
//! - [`embedded`]: the private PostgreSQL

pub mod analytics;
pub mod app;
pub mod auth;
pub mod cli;
pub mod compare;
pub mod compat;
pub mod config;
pub mod embedded;
pub mod extract;
pub mod formats;
pub mod import;
pub mod layers;
pub mod limits;
pub mod live;
pub mod node;
pub mod ops;
pub mod presence;
pub mod problem;
pub mod routes;
pub mod serve;
pub mod shapes;
pub mod sweeper;
pub mod telemetry;
pub mod viewer;
