//! Webhooks: told signed, in order per user, at least once, whatever the receiver does.

mod crud;
mod delivery;
mod outage;
mod receiver;
mod rules;
mod trouble;
