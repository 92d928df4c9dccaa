//! One user's history as it would have been under another policy.
//!
//! What people and systems *did* stays: logins, heartbeats with what they said of idleness,
//! logouts, ends that somebody asked for, claims, imports. What *time* did is decided anew, by the
//! rules that decide the present: each thing done is a command to [`decide`], under the other
//! policy.
//!
//! Clients would have behaved differently, too. As far as the log tells:
//! - Under a shorter lease a session may be over when its next heartbeat comes. The client would
//!   have heard 410 and logged in again: the heartbeat counts as that login, as of then.
//! - Under a longer lease a session that really expired lives on, to its own last sign of life and
//!   the longer lease. A login on a device of the same kind meanwhile is taken for the same client,
//!   which would not have needed it: the old session ends there, and the new one goes on. (The log
//!   has no names of devices: of two phones one may be taken for the other.) An administrator who
//!   ended sessions would have ended these, too.
//! - Where heartbeats are no longer kept, nobody can tell what another lease would have done: what
//!   happened there stays as it was. Whoever was live when the heartbeats begin that are kept is
//!   taken to have been seen then, so within one lease of that instant ends are an estimate.
//! - That clients would send heartbeats at another pace is beyond what can be told.
//!
//! Where the policy in force was changed in between, only what the patch names is otherwise.

use crate::command::{Expiry, Open, Outcome, SetClaim};
use crate::decide::decide;
use crate::event::{Body, Event, Reason};
use crate::policy::PolicyPatch;
use crate::{
    Command, Context, DeviceKind, Policy, Presence, SessionId, Silences, Status, Timestamp,
};

/// What is otherwise, and what is not.
#[derive(Debug, Clone, Default)]
pub struct WhatIf {
    /// What of the policy is another.
    pub patch: PolicyPatch,
    /// All of our outages.
    pub silences: Silences,
}

/// An interval with one status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends; none: it still holds.
    pub to: Option<Timestamp>,
    /// The status.
    pub status: Status,
}

/// One user's history in the making: everything imported first, in the order in which it happened,
/// then everything else in the order of the log, then [`Fold::until`].
#[derive(Debug, Clone, Default)]
pub struct Fold {
    state: Presence,
    imported_open: i64,
    clients: Vec<Client>,
    ghosts: Vec<Client>,
    line: Line,
    begun: bool,
}

/// A session as its client was told at login.
#[derive(Debug, Clone, Copy)]
struct Client {
    session: SessionId,
    kind: DeviceKind,
    lease_ms: u32,
    away_after_ms: Option<u32>,
}

impl WhatIf {
    /// The spans of a user whose events these are, in the order of the log, as of `until`.
    pub fn spans(&self, events: &[Event], in_force: &Policy, until: Timestamp) -> Vec<Span> {
        let mut fold = Fold::default();
        let mut imported: Vec<&Event> = events.iter().filter(|e| e.body.imported()).collect();
        imported.sort_by_key(|event| event.at);
        for event in imported {
            fold.import(event);
        }
        for event in events.iter().filter(|event| !event.body.imported()) {
            fold.take(self, event, in_force);
        }
        fold.until(self, in_force, until);
        fold.finish()
    }

    fn policy(&self, in_force: &Policy, client: Option<&Client>) -> Policy {
        let mut policy = in_force.clone();
        if let Some(client) = client {
            match client.away_after_ms {
                Some(away_after_ms) => {
                    policy.interaction_lease_ms = client.lease_ms;
                    policy.interaction_away_after_ms = away_after_ms;
                }
                None => policy.lease_ms = client.lease_ms,
            }
        }
        self.patch.applied_to(&policy)
    }
}

impl Fold {
    /// History from elsewhere, which no policy of ours has made.
    pub fn import(&mut self, event: &Event) {
        match event.body {
            Body::SessionOpened { .. } => self.imported_open += 1,
            Body::SessionClosed { .. } | Body::SessionExpired { .. } => self.imported_open -= 1,
            Body::SessionResumed { .. }
            | Body::Heartbeat { .. }
            | Body::ActivityChanged { .. }
            | Body::ClaimSet { .. }
            | Body::ClaimCleared { .. }
            | Body::ClaimExpired { .. }
            | Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => return,
        }
        let status = if self.imported_open > 0 { Status::Online } else { Status::Offline };
        self.line.push(event.at, status);
    }

