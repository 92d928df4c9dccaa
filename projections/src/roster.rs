//! Everybody's present in memory: one small entry a user, so that a status costs no query.
//!
//! Filled from one snapshot, then by this node's own appends and, by the tail, from other nodes'.
//! Heartbeats of other nodes do not reach it: an entry of which any lapse *seems* due is asked for
//! in the database before it is shown.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use domain::{Position, Presence, SessionId, Timestamp, UserId, UserNo};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::load::Loaded;

/// A roster that has not heard of the log for so long is not believed.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// One user.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The outside name.
    pub user_id: UserId,
    /// The state as of `position`, with the heartbeats this node knows of.
    pub state: Presence,
    /// The last transition's.
    pub position: Position,
}

/// Everybody ever seen.
#[derive(Debug)]
pub struct Roster {
    users: DashMap<UserNo, Entry>,
    sessions: DashMap<SessionId, UserNo>,
    /// Everything at or below it is in here.
    position: AtomicI64,
    /// No transition above it is in here.
    newest_transition: AtomicI64,
    /// Sessions that somebody wants to see the end of.
    watched: DashMap<SessionId, CancellationToken>,
    moved: Notify,
    heard: Mutex<Option<Instant>>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            users: DashMap::new(),
            sessions: DashMap::new(),
            position: AtomicI64::new(0),
            newest_transition: AtomicI64::new(0),
            watched: DashMap::new(),
            moved: Notify::new(),
            heard: Mutex::new(None),
        }
    }
}

impl Roster {
    /// Reads one entry, under its lock: be brief.
    pub fn read<T>(&self, user: UserNo, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.users.get(&user).map(|entry| look(&entry))
    }

    /// Whether that user has gone invisible, as far as this node knows.
    pub fn is_invisible(&self, user: UserNo) -> bool {
        self.read(user, |entry| entry.state.invisible).unwrap_or_default()
    }

    /// Whose session that is, if it is live as far as this node knows.
    pub fn owner(&self, session: SessionId) -> Option<UserNo> {
        self.sessions.get(&session).map(|user| *user)
    }

    /// Looks at everybody, in no order.
    pub fn each(&self, mut look: impl FnMut(UserNo, &Entry)) {
        for entry in &self.users {
            look(*entry.key(), entry.value());
        }
    }

    /// Live sessions known.
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    /// Users known.
    pub fn users_count(&self) -> usize {
        self.users.len()
    }

    /// Puts a user's state in, unless a later one is there. Heartbeats are kept either way.
    pub fn put(&self, loaded: Loaded) {
        let Loaded { user_no, user_id, mut state, position } = loaded;
        if position == 0 {
            return;
        }
        self.newest_transition.fetch_max(position, Ordering::AcqRel);
        match self.users.entry(user_no) {
            MapEntry::Vacant(vacant) => {
                self.note_sessions(user_no, &Presence::default(), &state);
                vacant.insert(Entry { user_id, state, position });
            }
            MapEntry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                if position < entry.position {
                    keep_heartbeats(&mut entry.state, &state);
                    return;
                }
                keep_heartbeats(&mut state, &entry.state);
                self.note_sessions(user_no, &entry.state, &state);
                entry.state = state;
                entry.position = position;
            }
        }
    }

    /// Whether any transition lies above `position`, as far as this node knows. Heartbeats do not.
    pub fn has_transition_above(&self, position: Position) -> bool {
        self.newest_transition.load(Ordering::Acquire) > position
    }

    /// Is cancelled when the session ends, as far as this node hears of it; at once, if it is not
    /// known to be live. One for each session: a second call answers with the first one's.
    pub fn session_end(&self, session: SessionId) -> CancellationToken {
        let ended = self.watched.entry(session).or_default().clone();
        if self.owner(session).is_none() {
            self.tell_end(session);
        }
        ended
    }

    /// Nobody wants to see the end of that session any longer.
    pub fn forget_session(&self, session: SessionId) {
        self.watched.remove(&session);
    }

    fn tell_end(&self, session: SessionId) {
        if let Some((_, ended)) = self.watched.remove(&session) {
            ended.cancel();
        }
    }

    /// Puts a user's repaired state in, even where an event that never was had made a later one.
    /// `doubted` is the position that was in here before the database was asked: what this node
    /// has appended since then is newer than either.
    pub(crate) fn correct(&self, loaded: Loaded, doubted: Position) {
        let Loaded { user_no, user_id, mut state, position } = loaded;
        let Some(mut entry) = self.users.get_mut(&user_no) else {
            return self.put(Loaded { user_no, user_id, state, position });
        };
        if position == 0 && entry.position == doubted {
            // The log knows no such user.
            self.note_sessions(user_no, &entry.state, &Presence::default());
            drop(entry);
            self.users.remove_if(&user_no, |_, entry| entry.position == doubted);
        } else if entry.position == doubted || position >= entry.position {
            keep_heartbeats(&mut state, &entry.state);
            self.note_sessions(user_no, &entry.state, &state);
            (entry.state, entry.position) = (state, position);
        }
    }

    /// Notes an accepted heartbeat.
    pub fn beat(
        &self,
        user: UserNo,
        session: SessionId,
        at: Timestamp,
        idle_ms: u32,
        lease_ms: u32,
    ) {
        if let Some(mut entry) = self.users.get_mut(&user)
            && let Some(live) = entry.state.sessions.iter_mut().find(|live| live.id == session)
        {
            live.beat(at, idle_ms);
            live.lease_ms = lease_ms;
        }
    }

    /// Everything at or below `head` is in here now.
    pub fn advance(&self, head: Position) {
        *self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(Instant::now());
        if self.position.fetch_max(head, Ordering::AcqRel) < head {
            self.moved.notify_waiters();
        }
    }

    /// Everything at or below it is in here.
    pub fn position(&self) -> Position {
        self.position.load(Ordering::Acquire)
    }

    /// Waits until everything at or below `position` is in here. The caller bounds it.
    pub async fn reached(&self, position: Position) {
        loop {
            let moved = self.moved.notified();
            if self.position() >= position {
                return;
            }
            moved.await;
        }
    }

    /// How long ago this node last heard of the log; none: never.
    pub fn heard_ago(&self) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        heard.map(|at| at.elapsed())
    }

    /// Whether the roster may be believed.
    pub fn is_fresh(&self) -> bool {
        self.heard_ago().is_some_and(|ago| ago <= STALE_AFTER)
    }

    fn note_sessions(&self, user: UserNo, before: &Presence, after: &Presence) {
        for gone in before.sessions.iter().filter(|old| after.session(old.id).is_none()) {
            self.sessions.remove(&gone.id);
            self.tell_end(gone.id);
        }
        for new in after.sessions.iter().filter(|new| before.session(new.id).is_none()) {
            self.sessions.insert(new.id, user);
        }
    }
}

/// A state read a moment ago may lack a heartbeat that was acknowledged since.
fn keep_heartbeats(state: &mut Presence, known: &Presence) {
    for live in &mut state.sessions {
        if let Some(other) = known.session(live.id)
            && other.last_seen > live.last_seen
        {
            live.last_seen = other.last_seen;
            live.idle_ms = other.idle_ms;
            live.lease_ms = other.lease_ms;
        }
    }
}
