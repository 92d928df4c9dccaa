//! The vocabulary of the tests: `given([opened(PHONE, at(0))]).when(close(PHONE), 30).then([...])`.

use chrono::{DateTime, TimeDelta};
use domain::command::{Expiry, Guard, GuardClaim, ImportLine, ImportedChange, Open, SetClaim};
use domain::decide::decide;
use domain::event::GuardRefusal;
use domain::{
    Body, Command, Context, Decision, DeviceKind, Event, Outcome, Policy, Presence, Reason,
    Refusal, SessionId, Silence, Silences, Source, Status, Timestamp, UserNo, When,
};

pub(crate) const PHONE: SessionId = SessionId::from_u128(0x1);
pub(crate) const LAPTOP: SessionId = SessionId::from_u128(0x2);
pub(crate) const TABLET: SessionId = SessionId::from_u128(0x3);
/// Who asks in every test.
pub(crate) const ANA: UserNo = UserNo(7);
/// Idle for as long as turns a session idle.
pub(crate) const IDLE_MS: u32 = 300_000;

/// So many seconds after the tests' beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

pub(crate) fn ms(milliseconds: i64) -> TimeDelta {
    TimeDelta::milliseconds(milliseconds)
}

/// What happened so far, and under which policy and silences.
pub(crate) struct Given {
    pub(crate) state: Presence,
    pub(crate) policy: Policy,
    pub(crate) silences: Silences,
}

pub(crate) fn given(events: impl IntoIterator<Item = Event>) -> Given {
    let mut state = Presence::default();
    for event in events {
        state.apply(&event);
    }
    Given { state, policy: Policy::default(), silences: Silences::default() }
}

/// The state that events lead to.
pub(crate) fn fold(events: impl IntoIterator<Item = Event>) -> Presence {
    given(events).state
}

impl Given {
    /// Nobody appended from the one second to the other.
    pub(crate) fn silent(mut self, from: i64, to: i64) -> Self {
        self.silences = self.silences.with(Silence { from: at(from), to: at(to) });
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Asked, and decided at once, at that second.
    pub(crate) fn when(self, command: Command, now: i64) -> Then {
        self.when_late(command, now, now)
    }

    /// Taken in at one second, decided at a later one.
    #[allow(clippy::needless_pass_by_value)] // It reads better at its hundred callers.
    pub(crate) fn when_late(self, command: Command, taken_at: i64, now: i64) -> Then {
        let (now, taken_at) = (at(now), at(taken_at));
        let (policy, silences) = (&self.policy, &self.silences);
        let context = Context { now, taken_at, policy, silences, actor: Some(ANA) };
        Then(decide(self.state, &command, &context))
    }
}

/// What came of it.
pub(crate) struct Then(pub(crate) Decision);

impl Then {
    /// Exactly these events.
    #[track_caller]
    pub(crate) fn then(self, expected: impl IntoIterator<Item = Event>) -> Self {
        let events: Vec<_> = self.0.events.iter().map(|recorded| recorded.event.clone()).collect();
        assert_eq!(events, expected.into_iter().collect::<Vec<_>>());
        self
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.0.outcome, Outcome::Done);
        self
    }

    /// That many sessions were ended.
    #[track_caller]
    pub(crate) fn ended(self, count: usize) -> Self {
        assert_eq!(self.0.outcome, Outcome::Closed { count });
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, refusal: Refusal) -> Self {
        assert_eq!(self.0.outcome, Outcome::Refused(refusal));
        self
    }

    #[track_caller]
    pub(crate) fn guarded(self, verdict: Result<(), GuardRefusal>, status: Status) -> Self {
        assert_eq!(self.0.outcome, Outcome::Guarded { verdict, status });
        self
    }

    /// The status of each step, the one before all of them first.
    #[track_caller]
    pub(crate) fn by_way_of<const N: usize>(self, statuses: [Status; N]) -> Self {
        let mut passed = vec![self.0.base.status];
        for recorded in &self.0.events {
            assert_eq!(Some(&recorded.from), passed.last());
            passed.push(recorded.to);
        }
        assert_eq!(passed, statuses);
        self
    }

