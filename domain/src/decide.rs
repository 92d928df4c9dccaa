//! From a command to events. Pure: time, policy and silences are arguments.

use chrono::TimeDelta;

use crate::command::{Command, Expiry, Open, Outcome, Refusal, SetClaim};
use crate::event::{Body, Event, Reason, Recorded, When};
use crate::presence::{CLAIMS_MAX, Presence, SESSIONS_MAX, Session};
use crate::{Policy, SessionId, Silences, Source, Status, Timestamp, UserNo, guard, import, lapse};

/// A claim may end at most this far ahead, in days.
pub const CLAIM_DAYS_MAX: i64 = 3_653;

/// What a decision stands on beside the state.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The database's now, as well as this node knows it. Never decides what is stored.
    pub now: Timestamp,
    /// When the server took the command in; not after `now`.
    pub taken_at: Timestamp,
    /// Intervals and thresholds.
    pub policy: &'a Policy,
    /// Our outages.
    pub silences: &'a Silences,
    /// Who asks; nobody, for a sweep.
    pub actor: Option<UserNo>,
}

/// What a command leads to. It holds while the user's last transition is still the one decided upon
/// and the database's clock has not reached `valid_until`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The state decided upon.
    pub base: Presence,
    /// What happened: first what time did, each at its deadline, then what the command does.
    pub events: Vec<Recorded>,
    /// The text of a claim, which is not in the log.
    pub claim_text: Option<(Source, String)>,
    /// What the asker hears.
    pub outcome: Outcome,
    /// The instant at which time alone would change the decision.
    pub valid_until: Option<Timestamp>,
    /// The state afterwards, with provisional times of intake.
    pub after: Presence,
}

/// Decides. Every lapse due at `context.now` is recorded first, at its deadline.
pub fn decide(base: Presence, command: &Command, context: &Context<'_>) -> Decision {
    let mut draft = Draft::new(base, context);
    let outcome = match command {
        Command::Heartbeat { session, idle_ms } => draft.heartbeat(*session, *idle_ms),
        Command::Open(_)
        | Command::Resume { .. }
        | Command::Close { .. }
        | Command::CloseSilent { .. }
        | Command::CloseAll { .. }
        | Command::SetClaim(_)
        | Command::ClearClaim { .. }
        | Command::SetVisibility { .. }
        | Command::Guard(_)
        | Command::Settle
        | Command::Import(_)
        | Command::ImportEnd => {
            draft.settle(context.now);
            // Also what the command is about to end may end by itself before this is committed.
            draft.holds_until = lapse::next_deadline(&draft.state, context.silences);
            draft.carry_out(command)
        }
    };
    draft.finish(outcome.unwrap_or_else(Outcome::Refused))
}

impl Decision {
    /// A decision that somebody else made, given its events.
    pub fn of_events(base: Presence, events: Vec<Event>) -> Self {
        let mut after = base.clone();
        let record = |event: Event| {
            let when = when(&after, &event.body);
            let status = if when == When::Exact { import::status } else { present_status };
            let from = status(&after);
            after.apply(&event);
            let (sequence, to) = (after.sequence, status(&after));
            Recorded { event, when, sequence, from, to, actor: None }
        };
        let events = events.into_iter().map(record).collect();
        let (claim_text, outcome, valid_until) = (None, Outcome::Done, None);
        Self { base, events, claim_text, outcome, valid_until, after }
    }

    /// The events and the state with the times that `append` gave: `taken_at` as it computed it.
    ///
    /// Mirrors `append`: a transition of intake never lies before what precedes it.
    pub fn resolved(self, taken_at: Timestamp) -> (Vec<Recorded>, Presence) {
        let mut state = self.base;
        let mut events = self.events;
        let mut floor = state.changed_at;
        for recorded in &mut events {
            if recorded.when == When::Intake {
                recorded.event.at = intake(&recorded.event.body, taken_at, floor);
            }
            state.apply(&recorded.event);
            if recorded.when == When::Deadline {
                floor = floor.max(Some(recorded.event.at));
            }
        }
        if let Some((source, text)) = self.claim_text {
            put_text(&mut state, &source, text);
        }
        (events, state)
    }
}

const fn present_status(state: &Presence) -> Status {
    state.status
}

