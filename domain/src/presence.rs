//! One user's state: the fold of that user's events.

use serde::{Deserialize, Serialize};

use crate::event::{Body, Event};
use crate::{DeviceKind, SessionId, Source, Status, Timestamp, rules};

/// Most live sessions of one user.
pub const SESSIONS_MAX: usize = 64;
/// Most claims of one user.
pub const CLAIMS_MAX: usize = 64;

/// One live session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// What it runs on.
    pub kind: DeviceKind,
    /// The login.
    pub opened_at: Timestamp,
    /// The latest accepted heartbeat, or the login.
    pub last_seen: Timestamp,
    /// How long the person had been idle at `last_seen`.
    pub idle_ms: u32,
    /// How long it lives after `last_seen`: what its client was last told.
    pub lease_ms: u32,
    /// As recorded: active, or idle.
    pub active: bool,
    /// Set for an interaction-driven session: idle this long after `last_seen`.
    pub away_after_ms: Option<u32>,
}

/// A status asserted by a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Who asserts.
    pub source: Source,
    /// What.
    pub status: Status,
    /// Counts only while a session is active.
    #[serde(default)]
    pub while_active: bool,
    /// When it ends by itself.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// What the source says about it. Never in the log.
    #[serde(default)]
    pub text: Option<String>,
}

/// What others are shown instead of the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Veil {
    /// The `last_seen` that they had been shown before.
    pub last_seen: Option<Timestamp>,
}

/// What was taken over from elsewhere, apart from the present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// The latest imported event.
    pub until: Timestamp,
    /// Imported sessions not ended yet, each with its latest imported event.
    pub open: Vec<(SessionId, Timestamp)>,
}

/// One user's state. `Default` is a user never seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Count of transitions.
    pub sequence: i64,
    /// Live sessions, oldest first. At most [`SESSIONS_MAX`].
    pub sessions: Vec<Session>,
    /// Claims not taken back. At most [`CLAIMS_MAX`].
    pub claims: Vec<Claim>,
    /// Others are shown `offline`.
    pub invisible: bool,
    /// The effective status.
    pub status: Status,
    /// When it began.
    pub since: Timestamp,
    /// When the status that others are shown began.
    pub shown_since: Timestamp,
    /// What others are shown as `last_seen` since the user went invisible. It stays after the
    /// return until a session lives that others may see: else the return would tell of one that
    /// they may not.
    pub veil: Option<Veil>,
    /// Latest login or heartbeat as of the last transition; live sessions may know a later one.
    pub last_seen: Option<Timestamp>,
    /// Latest `last_seen - idle_ms`, likewise.
    pub last_activity: Option<Timestamp>,
    /// The first transition of our own (not imported).
    pub own_since: Option<Timestamp>,
    /// The latest transition of our own.
    pub changed_at: Option<Timestamp>,
    /// History from elsewhere.
    pub imported: Option<Box<Imported>>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            sequence: 0,
            sessions: Vec::new(),
            claims: Vec::new(),
            invisible: false,
            status: Status::Offline,
            since: Timestamp::UNIX_EPOCH,
            shown_since: Timestamp::UNIX_EPOCH,
            veil: None,
            last_seen: None,
            last_activity: None,
            own_since: None,
            changed_at: None,
            imported: None,
        }
    }
}

impl Session {
    /// Records a sign of life at `at`. Out of order, the later one stands.
    pub fn beat(&mut self, at: Timestamp, idle_ms: u32) {
        if at >= self.last_seen {
            self.last_seen = at;
            self.idle_ms = idle_ms;
        }
    }

    /// When the person last did something.
    pub fn last_activity(&self) -> Timestamp {
        self.last_seen - chrono::TimeDelta::milliseconds(self.idle_ms.into())
    }
}

