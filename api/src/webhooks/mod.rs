//! Webhooks: transitions told to others' servers by the rules of Standard Webhooks
//! (<https://www.standardwebhooks.com>).
//!
//! - [`address`]: which addresses may be called at all
//! - [`schedule`]: when a failed attempt is repeated
//! - [`sender`]: one attempt, signed and bounded
//! - [`desk`]: what a courier is at, and which endpoints it could not reach
//! - [`courier`]: reads the log for every endpoint and has it told, in order per user

pub mod address;
pub mod courier;
pub mod desk;
pub mod schedule;
pub mod sender;