    #[track_caller]
    pub(crate) fn valid_until(self, until: Option<Timestamp>) -> Self {
        assert_eq!(self.0.valid_until, until);
        self
    }

    #[track_caller]
    pub(crate) fn leaves(self, status: Status) -> Self {
        assert_eq!(self.0.after.status, status);
        self
    }

    /// What decides each event's instant.
    #[track_caller]
    pub(crate) fn timed<const N: usize>(self, expected: [When; N]) -> Self {
        let whens: Vec<_> = self.0.events.iter().map(|recorded| recorded.when).collect();
        assert_eq!(whens, expected);
        self
    }
}

// Events.

pub(crate) fn event(seconds: i64, body: Body) -> Event {
    Event { at: at(seconds), body }
}

/// A login of a session that heartbeats keep: lease 120 s.
pub(crate) fn opened(session: SessionId, seconds: i64) -> Event {
    let (kind, lease_ms) = (DeviceKind::Web, 120_000);
    let body = Body::SessionOpened {
        session,
        kind,
        lease_ms,
        idle_ms: 0,
        active: true,
        away_after_ms: None,
        imported: false,
    };
    event(seconds, body)
}

/// A login of somebody who has been idle.
pub(crate) fn opened_idle(session: SessionId, seconds: i64) -> Event {
    let mut event = opened(session, seconds);
    if let Body::SessionOpened { idle_ms, active, .. } = &mut event.body {
        (*idle_ms, *active) = (IDLE_MS, false);
    }
    event
}

/// A login of an interaction-driven session: idle after 120 s, over after 300 s.
pub(crate) fn polled(session: SessionId, seconds: i64) -> Event {
    let mut event = opened(session, seconds);
    if let Body::SessionOpened { lease_ms, away_after_ms, .. } = &mut event.body {
        (*lease_ms, *away_after_ms) = (300_000, Some(120_000));
    }
    event
}

pub(crate) fn resumed(session: SessionId, seconds: i64) -> Event {
    event(seconds, Body::SessionResumed { session })
}

pub(crate) fn beat(session: SessionId, seconds: i64) -> Event {
    beat_idle(session, seconds, 0)
}

pub(crate) fn beat_idle(session: SessionId, seconds: i64, idle_ms: u32) -> Event {
    event(seconds, Body::Heartbeat { session, idle_ms, imported: false })
}

pub(crate) fn closed(session: SessionId, seconds: i64) -> Event {
    closed_for(session, seconds, Reason::UserRequest)
}

pub(crate) fn closed_for(session: SessionId, seconds: i64, reason: Reason) -> Event {
    event(seconds, Body::SessionClosed { session, reason, imported: false })
}

pub(crate) fn expired(session: SessionId, seconds: i64) -> Event {
    let reason = Reason::LostCarrier;
    event(seconds, Body::SessionExpired { session, reason, imported: false })
}

pub(crate) fn expired_idle(session: SessionId, seconds: i64) -> Event {
    let reason = Reason::IdleTimeout;
    event(seconds, Body::SessionExpired { session, reason, imported: false })
}

pub(crate) fn turned_idle(session: SessionId, seconds: i64) -> Event {
    event(seconds, Body::ActivityChanged { session, active: false })
}

pub(crate) fn turned_active(session: SessionId, seconds: i64) -> Event {
    event(seconds, Body::ActivityChanged { session, active: true })
}

pub(crate) fn claimed(source: &str, status: Status, seconds: i64) -> Event {
    let (source, while_active, expires_at) = (src(source), false, None);
    event(seconds, Body::ClaimSet { source, status, while_active, expires_at })
}

pub(crate) fn claimed_until(source: &str, status: Status, seconds: i64, until: i64) -> Event {
    let (source, while_active, expires_at) = (src(source), false, Some(at(until)));
    event(seconds, Body::ClaimSet { source, status, while_active, expires_at })
}