/// What decides the instant of an event of which nothing but itself is known.
fn when(before: &Presence, body: &Body) -> When {
    match body {
        body if body.imported() => When::Exact,
        Body::SessionExpired { .. } | Body::ClaimExpired { .. } => When::Deadline,
        // No heartbeat turns an interaction-driven session idle: only time does.
        Body::ActivityChanged { session, active: false }
            if before.session(*session).is_some_and(|live| live.away_after_ms.is_some()) =>
        {
            When::Deadline
        }
        Body::SessionOpened { .. }
        | Body::SessionResumed { .. }
        | Body::Heartbeat { .. }
        | Body::SessionClosed { .. }
        | Body::ActivityChanged { .. }
        | Body::ClaimSet { .. }
        | Body::ClaimCleared { .. }
        | Body::VisibilityChanged { .. }
        | Body::ActionAllowed { .. }
        | Body::ActionRefused { .. }
        | Body::Corrected { .. }
        | Body::UserErased {} => When::Intake,
    }
}

/// When something happens that was taken in at `taken_at`. A transition never lies before the one
/// that precedes it; a heartbeat is a sign of life of its own instant and of no other.
fn intake(body: &Body, taken_at: Timestamp, floor: Option<Timestamp>) -> Timestamp {
    match floor {
        Some(floor) if body.is_transition() => taken_at.max(floor),
        Some(_) | None => taken_at,
    }
}

fn put_text(state: &mut Presence, source: &Source, text: String) {
    if let Some(claim) = state.claims.iter_mut().find(|claim| claim.source == *source) {
        claim.text = Some(text);
    }
}