impl Presence {
    /// The live session of that name.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    /// The claim of that source.
    pub fn claim(&self, source: &Source) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.source == *source)
    }

    /// Whether any event of this user was ever recorded.
    pub const fn seen(&self) -> bool {
        self.sequence > 0
    }

    /// The status that others are shown.
    pub const fn shown_status(&self) -> Status {
        if self.invisible { Status::Offline } else { self.status }
    }

    /// Folds one event in. Total: any event applies to any state, so that a log can always be read.
    pub fn apply(&mut self, event: &Event) {
        let at = event.at;
        if event.body.imported() {
            self.sequence += i64::from(event.body.is_transition());
            self.apply_imported(at, &event.body);
            return;
        }
        if !event.body.is_transition() {
            self.apply_body(at, &event.body);
            return;
        }
        self.sequence += 1;
        let (status, shown) = (self.status, self.shown_status());
        // Before, so that it outlasts a session that this event ends. `append` does the same.
        self.note_last_seen();
        self.apply_body(at, &event.body);
        if matches!(event.body, Body::SessionResumed { .. }) {
            // A sign of life itself, which `append` has taken in by then.
            self.note_last_seen();
        }
        self.status = rules::status(self).0;
        let first = self.own_since.is_none();
        if self.status != status || first {
            self.since = at;
        }
        if self.shown_status() != shown || first {
            self.shown_since = at;
        }
        self.own_since.get_or_insert(at);
        self.changed_at = Some(at);
    }

    /// The latest sign of life of all sessions, the live ones included.
    pub fn latest_seen(&self) -> Option<Timestamp> {
        let live = self.sessions.iter().map(|session| session.last_seen).max();
        live.max(self.last_seen)
    }

    /// The latest time the person did something, on any session.
    pub fn latest_activity(&self) -> Option<Timestamp> {
        let live = self.sessions.iter().map(Session::last_activity).max();
        live.max(self.last_activity)
    }

    fn note_last_seen(&mut self) {
        self.last_seen = self.latest_seen();
        self.last_activity = self.latest_activity();
    }

    fn apply_body(&mut self, at: Timestamp, body: &Body) {
        match body {
            Body::SessionOpened {
                session, kind, lease_ms, idle_ms, active, away_after_ms, ..
            } => {
                if !self.invisible {
                    self.veil = None;
                }
                self.sessions.retain(|live| live.id != *session);
                self.sessions.push(Session {
                    id: *session,
                    kind: *kind,
                    opened_at: at,
                    last_seen: at,
                    idle_ms: *idle_ms,
                    lease_ms: *lease_ms,
                    active: *active,
                    away_after_ms: *away_after_ms,
                });
            }
            Body::Heartbeat { session, idle_ms, .. } => self.touch(*session, at, Some(*idle_ms)),
            Body::SessionResumed { session } => self.touch(*session, at, None),
            Body::SessionClosed { session, .. } | Body::SessionExpired { session, .. } => {
                self.sessions.retain(|live| live.id != *session);
                self.sessions.shrink_to_fit();
            }
            Body::ActivityChanged { session, active } => {
                if let Some(live) = self.sessions.iter_mut().find(|live| live.id == *session) {
                    live.active = *active;
                }
            }
            Body::ClaimSet { source, status, while_active, expires_at } => {
                self.claims.retain(|claim| claim.source != *source);
                self.claims.push(Claim {
                    source: source.clone(),
                    status: *status,
                    while_active: *while_active,
                    expires_at: *expires_at,
                    text: None,
                });
            }
            Body::ClaimCleared { source } | Body::ClaimExpired { source } => {
                self.claims.retain(|claim| claim.source != *source);
                self.claims.shrink_to_fit();
            }
            Body::VisibilityChanged { invisible } => {
                if *invisible && self.veil.is_none() {
                    self.veil = Some(Veil { last_seen: self.latest_seen() });
                } else if !*invisible && !self.sessions.is_empty() {
                    self.veil = None;
                }
                self.invisible = *invisible;
            }
            Body::UserErased {} => {
                for claim in &mut self.claims {
                    claim.text = None;
                }
            }
            Body::ActionAllowed { .. } | Body::ActionRefused { .. } | Body::Corrected { .. } => {}
        }
    }

    fn touch(&mut self, id: SessionId, at: Timestamp, idle_ms: Option<u32>) {
        if let Some(live) = self.sessions.iter_mut().find(|live| live.id == id) {
            live.beat(at, idle_ms.unwrap_or(live.idle_ms));
        }
    }

    /// An imported event makes history, and a present only where there is none of our own.
    fn apply_imported(&mut self, at: Timestamp, body: &Body) {
        let imported =
            self.imported.get_or_insert_with(|| Box::new(Imported { until: at, open: Vec::new() }));
        imported.until = imported.until.max(at);
        match body {
            Body::SessionOpened { session, .. } => imported.open.push((*session, at)),
            Body::SessionClosed { session, .. } | Body::SessionExpired { session, .. } => {
                imported.open.retain(|(open, _)| open != session);
            }
            Body::Heartbeat { session, .. } => {
                for (_, latest) in imported.open.iter_mut().filter(|(open, _)| open == session) {
                    *latest = at;
                }
            }
            Body::SessionResumed { .. }
            | Body::ActivityChanged { .. }
            | Body::ClaimSet { .. }
            | Body::ClaimCleared { .. }
            | Body::ClaimExpired { .. }
            | Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => {}
        }
        let until = imported.until;
        // As `append` does with every transition.
        self.note_last_seen();
        // What is imported lies before all that is own, and changes nothing of it.
        if self.own_since.is_none() {
            self.since = until;
            self.shown_since = until;
            self.last_seen = self.last_seen.max(Some(until));
            self.last_activity = self.last_activity.max(Some(until));
        }
    }
}