    /// The next transition of the user's own, of a time whose heartbeats are gone.
    pub fn as_it_was(&mut self, event: &Event) {
        if let Some(session) = event.body.session().filter(|_| is_end_or_begin(&event.body)) {
            self.clients.retain(|client| client.session != session);
        }
        self.clients.extend(Client::of(&event.body));
        self.state.apply(event);
        self.line.push(event.at, self.state.status);
    }

    /// From here on there are heartbeats. Said again, it changes nothing.
    pub fn begin(&mut self, what_if: &WhatIf, heartbeats_from: Timestamp) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let patch = &what_if.patch;
        for session in &mut self.state.sessions {
            session.beat(heartbeats_from, session.idle_ms);
            let (lease_ms, away_after_ms) = match session.away_after_ms {
                Some(was) => {
                    let away_after_ms = patch.interaction_away_after_ms.unwrap_or(was);
                    (patch.interaction_lease_ms, Some(away_after_ms))
                }
                None => (patch.lease_ms, None),
            };
            session.lease_ms = lease_ms.unwrap_or(session.lease_ms);
            session.away_after_ms = away_after_ms;
        }
    }

    /// The next event of the user's own.
    pub fn take(&mut self, what_if: &WhatIf, event: &Event, in_force: &Policy) {
        let at = event.at;
        let run = |fold: &mut Self, client: Option<&Client>, command: Command| {
            fold.run(what_if, &what_if.policy(in_force, client), at, &command)
        };
        match &event.body {
            Body::SessionOpened { idle_ms, .. } => {
                if let Some(client) = Client::of(&event.body) {
                    self.login(client, *idle_ms, run);
                }
            }
            Body::Heartbeat { session, idle_ms, .. } => {
                let command = Command::Heartbeat { session: *session, idle_ms: *idle_ms };
                self.or_login(*session, *idle_ms, command, run);
            }
            Body::SessionResumed { session } => {
                self.or_login(*session, 0, Command::Resume { session: *session }, run);
            }
            Body::SessionClosed { session, reason, .. } => {
                self.clients.retain(|client| client.session != *session);
                run(self, None, Command::Close { session: *session, reason: *reason });
                if *reason == Reason::AdminReset {
                    for ghost in std::mem::take(&mut self.ghosts) {
                        run(self, None, ghost.logout(Reason::AdminReset));
                    }
                }
            }
            Body::SessionExpired { session, .. } => {
                run(self, None, Command::Settle);
                let gone = self.clients.iter().position(|client| client.session == *session);
                let gone = gone.map(|index| self.clients.remove(index));
                self.ghosts.extend(gone.filter(|_| self.state.session(*session).is_some()));
            }
            Body::ClaimSet { source, status, while_active, expires_at } => {
                let (source, expires) = (source.clone(), expires_at.map(Expiry::At));
                let (status, while_active) = (*status, *while_active);
                let claim = SetClaim { source, status, while_active, expires, text: None };
                run(self, None, Command::SetClaim(claim));
            }
            Body::ClaimCleared { source } => {
                run(self, None, Command::ClearClaim { source: source.clone() });
            }
            // A heartbeat's is decided with the heartbeat; the others are time's.
            Body::ActivityChanged { .. } | Body::ClaimExpired { .. } => {
                run(self, None, Command::Settle);
            }
            // Others decided these. A status does not depend on them, but nothing that follows
            // happens before them.
            Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => {
                run(self, None, Command::Settle);
                self.state.apply(event);
            }
        }
        if event.body.is_transition() {
            // The first event of all makes a span, also where it changes no status; and where one
            // of our own is the first, what was imported is over.
            self.line.push(at, self.state.status);
        }
    }

    /// Time passes until then.
    pub fn until(&mut self, what_if: &WhatIf, in_force: &Policy, until: Timestamp) {
        self.run(what_if, &what_if.policy(in_force, None), until, &Command::Settle);
    }

    /// The spans that nothing to come can change.
    pub fn drain(&mut self) -> impl Iterator<Item = Span> {
        let settled = self.line.closed.len().saturating_sub(1);
        self.line.closed.drain(..settled)
    }

    /// The spans that are left, the last of which still holds.
    pub fn finish(self) -> Vec<Span> {
        let mut spans = self.line.closed;
        spans.extend(self.line.open.map(|(from, status)| Span { from, to: None, status }));
        spans
    }

    /// A login, which ends the session that its client would not have lost.
    fn login(
        &mut self,
        client: Client,
        idle_ms: u32,
        mut run: impl FnMut(&mut Self, Option<&Client>, Command) -> Outcome,
    ) {
        let session = client.session;
        let outcome = run(self, Some(&client), client.login(idle_ms));
        if outcome == (Outcome::Opened { existed: true }) {
            run(self, None, Command::Heartbeat { session, idle_ms });
        }
        self.clients.retain(|known| known.session != session);
        self.clients.push(client);
        self.ghosts.retain(|ghost| self.state.session(ghost.session).is_some());
        if let Some(same) = self.ghosts.iter().rposition(|ghost| ghost.is_like(&client)) {
            let ghost = self.ghosts.remove(same);
            if ghost.session != session {
                run(self, None, ghost.logout(Reason::LostCarrier));
            }
        }
    }

    /// A sign of life, or, where the session is over under the other policy, a login.
    fn or_login(
        &mut self,
        session: SessionId,
        idle_ms: u32,
        command: Command,
        mut run: impl FnMut(&mut Self, Option<&Client>, Command) -> Outcome,
    ) {
        let outcome = run(self, None, command);
        let client = self.clients.iter().find(|client| client.session == session).copied();
        if let (Outcome::Refused(_), Some(client)) = (outcome, client) {
            run(self, Some(&client), client.login(idle_ms));
        }
    }

    fn run(
        &mut self,
        what_if: &WhatIf,
        policy: &Policy,
        at: Timestamp,
        command: &Command,
    ) -> Outcome {
        let silences = &what_if.silences;
        let context = Context { now: at, taken_at: at, policy, silences, actor: None };
        let decision = decide(std::mem::take(&mut self.state), command, &context);
        for recorded in decision.events.iter().filter(|r| r.event.body.is_transition()) {
            self.line.push(recorded.event.at, recorded.to);
        }
        self.state = decision.after;
        decision.outcome
    }
}

