//! The hub: each change once, in position order, to everybody who listens on this node.
//!
//! What is published is read from the log (see `follow.rs`), so that it makes no difference which
//! node wrote it, and nothing can be missed. Nobody listens: nothing is read. Each listener has a
//! bounded queue; whoever lets it fill up is told and dropped, never waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::Position;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::change::Change;
use super::listening::Listening;
use super::watch::{Viewer, Watched};
use crate::limits::MISSED_MAX;
use crate::problem::Problem;

/// How long somebody who wants to listen waits for the log to be followed.
const START_MAX: Duration = Duration::from_secs(5);

/// One node's hub.
#[derive(Debug)]
pub struct Hub {
    /// Changes that may wait for one listener.
    queue_max: usize,
    state: Mutex<State>,
    numbers: AtomicU64,
    /// Somebody wants to listen, or to know what lies further back.
    pub(super) wanted: Notify,
    /// The hub follows, or knows what lies further back.
    pub(super) moved: Notify,
}

/// What listeners and the follower share.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether the log is followed.
    pub(super) following: bool,
    /// Everything at or below it was published.
    pub(super) position: Position,
    /// Every change above it is in `recent`.
    pub(super) floor: Position,
    /// What lies further back was read, as far as it may be.
    pub(super) filled: bool,
    /// Somebody asks for what lies further back.
    pub(super) fill_wanted: bool,
    /// The latest changes, oldest first: at most [`MISSED_MAX`].
    pub(super) recent: VecDeque<Arc<Change>>,
    pub(super) listeners: HashMap<u64, Listener>,
    /// Since when nobody listens.
    pub(super) idle_since: Option<Instant>,
}

/// One who listens.
#[derive(Debug)]
pub(super) struct Listener {
    viewer: Viewer,
    pub(super) watched: Watched,
    queue: mpsc::Sender<Arc<Change>>,
    too_slow: CancellationToken,
    /// Nothing at or below it is told.
    after: Position,
}

/// What somebody hears who wants to go on from a position.
#[derive(Debug)]
pub enum Joined {
    /// All that was missed is there, and what comes.
    Listening(Listening),
    /// More than [`MISSED_MAX`] changes were missed: start anew.
    TooFarBehind,
}

impl Hub {
    /// Nobody listens yet. So many changes may wait for one listener.
    pub fn new(queue_max: usize) -> Self {
        Self {
            queue_max: queue_max.max(1),
            state: Mutex::default(),
            numbers: AtomicU64::new(0),
            wanted: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Listens from now on.
    pub async fn listen(
        self: &Arc<Self>,
        viewer: &Viewer,
        watched: &Watched,
    ) -> Result<Listening, Problem> {
        self.until(|state| {
            let after = state.position;
            state.following.then(|| self.join(state, viewer, watched, after, VecDeque::new()))
        })
        .await
    }

    /// Listens as if since `since`: what was missed comes first, each change once. All that was
    /// missed up to `head` is there at once.
    pub async fn resume(
        self: &Arc<Self>,
        viewer: &Viewer,
        watched: &Watched,
        since: Position,
        head: Position,
    ) -> Result<Joined, Problem> {
        self.until(|state| {
            if !state.following || state.position < head {
                return None;
            }
            if since < state.floor {
                state.fill_wanted = !state.filled;
                return state.filled.then_some(Joined::TooFarBehind);
            }
            let first = state.recent.partition_point(|change| change.position <= since);
            let wanted = |change: &&Arc<Change>| {
                viewer.told(change).is_some() && watched.has(change.user_no, &change.user_id)
            };
            let missed = state.recent.range(first..).filter(wanted).cloned().collect();
            Some(Joined::Listening(self.join(state, viewer, watched, since, missed)))
        })
        .await
    }

    fn join(
        self: &Arc<Self>,
        state: &mut State,
        viewer: &Viewer,
        watched: &Watched,
        after: Position,
        missed: VecDeque<Arc<Change>>,
    ) -> Listening {
        let (sender, queue) = mpsc::channel(self.queue_max);
        let too_slow = CancellationToken::new();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let listener = Listener {
            viewer: viewer.clone(),
            watched: watched.clone(),
            queue: sender,
            too_slow: too_slow.clone(),
            after,
        };
        state.listeners.insert(number, listener);
        state.idle_since = None;
        metrics::gauge!(super::LISTENERS).increment(1.0);
        Listening::new(Arc::clone(self), number, viewer.clone(), missed, queue, too_slow, after)
    }

    /// Waits until the state has what is looked for, and takes it under the same lock.
    async fn until<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> Result<T, Problem> {
        let wait = async {
            loop {
                let moved = self.moved.notified();
                if let Some(found) = find(&mut self.lock()) {
                    return found;
                }
                self.wanted.notify_one();
                moved.await;
            }
        };
        let late = |_| Problem::unavailable("feed_unavailable", "the log cannot be followed now");
        tokio::time::timeout(START_MAX, wait).await.map_err(late)
    }

    /// Publishes changes, oldest first, all up to `position`.
    pub(super) fn publish(&self, changes: Vec<Arc<Change>>, position: Position) {
        let mut state = self.lock();
        let mut dropped = Vec::new();
        for change in changes {
            for (number, listener) in &state.listeners {
                if !listener.offer(&change) {
                    dropped.push(*number);
                }
            }
            for number in dropped.drain(..) {
                if let Some(slow) = state.listeners.remove(&number) {
                    slow.too_slow.cancel();
                    metrics::gauge!(super::LISTENERS).decrement(1.0);
                    metrics::counter!(super::TOO_SLOW).increment(1);
                }
            }
            state.remember(change);
        }
        let moved = position > state.position;
        state.position = state.position.max(position);
        state.note_idle();
        drop(state);
        if moved {
            self.moved.notify_waiters();
        }
    }

    /// Ends a listener.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.lock();
        if state.listeners.remove(&number).is_some() {
            metrics::gauge!(super::LISTENERS).decrement(1.0);
        }
        state.note_idle();
    }

    /// Changes whom a listener watches.
    pub(super) fn rewatch<T>(
        &self,
        number: u64,
        change: impl FnOnce(&mut Watched) -> T,
    ) -> Option<T> {
        self.lock().listeners.get_mut(&number).map(|listener| change(&mut listener.watched))
    }

    /// Everything at or below it was published on this node.
    pub fn position(&self) -> Position {
        self.lock().position
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.lock().listeners.len()
    }

    /// Ends following if nobody has listened for so long: whoever comes finds either a hub that
    /// follows or one that must begin anew.
    pub(super) fn rest_if_idle(&self, linger: Duration) -> bool {
        let mut state = self.lock();
        let idle = state.idle_since.is_some_and(|since| since.elapsed() >= linger);
        if idle {
            state.following = false;
            state.recent = VecDeque::new();
        }
        idle
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, change: Arc<Change>) {
        self.recent.push_back(change);
        if self.recent.len() > MISSED_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.floor = oldest.position;
            self.filled = true;
        }
    }

    pub(super) fn note_idle(&mut self) {
        if self.listeners.is_empty() {
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }
}

impl Listener {
    /// False: its queue is full.
    fn offer(&self, change: &Arc<Change>) -> bool {
        if change.position <= self.after
            || self.viewer.told(change).is_none()
            || !self.watched.has(change.user_no, &change.user_id)
        {
            return true;
        }
        match self.queue.try_send(Arc::clone(change)) {
            Err(mpsc::error::TrySendError::Full(_)) => false,
            // Who has just left is taken out by itself.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
        }
    }
}