/// A decision in the making.
pub(crate) struct Draft<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) state: Presence,
    base: Presence,
    events: Vec<Recorded>,
    claim_text: Option<(Source, String)>,
    holds_until: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    fn new(base: Presence, context: &'a Context<'a>) -> Self {
        let state = base.clone();
        Self { context, state, base, events: Vec::new(), claim_text: None, holds_until: None }
    }

    /// Records every lapse due at `now`.
    fn settle(&mut self, now: Timestamp) {
        while let Some(event) = lapse::next_due(&self.state, self.context.silences, now) {
            self.record(event, When::Deadline, None);
        }
    }

    /// Records something that the command does, at its intake.
    pub(crate) fn happen(&mut self, body: Body) {
        let at = intake(&body, self.context.taken_at, self.state.changed_at);
        self.record(Event { at, body }, When::Intake, self.context.actor);
    }

    pub(crate) fn record(&mut self, event: Event, when: When, actor: Option<UserNo>) {
        let from = self.state.status;
        self.state.apply(&event);
        let (sequence, to) = (self.state.sequence, self.state.status);
        self.events.push(Recorded { event, when, sequence, from, to, actor });
    }

    /// Like [`Self::record`], with the statuses of the imported history, not of the present.
    pub(crate) fn record_apart(&mut self, event: Event) {
        let from = import::status(&self.state);
        self.state.apply(&event);
        let (sequence, to) = (self.state.sequence, import::status(&self.state));
        let (when, actor) = (When::Exact, self.context.actor);
        self.events.push(Recorded { event, when, sequence, from, to, actor });
    }

    fn finish(self, outcome: Outcome) -> Decision {
        let afterwards = lapse::next_deadline(&self.state, self.context.silences);
        let valid_until = [self.holds_until, afterwards].into_iter().flatten().min();
        Decision {
            base: self.base,
            events: self.events,
            claim_text: self.claim_text,
            outcome,
            valid_until,
            after: self.state,
        }
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Open(open) => self.open(open),
            Command::Resume { session } => {
                self.live(*session)?;
                self.happen(Body::SessionResumed { session: *session });
                Ok(Outcome::Done)
            }
            Command::Close { session, reason } => {
                let count = usize::from(self.close(*session, *reason));
                Ok(Outcome::Closed { count })
            }
            Command::CloseSilent { session, last_seen, reason } => {
                let live = self.state.session(*session);
                let silent = live.is_some_and(|live| live.last_seen <= *last_seen);
                let count = usize::from(silent && self.close(*session, *reason));
                Ok(Outcome::Closed { count })
            }
            Command::CloseAll { reason } => {
                let all: Vec<_> = self.state.sessions.iter().map(|session| session.id).collect();
                let count = all.len();
                for session in all {
                    self.close(session, *reason);
                }
                Ok(Outcome::Closed { count })
            }
            Command::SetClaim(claim) => self.set_claim(claim),
            Command::ClearClaim { source } => {
                self.clear_claim(source);
                Ok(Outcome::Done)
            }
            Command::SetVisibility { invisible } => {
                if self.state.invisible != *invisible {
                    self.happen(Body::VisibilityChanged { invisible: *invisible });
                }
                Ok(Outcome::Done)
            }
            Command::Guard(guard) => guard::guard(self, guard),
            Command::Import(_) | Command::ImportEnd => import::import(self, command),
            Command::Settle | Command::Heartbeat { .. } => Ok(Outcome::Done),
        }
    }

    fn live(&self, session: SessionId) -> Result<(), Refusal> {
        self.state.session(session).map(|_| ()).ok_or(Refusal::SessionClosed)
    }

    fn open(&mut self, open: &Open) -> Result<Outcome, Refusal> {
        if self.state.session(open.session).is_some() {
            return Ok(Outcome::Opened { existed: true });
        }
        if self.state.sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::TooManySessions);
        }
        let policy = self.context.policy;
        let (lease_ms, away_after_ms) = if open.interaction_driven {
            (policy.interaction_lease_ms, Some(policy.interaction_away_after_ms))
        } else {
            (policy.lease_ms, None)
        };
        self.happen(Body::SessionOpened {
            session: open.session,
            kind: open.kind,
            lease_ms,
            idle_ms: open.idle_ms,
            active: open.interaction_driven || open.idle_ms < policy.away_after_ms,
            away_after_ms,
            imported: false,
        });
        Ok(Outcome::Opened { existed: false })
    }

    /// A heartbeat taken in before the deadline wins over the time-out, however late it gets here;
    /// so what time did is recorded up to its intake, and the rest afterwards.
    fn heartbeat(&mut self, session: SessionId, idle_ms: u32) -> Result<Outcome, Refusal> {
        self.settle(self.context.taken_at);
        let Some(live) = self.state.session(session) else {
            self.settle(self.context.now);
            return Err(Refusal::SessionClosed);
        };
        let was_active = live.active;
        let active = self.active_after(live, idle_ms);
        self.happen(Body::Heartbeat { session, idle_ms, imported: false });
        if active != was_active {
            self.happen(Body::ActivityChanged { session, active });
        }
        self.settle(self.context.now);
        Ok(Outcome::Done)
    }

    /// Whether a heartbeat leaves its session active. One that was overtaken by a later sign of
    /// life says nothing of now, nor does an interaction so old that it has turned idle since.
    fn active_after(&self, live: &Session, idle_ms: u32) -> bool {
        let taken_at = self.context.taken_at;
        if live.last_seen > taken_at {
            return live.active;
        }
        let Some(away_after_ms) = live.away_after_ms else {
            return idle_ms < self.context.policy.away_after_ms;
        };
        let idle_at = self.context.silences.deadline(taken_at, away_after_ms);
        live.active || self.state.changed_at.is_none_or(|changed_at| changed_at < idle_at)
    }

    fn close(&mut self, session: SessionId, reason: Reason) -> bool {
        let live = self.state.session(session).is_some();
        if live {
            self.happen(Body::SessionClosed { session, reason, imported: false });
        }
        live
    }

    fn set_claim(&mut self, claim: &SetClaim) -> Result<Outcome, Refusal> {
        self.may_claim(&claim.source, claim.status)?;
        let latest = self.context.now + TimeDelta::days(CLAIM_DAYS_MAX);
        let expires_at = match claim.expires {
            None => None,
            Some(Expiry::At(at)) => Some(at),
            Some(Expiry::AfterMs(ms)) => {
                let ms = i64::try_from(ms).ok().and_then(TimeDelta::try_milliseconds);
                let at = ms.and_then(|ms| self.context.taken_at.checked_add_signed(ms));
                Some(at.ok_or(Refusal::ClaimExpiryOutOfRange)?)
            }
        };
        if expires_at.is_some_and(|at| at <= self.context.now || at > latest) {
            return Err(Refusal::ClaimExpiryOutOfRange);
        }
        self.put_claim(&claim.source, claim.status, claim.while_active, expires_at);
        self.claim_text = claim.text.clone().map(|text| (claim.source.clone(), text));
        if let Some((source, text)) = self.claim_text.clone() {
            put_text(&mut self.state, &source, text);
        }
        Ok(Outcome::Done)
    }

    /// Whether the rules let this source claim this status at all.
    pub(crate) fn may_claim(&self, source: &Source, status: Status) -> Result<(), Refusal> {
        if status == Status::Offline {
            return Err(Refusal::ClaimOffline);
        }
        if self.state.claim(source).is_none() && self.state.claims.len() >= CLAIMS_MAX {
            return Err(Refusal::TooManyClaims);
        }
        Ok(())
    }

    pub(crate) fn put_claim(
        &mut self,
        source: &Source,
        status: Status,
        while_active: bool,
        expires_at: Option<Timestamp>,
    ) {
        self.happen(Body::ClaimSet { source: source.clone(), status, while_active, expires_at });
    }

    pub(crate) fn clear_claim(&mut self, source: &Source) {
        if self.state.claim(source).is_some() {
            self.happen(Body::ClaimCleared { source: source.clone() });
        }
    }
}