pub(crate) fn claimed_while_active(source: &str, status: Status, seconds: i64) -> Event {
    let (source, while_active, expires_at) = (src(source), true, None);
    event(seconds, Body::ClaimSet { source, status, while_active, expires_at })
}

pub(crate) fn cleared(source: &str, seconds: i64) -> Event {
    event(seconds, Body::ClaimCleared { source: src(source) })
}

pub(crate) fn claim_ended(source: &str, seconds: i64) -> Event {
    event(seconds, Body::ClaimExpired { source: src(source) })
}

pub(crate) fn hidden(seconds: i64) -> Event {
    event(seconds, Body::VisibilityChanged { invisible: true })
}

pub(crate) fn back(seconds: i64) -> Event {
    event(seconds, Body::VisibilityChanged { invisible: false })
}

/// The same, as history from elsewhere.
pub(crate) fn from_elsewhere(mut event: Event) -> Event {
    match &mut event.body {
        Body::SessionOpened { imported, lease_ms, .. } => (*imported, *lease_ms) = (true, 0),
        Body::Heartbeat { imported, .. }
        | Body::SessionClosed { imported, .. }
        | Body::SessionExpired { imported, .. } => *imported = true,
        Body::SessionResumed { .. }
        | Body::ActivityChanged { .. }
        | Body::ClaimSet { .. }
        | Body::ClaimCleared { .. }
        | Body::ClaimExpired { .. }
        | Body::VisibilityChanged { .. }
        | Body::ActionAllowed { .. }
        | Body::ActionRefused { .. }
        | Body::Corrected { .. }
        | Body::UserErased {} => panic!("never imported: {event:?}"),
    }
    event
}

// Commands.

pub(crate) fn src(source: &str) -> Source {
    source.parse().unwrap()
}

pub(crate) fn open(session: SessionId) -> Command {
    let kind = DeviceKind::Web;
    Command::Open(Open { session, kind, idle_ms: 0, interaction_driven: false })
}

pub(crate) fn poll(session: SessionId) -> Command {
    let kind = DeviceKind::Web;
    Command::Open(Open { session, kind, idle_ms: 0, interaction_driven: true })
}

pub(crate) fn heartbeat(session: SessionId, idle_ms: u32) -> Command {
    Command::Heartbeat { session, idle_ms }
}

pub(crate) fn close(session: SessionId) -> Command {
    Command::Close { session, reason: Reason::UserRequest }
}

pub(crate) fn claim(source: &str, status: Status) -> Command {
    claim_expiring(source, status, None)
}

pub(crate) fn claim_expiring(source: &str, status: Status, expires: Option<Expiry>) -> Command {
    let (source, while_active, text) = (src(source), false, None);
    Command::SetClaim(SetClaim { source, status, while_active, expires, text })
}

pub(crate) fn claim_saying(source: &str, status: Status, text: &str) -> Command {
    let (source, while_active, text) = (src(source), false, Some(text.to_owned()));
    Command::SetClaim(SetClaim { source, status, while_active, expires: None, text })
}

pub(crate) fn clear(source: &str) -> Command {
    Command::ClearClaim { source: src(source) }
}

pub(crate) const fn hide(invisible: bool) -> Command {
    Command::SetVisibility { invisible }
}

/// May a timer start? And if so, it claims `busy`, or whatever the test makes of it.
pub(crate) fn guard(require: &[Status]) -> Guard {
    let (action, require) = ("timer.start".to_owned(), require.to_vec());
    Guard { action, require, claim: None, if_sequence: None, overlook: None }
}

pub(crate) fn guard_claim(source: &str, status: Option<Status>) -> GuardClaim {
    GuardClaim { source: src(source), status, expect: None }
}

pub(crate) fn import(what: ImportedChange, session: SessionId, seconds: i64) -> Command {
    Command::Import(ImportLine { what, session, at: at(seconds) })
}