const fn is_end_or_begin(body: &Body) -> bool {
    match body {
        Body::SessionOpened { .. } | Body::SessionClosed { .. } | Body::SessionExpired { .. } => {
            true
        }
        Body::SessionResumed { .. }
        | Body::Heartbeat { .. }
        | Body::ActivityChanged { .. }
        | Body::ClaimSet { .. }
        | Body::ClaimCleared { .. }
        | Body::ClaimExpired { .. }
        | Body::VisibilityChanged { .. }
        | Body::ActionAllowed { .. }
        | Body::ActionRefused { .. }
        | Body::Corrected { .. }
        | Body::UserErased {} => false,
    }
}

impl Client {
    /// The one that a login is of.
    const fn of(body: &Body) -> Option<Self> {
        let Body::SessionOpened { session, kind, lease_ms, away_after_ms, .. } = body else {
            return None;
        };
        let (session, kind, lease_ms) = (*session, *kind, *lease_ms);
        Some(Self { session, kind, lease_ms, away_after_ms: *away_after_ms })
    }

    fn login(&self, idle_ms: u32) -> Command {
        let (session, kind) = (self.session, self.kind);
        let interaction_driven = self.away_after_ms.is_some();
        Command::Open(Open { session, kind, idle_ms, interaction_driven })
    }

    fn logout(&self, reason: Reason) -> Command {
        Command::Close { session: self.session, reason }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.away_after_ms.is_some() == other.away_after_ms.is_some()
    }
}

/// Spans in the making, as `fold_spans` in `migrations/` makes them.
#[derive(Debug, Clone, Default)]
struct Line {
    closed: Vec<Span>,
    open: Option<(Timestamp, Status)>,
}

impl Line {
    /// What lasted no time is no span; and what goes on as before it is no new one.
    fn push(&mut self, at: Timestamp, status: Status) {
        let Some((from, before)) = self.open else {
            self.open = Some((at, status));
            return;
        };
        if before == status {
            return;
        }
        if from < at {
            self.closed.push(Span { from, to: Some(at), status: before });
            self.open = Some((at, status));
        } else if self.closed.last().is_some_and(|last| last.status == status) {
            self.open = self.closed.pop().map(|last| (last.from, last.status));
        } else {
            self.open = Some((from, status));
        }
    }
}
