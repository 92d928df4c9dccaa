//! Decided commands as the arrays that `append` takes.

use std::time::Instant;

use domain::presence::Presence;
use domain::{Body, Decision, Recorded, SessionId, Timestamp, When};
use serde_json::{Map, Value};

use crate::batch::{Append, Decided, age_us, milliseconds};
use crate::load::StoredState;

/// The arrays of the commands and their events.
#[derive(Default)]
pub(crate) struct Columns {
    user: Vec<i64>,
    expected: Vec<i64>,
    age_us: Vec<i64>,
    valid_until: Vec<Option<Timestamp>>,
    last_event: Vec<Option<i32>>,
    sequence: Vec<i64>,
    status: Vec<&'static str>,
    since_intake: Vec<bool>,
    since: Vec<Option<Timestamp>>,
    shown_intake: Vec<bool>,
    shown_since: Vec<Option<Timestamp>>,
    floor: Vec<Timestamp>,
    changed: Vec<Option<Timestamp>>,
    live: Vec<i32>,
    invisible: Vec<bool>,
    check_at: Vec<Option<Timestamp>>,
    state: Vec<Value>,
    own: Vec<bool>,
    touches: Vec<Touch>,
    lapses: Vec<(i32, SessionId, Timestamp, bool)>,
    events: Vec<EventRow>,
    details: Vec<(i32, i32, Value)>,
    keys: Vec<(i32, i32, i32, String)>,
}

/// What a command does to a live session without opening or ending it.
struct Touch {
    command: i32,
    session: SessionId,
    beat: bool,
    idle_ms: i32,
    active: Option<bool>,
}

struct EventRow {
    command: i32,
    name: &'static str,
    session: Option<SessionId>,
    sequence: Option<i64>,
    from: Option<&'static str>,
    to: Option<&'static str>,
    reason: Option<&'static str>,
    actor: Option<i64>,
    word: Option<i64>,
    idle_ms: Option<i32>,
    exact: Option<Timestamp>,
    data: Option<Value>,
}

impl Columns {
    pub(crate) fn of(commands: &[Decided], sent: Instant) -> Self {
        let mut columns = Self::default();
        for (i, command) in commands.iter().enumerate() {
            columns.push(i as i32 + 1, command, sent);
        }
        columns
    }

    fn push(&mut self, number: i32, command: &Decided, sent: Instant) {
        let decision = &command.decision;
        let first_event = self.events.len() as i32 + 1;
        let changes = Changes::of(decision);
        self.user.push(command.user_no.0);
        self.expected.push(command.expected);
        self.age_us.push(age_us(command.taken, sent));
        self.valid_until.push(decision.valid_until);
        self.last_event.push(changes.last_transition.map(|index| first_event + index));
        self.sequence.push(decision.after.sequence);
        self.status.push(decision.after.status.as_str());
        self.since_intake.push(changes.since == Some(Moment::Intake));
        self.since.push(changes.since.and_then(Moment::exact));
        self.shown_intake.push(changes.shown_since == Some(Moment::Intake));
        self.shown_since.push(changes.shown_since.and_then(Moment::exact));
        self.floor.push(changes.floor);
        self.changed.push(changes.changed.and_then(Moment::exact));
        self.live.push(decision.after.sessions.len() as i32);
        self.invisible.push(decision.after.invisible);
        self.check_at.push(decision.after.claims.iter().filter_map(|c| c.expires_at).min());
        self.state.push(serde_json::to_value(StoredState::of(&decision.after)).unwrap_or_default());
        self.own.push(changes.changed.is_some());
        for (recorded, word) in decision.events.iter().zip(&command.words) {
            self.touch_and_lapse(number, recorded);
            self.events.push(EventRow::of(number, recorded, *word));
        }
        self.note_own(number, first_event, command);
    }

    /// Details and keys belong to the first event that the command itself made, not to a lapse.
    fn note_own(&mut self, number: i32, first_event: i32, command: &Decided) {
        let events = &command.decision.events;
        let Some(own) = events.iter().position(|event| event.when != When::Deadline) else {
            return;
        };
        let own_event = first_event + own as i32;
        if let Some(detail) = command.detail.clone() {
            self.details.push((number, own_event, detail));
        }
        if let Some(key) = command.key.clone() {
            let followers = events.len() - own - 1;
            self.keys.push((number, own_event, followers as i32, key));
        }
    }

