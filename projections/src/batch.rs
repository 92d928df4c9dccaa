//! What one call of `append` carries, and what it answers.

use std::time::Instant;

use domain::presence::Presence;
use domain::{Body, Decision, Position, Recorded, SessionId, Timestamp, UserId, UserNo, When};
use serde_json::{Map, Value};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::load::StoredState;

/// Most heartbeats in one batch.
pub const BEATS_MAX: usize = 4_096;
/// Most commands in one batch.
pub const COMMANDS_MAX: usize = 1_024;
/// Most rechecks in one batch.
pub const RECHECKS_MAX: usize = 4_096;

/// A plain heartbeat: it leaves the recorded activity as it is.
#[derive(Debug, Clone)]
pub struct Beat {
    /// Which session.
    pub session: SessionId,
    /// Whose, as far as this node knows.
    pub user_no: UserNo,
    /// How long the person has been idle.
    pub idle_ms: u32,
    /// What its client is told now.
    pub lease_ms: u32,
    /// The recorded activity that it agrees with.
    pub active: bool,
    /// When the server took it in.
    pub taken: Instant,
}

/// A decided command.
#[derive(Debug)]
pub struct Decided {
    /// About whom.
    pub user_no: UserNo,
    /// The outside name, for the roster.
    pub user_id: UserId,
    /// The last transition's position that it was decided upon.
    pub expected: Position,
    /// The decision.
    pub decision: Decision,
    /// The number of each event's word, in order; none for events without one.
    pub words: Vec<Option<i64>>,
    /// What is kept apart from the log, for the first event that the command itself makes.
    pub detail: Option<Value>,
    /// A guard's key.
    pub key: Option<String>,
    /// When the server took it in.
    pub taken: Instant,
}

/// An event of the system itself, relayed from another aggregate.
#[derive(Debug, Clone)]
pub struct SystemEvent {
    /// Its stored name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Its number there: relayed once.
    pub number: i64,
    /// Who caused it.
    pub actor: Option<UserNo>,
    /// What it says.
    pub data: Value,
}

/// What one call of `append` carries. By default empty: it tells the clock, and that somebody listens.
#[derive(Debug)]
pub struct Batch {
    /// The same at every retry.
    pub id: Uuid,
    /// At most one a session.
    pub beats: Vec<Beat>,
    /// Sessions whose lazy deadline is to be moved on.
    pub rechecks: Vec<SessionId>,
    /// At most one a user.
    pub commands: Vec<Decided>,
    /// At most one.
    pub systems: Vec<SystemEvent>,
}

/// What `append` answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Of the first heartbeat; see `append` for the others'.
    pub first_position: Position,
    /// The log's newest position after the batch.
    pub head: Position,
    /// ... and before it.
    pub head_found: Position,
    /// The database's now.
    pub recorded_at: Timestamp,
    /// When the batch reached the database, before it waited.
    pub taken_at: Timestamp,
    /// Where a silence began that this batch ended.
    pub resumed_from: Option<Timestamp>,
    /// A letter a heartbeat, then a command, then a system event.
    pub verdicts: String,
    /// The batch had been committed before; its times are those of the first call.
    pub replayed: bool,
}

/// The letter of what was accepted. The others stand in `append`.
pub const ACCEPTED: u8 = b'a';

impl Default for Batch {
    fn default() -> Self {
        Self {
            id: Uuid::new_v4(),
            beats: Vec::new(),
            rechecks: Vec::new(),
            commands: Vec::new(),
            systems: Vec::new(),
        }
    }
}

impl Batch {
    /// Things that can be refused one by one.
    pub fn len(&self) -> usize {
        self.beats.len() + self.rechecks.len() + self.commands.len() + self.systems.len()
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends it. `sent` gives the age of what is in it.
    pub async fn send(
        &self,
        connection: &mut PgConnection,
        sent: Instant,
    ) -> Result<Answer, sqlx::Error> {
        let query = sqlx::query(APPEND).bind(self.id);
        let query = self.bind_beats(query, sent);
        let query = Columns::of(&self.commands, sent).bind(query);
        let row = self.bind_systems(query).fetch_one(connection).await?;
        Answer::read(&row)
    }

    fn bind_beats<'q>(&self, query: Append<'q>, sent: Instant) -> Append<'q> {
        let beats = &self.beats;
        query
            .bind(beats.iter().map(|beat| beat.session).collect::<Vec<_>>())
            .bind(beats.iter().map(|beat| age_us(beat.taken, sent)).collect::<Vec<_>>())
            .bind(beats.iter().map(|beat| milliseconds(beat.idle_ms)).collect::<Vec<_>>())
            .bind(beats.iter().map(|beat| milliseconds(beat.lease_ms)).collect::<Vec<_>>())
            .bind(beats.iter().map(|beat| beat.active).collect::<Vec<_>>())
            .bind(self.rechecks.clone())
    }

    fn bind_systems<'q>(&self, query: Append<'q>) -> Append<'q> {
        let systems = &self.systems;
        query
            .bind(systems.iter().map(|event| event.name).collect::<Vec<_>>())
            .bind(systems.iter().map(|event| event.source).collect::<Vec<_>>())
            .bind(systems.iter().map(|event| event.number).collect::<Vec<_>>())
            .bind(systems.iter().map(|event| event.actor.map(|no| no.0)).collect::<Vec<_>>())
            .bind(systems.iter().map(|event| event.data.clone()).collect::<Vec<_>>())
    }
}

type Append<'q> = Query<'q, Postgres, PgArguments>;

/// 58 arguments: see `migrations/0004_append.sql`.
const APPEND: &str = "select * from append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
    $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32,
    $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51,
    $52, $53, $54, $55, $56, $57, $58)";

impl Answer {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            first_position: row.try_get("first_position")?,
            head: row.try_get("head")?,
            head_found: row.try_get("head_found")?,
            recorded_at: row.try_get("recorded_at")?,
            taken_at: row.try_get("taken_at")?,
            resumed_from: row.try_get("resumed_from")?,
            verdicts: row.try_get("verdicts")?,
            replayed: row.try_get("replayed")?,
        })
    }
}

/// Microseconds between the intake of a command and its sending.
pub fn age_us(taken: Instant, sent: Instant) -> i64 {
    i64::try_from(sent.saturating_duration_since(taken).as_micros()).unwrap_or(i64::MAX)
}

fn milliseconds(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The arrays of the commands and their events.
#[derive(Default)]
struct Columns {
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
    fn of(commands: &[Decided], sent: Instant) -> Self {
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
        let own_first = decision.events.iter().position(|event| event.when != When::Deadline);
        let own_first = first_event + own_first.unwrap_or_default() as i32;
        if let Some(detail) = command.detail.clone().filter(|_| !decision.events.is_empty()) {
            self.details.push((number, own_first, detail));
        }
        if let Some(key) = command.key.clone().filter(|_| !decision.events.is_empty()) {
            let last = first_event + decision.events.len() as i32 - 1;
            self.keys.push((number, own_first, last - own_first, key));
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

    fn bind(self, query: Append<'_>) -> Append<'_> {
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
pub fn word(body: &Body) -> Option<String> {
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
