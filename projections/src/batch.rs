//! What one call of `append` carries, and what it answers.

use std::time::Instant;

use domain::{Decision, Position, SessionId, Timestamp, UserId, UserNo};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::columns::Columns;

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

/// What one call of `append` carries. By default empty: it tells the clock, and that somebody
/// listens.
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

pub(crate) type Append<'q> = Query<'q, Postgres, PgArguments>;

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

pub(crate) fn milliseconds(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
