//! The WebSockets of this node: by user, for what is meant for one, and by session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::Utf8Bytes;
use dashmap::DashMap;
use domain::{SessionId, UserNo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits::DELIVERIES_MAX;

/// The WebSockets of one node.
#[derive(Debug, Default)]
pub struct Sockets {
    by_user: DashMap<UserNo, Vec<Handle>>,
    /// Which WebSocket has a session now: a second one takes it over.
    by_session: DashMap<SessionId, (u64, CancellationToken)>,
    numbers: AtomicU64,
}

#[derive(Debug)]
struct Handle {
    number: u64,
    frames: mpsc::Sender<Utf8Bytes>,
    too_slow: CancellationToken,
}

/// A WebSocket's own end of it. Dropped, it is taken out.
#[derive(Debug)]
pub struct Attached {
    sockets: Arc<Sockets>,
    number: u64,
    user: UserNo,
    session: SessionId,
    /// Frames to be sent on.
    pub frames: mpsc::Receiver<Utf8Bytes>,
    /// Is cancelled when they overflow.
    pub too_slow: CancellationToken,
    /// Is cancelled when another WebSocket takes the session over.
    pub superseded: CancellationToken,
}

impl Sockets {
    /// Takes a WebSocket in, which has the session from now on.
    pub fn attach(self: &Arc<Self>, user: UserNo, session: SessionId) -> Attached {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, frames) = mpsc::channel(DELIVERIES_MAX);
        let (too_slow, superseded) = (CancellationToken::new(), CancellationToken::new());
        let handle = Handle { number, frames: sender, too_slow: too_slow.clone() };
        self.by_user.entry(user).or_default().push(handle);
        if let Some((_, before)) = self.by_session.insert(session, (number, superseded.clone())) {
            before.cancel();
        }
        let sockets = Arc::clone(self);
        Attached { sockets, number, user, session, frames, too_slow, superseded }
    }

    /// Sends a frame to every WebSocket of that user on this node; to how many. One that does not
    /// read is told so and closed, never waited for.
    pub fn deliver(&self, user: UserNo, frame: &Utf8Bytes) -> usize {
        let Some(handles) = self.by_user.get(&user) else { return 0 };
        let sent = |handle: &&Handle| match handle.frames.try_send(frame.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                handle.too_slow.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        };
        handles.iter().filter(sent).count()
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
        if let Some(mut handles) = self.sockets.by_user.get_mut(&self.user) {
            handles.retain(|handle| handle.number != self.number);
        }
        self.sockets.by_user.remove_if(&self.user, |_, handles| handles.is_empty());
    }
}
