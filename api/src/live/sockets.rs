//! The WebSockets of this node by session: a second one takes it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use domain::SessionId;
use tokio_util::sync::CancellationToken;

/// The WebSockets of one node.
#[derive(Debug, Default)]
pub struct Sockets {
    by_session: DashMap<SessionId, (u64, CancellationToken)>,
    numbers: AtomicU64,
}

/// A WebSocket's own end of it. Dropped, it is taken out.
#[derive(Debug)]
pub struct Attached {
    sockets: Arc<Sockets>,
    number: u64,
    session: SessionId,
    /// Is cancelled when another WebSocket takes the session over.
    pub superseded: CancellationToken,
}

impl Sockets {
    /// Takes a WebSocket in, which has the session from now on.
    pub fn attach(self: &Arc<Self>, session: SessionId) -> Attached {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        if let Some((_, before)) = self.by_session.insert(session, (number, superseded.clone())) {
            before.cancel();
        }
        Attached { sockets: Arc::clone(self), number, session, superseded }
    }
}

impl Attached {
    /// Whether this WebSocket still has its session.
    pub fn has_session(&self) -> bool {
        let holder = self.sockets.by_session.get(&self.session);
        holder.is_some_and(|holder| holder.0 == self.number)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.sockets.by_session.remove_if(&self.session, |_, (number, _)| *number == self.number);
    }
}