    fn touch_and_lapse(&mut self, command: i32, recorded: &Recorded) {
        let at = recorded.event.at;
        let lapse = recorded.when == When::Deadline;
        let (session, beat, idle_ms, active) = match &recorded.event.body {
            Body::Heartbeat { session, idle_ms, imported: false } => {
                (*session, true, milliseconds(*idle_ms), None)
            }
            Body::ActivityChanged { session, active } => {
                if lapse {
                    self.lapses.push((command, *session, at, false));
                }
                (*session, false, 0, Some(*active))
            }
            Body::SessionExpired { session, .. } => {
                if lapse {
                    self.lapses.push((command, *session, at, true));
                }
                return;
            }
            // Nobody says how idle the person was: what was known stays.
            Body::SessionResumed { session } => (*session, true, -1, None),
            Body::SessionOpened { .. }
            | Body::Heartbeat { .. }
            | Body::SessionClosed { .. }
            | Body::ClaimSet { .. }
            | Body::ClaimCleared { .. }
            | Body::ClaimExpired { .. }
            | Body::VisibilityChanged { .. }
            | Body::ActionAllowed { .. }
            | Body::ActionRefused { .. }
            | Body::Corrected { .. }
            | Body::UserErased {} => return,
        };
        // One row is updated once: a heartbeat and the change that it brings go together.
        let same = |touch: &&mut Touch| touch.command == command && touch.session == session;
        if let Some(touch) = self.touches.iter_mut().rev().find(same) {
            touch.beat |= beat;
            touch.active = active.or(touch.active);
        } else {
            self.touches.push(Touch { command, session, beat, idle_ms, active });
        }
    }

    pub(crate) fn bind(self, query: Append<'_>) -> Append<'_> {
        let query = query
            .bind(self.user)
            .bind(self.expected)
            .bind(self.age_us)
            .bind(self.valid_until)
            .bind(self.last_event)
            .bind(self.sequence)
            .bind(self.status)
            .bind(self.since_intake)
            .bind(self.since)
            .bind(self.shown_intake)
            .bind(self.shown_since)
            .bind(self.floor)
            .bind(self.changed)
            .bind(self.live)
            .bind(self.invisible)
            .bind(self.check_at)
            .bind(self.state)
            .bind(self.own);
        let query = bind_touches(query, &self.touches, &self.lapses);
        let query = bind_events(query, self.events);
        query
            .bind(self.details.iter().map(|detail| detail.0).collect::<Vec<_>>())
            .bind(self.details.iter().map(|detail| detail.1).collect::<Vec<_>>())
            .bind(self.details.into_iter().map(|detail| detail.2).collect::<Vec<_>>())
            .bind(self.keys.iter().map(|key| key.0).collect::<Vec<_>>())
            .bind(self.keys.iter().map(|key| key.1).collect::<Vec<_>>())
            .bind(self.keys.iter().map(|key| key.2).collect::<Vec<_>>())
            .bind(self.keys.into_iter().map(|key| key.3).collect::<Vec<_>>())
    }
}

fn bind_touches<'q>(
    query: Append<'q>,
    touches: &[Touch],
    lapses: &[(i32, SessionId, Timestamp, bool)],
) -> Append<'q> {
    query
        .bind(touches.iter().map(|touch| touch.command).collect::<Vec<_>>())
        .bind(touches.iter().map(|touch| touch.session).collect::<Vec<_>>())
        .bind(touches.iter().map(|touch| touch.beat).collect::<Vec<_>>())
        .bind(touches.iter().map(|touch| touch.idle_ms).collect::<Vec<_>>())
        .bind(touches.iter().map(|touch| touch.active).collect::<Vec<_>>())
        .bind(lapses.iter().map(|lapse| lapse.0).collect::<Vec<_>>())
        .bind(lapses.iter().map(|lapse| lapse.1).collect::<Vec<_>>())
        .bind(lapses.iter().map(|lapse| lapse.2).collect::<Vec<_>>())
        .bind(lapses.iter().map(|lapse| lapse.3).collect::<Vec<_>>())
}

