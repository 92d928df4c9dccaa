//! What a courier is at, and what it knows of endpoints from its own attempts.

use std::collections::HashMap;
use std::time::Duration;

use projections::deliveries::{Attempted, Then, UNREACHABLE};
use projections::webhooks::Registered;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

/// Attempts under way at one endpoint from one node.
pub const AT_ONCE_MAX: usize = 16;
/// How long an endpoint has to be reached without fail before it counts as back: one that comes and
/// goes is not asked for all that waits each time.
const SETTLES: Duration = Duration::from_secs(1);

/// What an attempt says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// It took what it was told.
    Takes,
    /// It cannot be connected to.
    Away,
    /// Anything else.
    Unclear,
}

impl Reached {
    pub(super) fn by(attempted: &Attempted) -> Self {
        if attempted.then == Then::Delivered {
            Self::Takes
        } else if attempted.error.as_deref() == Some(UNREACHABLE) {
            Self::Away
        } else {
            Self::Unclear
        }
    }
}

/// What it is at.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) sending: JoinSet<Reached>,
    pub(super) to: HashMap<Id, Uuid>,
    pub(super) endpoints: HashMap<Uuid, Registered>,
    pub(super) rests_until: HashMap<Uuid, Instant>,
    /// Those that could not be connected to, and when that was last so.
    pub(super) away: HashMap<Uuid, Instant>,
}

impl Desk {
    pub(super) fn free_for(&self, webhook: Uuid) -> usize {
        AT_ONCE_MAX.saturating_sub(self.to.values().filter(|to| **to == webhook).count())
    }

    /// Whether an endpoint that was away is back, and those who wait for it shall be woken.
    pub(super) fn is_back(&mut self, webhook: Uuid, reached: Reached) -> bool {
        match reached {
            Reached::Away => {
                self.away.insert(webhook, Instant::now());
                false
            }
            Reached::Takes => self.away.get(&webhook).is_some_and(|last| last.elapsed() >= SETTLES),
            Reached::Unclear => false,
        }
    }
}
