//! The receiving end of one who listens to the hub.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use domain::{Position, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::change::{Change, Told};
use super::hub::Hub;
use super::watch::{Viewer, Watched};

/// One who listens. Dropped, it leaves the hub.
#[derive(Debug)]
pub struct Listening {
    hub: Arc<Hub>,
    number: u64,
    viewer: Viewer,
    missed: VecDeque<Arc<Change>>,
    queue: mpsc::Receiver<Arc<Change>>,
    too_slow: CancellationToken,
    gates: Vec<Gate>,
    /// The latest position up to which everything was taken out.
    taken: Position,
}

/// A snapshot that has told already what changes up to its position say.
#[derive(Debug)]
struct Gate {
    position: Position,
    /// Of whom; none: of everybody.
    users: Option<HashSet<UserId>>,
}

/// A change that this listener is to be told, and what it is told.
#[derive(Debug)]
pub struct Heard {
    /// Its place in the log.
    pub position: Position,
    /// What is told.
    pub told: Told,
}

impl Listening {
    pub(super) fn new(
        hub: Arc<Hub>,
        number: u64,
        viewer: Viewer,
        missed: VecDeque<Arc<Change>>,
        queue: mpsc::Receiver<Arc<Change>>,
        too_slow: CancellationToken,
        taken: Position,
    ) -> Self {
        Self { hub, number, viewer, missed, queue, too_slow, gates: Vec::new(), taken }
    }

    /// The next change; none, once the hub has dropped this listener and all is taken out. Nothing
    /// is lost if the call is given up.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            let change = match self.missed.pop_front() {
                Some(change) => change,
                None => self.queue.recv().await?,
            };
            if let Some(heard) = self.take(&change) {
                return Some(heard);
            }
        }
    }

    /// The next change, if it is there.
    pub fn try_next(&mut self) -> Option<Heard> {
        loop {
            let change = self.missed.pop_front().or_else(|| self.queue.try_recv().ok())?;
            if let Some(heard) = self.take(&change) {
                return Some(heard);
            }
        }
    }

    fn take(&mut self, change: &Change) -> Option<Heard> {
        let position = change.position;
        self.taken = self.taken.max(position);
        self.gates.retain(|gate| gate.position >= position);
        let told_before = self
            .gates
            .iter()
            .any(|gate| gate.users.as_ref().is_none_or(|users| users.contains(&change.user_id)));
        let told = self.viewer.told(change).filter(|_| !told_before)?.clone();
        Some(Heard { position, told })
    }

    /// Everything at or below it that concerns this listener was taken out.
    pub fn position(&mut self) -> Position {
        let state = self.hub.lock();
        // Under the lock: whatever is published later lies above the hub's position.
        if self.missed.is_empty() && self.queue.is_empty() {
            self.taken = self.taken.max(state.position);
        }
        self.taken
    }

    /// A snapshot as of that position has told of these users (none: of everybody).
    pub fn told_up_to(&mut self, position: Position, users: Option<HashSet<UserId>>) {
        self.gates.push(Gate { position, users });
    }

    /// Is cancelled when the queue overflowed and the hub has dropped this listener.
    pub fn too_slow(&self) -> &CancellationToken {
        &self.too_slow
    }

    /// Changes whom this listener watches, from here on; none: the hub has dropped it.
    pub fn rewatch<T>(&self, change: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        self.hub.rewatch(self.number, change)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hub.leave(self.number);
    }
}