fn bind_events(query: Append<'_>, events: Vec<EventRow>) -> Append<'_> {
    query
        .bind(events.iter().map(|event| event.command).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.name).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.session).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.sequence).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.from).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.to).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.reason).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.actor).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.word).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.idle_ms).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.exact).collect::<Vec<_>>())
        .bind(events.into_iter().map(|event| event.data).collect::<Vec<_>>())
}

impl EventRow {
    fn of(command: i32, recorded: &Recorded, word: Option<i64>) -> Self {
        let body = &recorded.event.body;
        let transition = body.is_transition();
        let idle_ms = match body {
            Body::Heartbeat { idle_ms, .. } => Some(milliseconds(*idle_ms)),
            _ => None,
        };
        let reason = match body {
            Body::SessionClosed { reason, .. } | Body::SessionExpired { reason, .. } => {
                Some(reason.as_str())
            }
            _ => None,
        };
        Self {
            command,
            name: body.name(),
            session: body.session(),
            sequence: transition.then_some(recorded.sequence),
            from: transition.then_some(recorded.from.as_str()),
            to: transition.then_some(recorded.to.as_str()),
            reason,
            actor: recorded.actor.map(|no| no.0),
            word,
            idle_ms,
            exact: (recorded.when != When::Intake).then_some(recorded.event.at),
            data: data(body),
        }
    }
}

/// What of an event has no column of its own.
fn data(body: &Body) -> Option<Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(body) else { return None };
    let in_columns: &[&str] = match body {
        Body::Heartbeat { .. } => &["type", "session", "idle_ms"],
        _ => &["type", "session", "reason", "source", "action"],
    };
    for name in in_columns {
        fields.remove(*name);
    }
    Some(fields).filter(|fields: &Map<_, _>| !fields.is_empty()).map(Value::Object)
}

/// The word that stands for a body's source or action in the log.
pub(crate) fn word(body: &Body) -> Option<String> {
    match body {
        Body::ClaimSet { source, .. }
        | Body::ClaimCleared { source }
        | Body::ClaimExpired { source } => Some(source.to_string()),
        Body::ActionAllowed { action, .. } | Body::ActionRefused { action, .. } => {
            Some(action.clone())
        }
        Body::SessionOpened { .. }
        | Body::SessionResumed { .. }
        | Body::Heartbeat { .. }
        | Body::SessionClosed { .. }
        | Body::SessionExpired { .. }
        | Body::ActivityChanged { .. }
        | Body::VisibilityChanged { .. }
        | Body::Corrected { .. }
        | Body::UserErased {} => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Intake,
    Exact(Timestamp),
}

impl Moment {
    fn exact(self) -> Option<Timestamp> {
        match self {
            Self::Intake => None,
            Self::Exact(at) => Some(at),
        }
    }
}

/// Which of a decision's events moved the instants that `current_status` keeps.
struct Changes {
    last_transition: Option<i32>,
    since: Option<Moment>,
    shown_since: Option<Moment>,
    changed: Option<Moment>,
    floor: Timestamp,
}

impl Changes {
    fn of(decision: &Decision) -> Self {
        let mut state: Presence = decision.base.clone();
        let mut changes = Self {
            last_transition: None,
            since: None,
            shown_since: None,
            changed: None,
            floor: Timestamp::UNIX_EPOCH,
        };
        let mut taken_in = false;
        for (index, recorded) in decision.events.iter().enumerate() {
            let (status, shown, own) = (state.status, state.shown_status(), state.own_since);
            let imported = recorded.event.body.imported();
            state.apply(&recorded.event);
            let moment = match recorded.when {
                When::Intake => Moment::Intake,
                When::Deadline => Moment::Exact(recorded.event.at),
                When::Exact => Moment::Exact(state.since),
            };
            taken_in |= recorded.when == When::Intake;
            if recorded.when == When::Deadline && !taken_in {
                changes.floor = changes.floor.max(recorded.event.at);
            }
            if !recorded.event.body.is_transition() {
                continue;
            }
            changes.last_transition = Some(index as i32);
            if own.is_none() || (!imported && state.status != status) {
                changes.since = Some(moment);
            }
            if own.is_none() || (!imported && state.shown_status() != shown) {
                changes.shown_since = Some(moment);
            }
            if !imported {
                changes.changed = Some(moment);
            }
        }
        changes
    }
}
