//! Which of this node's connections has a session: a later one takes it over, here or elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use domain::{Position, SessionId};
use tokio_util::sync::CancellationToken;

/// The connections of one node, by session.
#[derive(Debug, Default)]
pub struct Holders {
    by_session: DashMap<SessionId, Held>,
    numbers: AtomicU64,
}

#[derive(Debug)]
struct Held {
    number: u64,
    since: Position,
    superseded: CancellationToken,
}

/// A connection's own end of it. Dropped, it is taken out.
#[derive(Debug)]
pub struct Holder {
    holders: Arc<Holders>,
    number: u64,
    session: SessionId,
    /// Is cancelled when another connection takes the session over.
    pub superseded: CancellationToken,
}

impl Holders {
    /// Takes a connection in, which has the session since the event at that position.
    pub fn take(self: &Arc<Self>, session: SessionId, since: Position) -> Holder {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        let held = Held { number, since, superseded: superseded.clone() };
        if let Some(before) = self.by_session.insert(session, held) {
            before.superseded.cancel();
        }
        Holder { holders: Arc::clone(self), number, session, superseded }
    }

    /// The log says that the session was resumed: whoever has had it since before has it no more.
    pub(crate) fn resumed(&self, session: SessionId, position: Position) {
        let held = self.by_session.get(&session);
        if let Some(held) = held.filter(|held| held.since < position) {
            held.superseded.cancel();
        }
    }
}

impl Holder {
    /// Whether this connection still has its session, as far as this node has heard.
    pub fn has_session(&self) -> bool {
        !self.superseded.is_cancelled()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.holders.by_session.remove_if(&self.session, |_, held| held.number == self.number);
    }
}
