//! The rules, as sentences: given what happened, when somebody asks or time passes, then what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod given;

mod claims;
mod decision;
mod framework;
mod golden;
mod guards;
mod heartbeats;
mod imports;
mod interaction;
mod properties;
mod sessions;
mod settling;
mod shown;
mod status;
mod what_if;
