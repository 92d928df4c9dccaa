//! cqrs-es' `EventStore` over our log, and the `execute` of the hot path.
//!
//! The framework's own `execute` discards what `commit` returns; ours answers with a receipt, and
//! decides again when it was overtaken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use domain::{Command, Context, Decision, Event, Outcome, Policy, Position, Presence, Refusal};
use domain::{Timestamp, UserId, UserNo, decide::decide};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::batch::Decided;
use crate::clock::micros;
use crate::columns::word;
use crate::queue::{Accepted, Job, Verdict};
use crate::shared::Shared;
use crate::{Error, load};

/// How often a command is decided before it is given up as overtaken.
pub const DECISIONS_MAX: usize = 16;
/// Locks that the users of a node share. Two users on one lock wait for each other needlessly,
/// never wrongly.
const LOCKS: usize = 4_096;

/// Who asks, and what goes with it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who asks; nobody, for a sweep.
    pub actor: Option<UserNo>,
    /// When the server took it in.
    pub taken: Instant,
    /// What is kept apart from the log with the first event.
    pub detail: Option<Value>,
    /// A guard's key.
    pub key: Option<String>,
}

impl Asked {
    /// By that user, just now.
    pub fn by(actor: Option<UserNo>) -> Self {
        Self { actor, taken: Instant::now(), detail: None, key: None }
    }
}

/// What came of a command.
#[derive(Debug)]
pub enum Executed {
    /// It stands in the log, or needed nothing written.
    Done(Receipt),
    /// The session's name was used before and is over.
    SessionEnded,
    /// The guard's key is known.
    KeyKnown,
}

/// What the asker may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The last of its events; the log's head, if it has none.
    pub position: Position,
    /// The first event that the command itself made.
    pub first_position: Position,
    /// The user's count of transitions after it.
    pub sequence: i64,
    /// What came of it.
    pub outcome: Outcome,
    /// The database's now.
    pub recorded_at: Timestamp,
}

/// Loads users, decides upon them and commits to the log.
#[derive(Debug, Clone)]
pub struct PresenceStore {
    shared: Arc<Shared>,
    locks: Arc<[Arc<Mutex<()>>]>,
}

/// One user, locked on this node until it is dropped.
#[derive(Debug)]
pub struct LockedUser {
    user_no: UserNo,
    user_id: UserId,
    state: Presence,
    position: Position,
    lock: OwnedMutexGuard<()>,
}

impl PresenceStore {
    /// Over one realm.
    pub fn new(shared: Arc<Shared>) -> Self {
        let locks = (0..LOCKS).map(|_| Arc::default()).collect();
        Self { shared, locks }
    }

    /// Decides and commits, again while it is overtaken.
    pub async fn execute(
        &self,
        user_no: UserNo,
        command: &Command,
        asked: Asked,
    ) -> Result<Executed, Error> {
        let mut user = self.lock(user_no).await?;
        for _ in 0..DECISIONS_MAX {
            let policy = self.shared.policy();
            let decision = self.decide(&user, command, &policy, &asked);
            match self.submit(&user, decision, &asked).await? {
                Verdict::Accepted(accepted) => return Ok(Executed::Done(receipt(accepted))),
                Verdict::SessionTaken => {
                    let outcome = Outcome::Refused(Refusal::SessionTaken);
                    return Ok(Executed::Done(self.refused(outcome)));
                }
                Verdict::SessionEnded => return Ok(Executed::SessionEnded),
                Verdict::KeyKnown => return Ok(Executed::KeyKnown),
                Verdict::Conflict => user = self.reload(user).await?,
            }
        }
        Err(Error::Overtaken(DECISIONS_MAX))
    }

    fn decide(
        &self,
        user: &LockedUser,
        command: &Command,
        policy: &Policy,
        asked: &Asked,
    ) -> Decision {
        let now = self.shared.clock.now();
        let age = micros(asked.taken.elapsed());
        let silences = self.shared.silences();
        let context =
            Context { now, taken_at: now - age, policy, silences: &silences, actor: asked.actor };
        decide(user.state.clone(), command, &context)
    }

    async fn submit(
        &self,
        user: &LockedUser,
        decision: Decision,
        asked: &Asked,
    ) -> Result<Verdict, Error> {
        let mut words = Vec::with_capacity(decision.events.len());
        for recorded in &decision.events {
            words.push(match word(&recorded.event.body) {
                Some(word) => Some(self.shared.names.word(&word).await?),
                None => None,
            });
        }
        let decided = Box::new(Decided {
            user_no: user.user_no,
            user_id: user.user_id.clone(),
            expected: user.position,
            decision,
            words,
            detail: asked.detail.clone(),
            key: asked.key.clone(),
            taken: asked.taken,
        });
        self.shared.queue.ask(|reply| Job::Command(decided, reply)).await
    }

    /// A refusal that only `append` could find: nothing was written.
    fn refused(&self, outcome: Outcome) -> Receipt {
        let position = self.shared.roster.position();
        let recorded_at = self.shared.clock.now();
        Receipt { position, first_position: position, sequence: 0, outcome, recorded_at }
    }

    /// The user's lock on this node, and the state as this node knows it.
    async fn lock(&self, user_no: UserNo) -> Result<LockedUser, Error> {
        let index = user_no.0.unsigned_abs() as usize % LOCKS;
        let lock = Arc::clone(&self.locks[index]).lock_owned().await;
        let known = self
            .shared
            .roster
            .read(user_no, |entry| (entry.user_id.clone(), entry.state.clone(), entry.position));
        if let Some((user_id, state, position)) = known {
            return Ok(LockedUser { user_no, user_id, state, position, lock });
        }
        self.load(user_no, lock).await
    }

    /// What another node has done meanwhile: its events, and its silences.
    async fn reload(&self, user: LockedUser) -> Result<LockedUser, Error> {
        metrics::counter!("rollcall_conflicts_total").increment(1);
        let silences = load::silences(&self.shared.pool).await?;
        self.shared.learn_silences(silences.iter());
        self.load(user.user_no, user.lock).await
    }

    async fn load(&self, user_no: UserNo, lock: OwnedMutexGuard<()>) -> Result<LockedUser, Error> {
        let loaded = load::by_number(&self.shared.pool, &[user_no]).await?;
        let user = loaded.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        self.shared.roster.put(user.clone());
        let load::Loaded { user_no, user_id, state, position } = user;
        Ok(LockedUser { user_no, user_id, state, position, lock })
    }
}

fn receipt(accepted: Accepted) -> Receipt {
    let Accepted { position, first_position, sequence, outcome, recorded_at } = accepted;
    Receipt { position, first_position, sequence, outcome, recorded_at }
}

impl AggregateContext<Presence> for LockedUser {
    fn aggregate(&mut self) -> &mut Presence {
        &mut self.state
    }
}

/// The aggregate's name in the framework is the user's number as text.
fn user_no(aggregate_id: &str) -> Result<UserNo, AggregateError<Refusal>> {
    aggregate_id
        .parse()
        .map(UserNo)
        .map_err(|error| AggregateError::DeserializationError(error.into()))
}

fn unexpected(error: Error) -> AggregateError<Refusal> {
    AggregateError::UnexpectedError(Box::new(error))
}

impl EventStore<Presence> for PresenceStore {
    type AC = LockedUser;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<Presence>>, AggregateError<Refusal>> {
        let rows: Vec<(i64, Value)> = sqlx::query_as(
            "select sequence, payload from presence_events where aggregate_id = $1
             order by sequence",
        )
        .bind(aggregate_id)
        .fetch_all(&self.shared.pool)
        .await
        .map_err(|error| AggregateError::DatabaseConnectionError(error.into()))?;
        let envelope = |(sequence, payload): (i64, Value)| {
            let payload: Event = serde_json::from_value(payload)
                .map_err(|error| AggregateError::DeserializationError(error.into()))?;
            let (aggregate_id, metadata) = (aggregate_id.to_owned(), HashMap::new());
            Ok(EventEnvelope { aggregate_id, sequence: sequence as usize, payload, metadata })
        };
        rows.into_iter().map(envelope).collect()
    }

    /// Takes the user's lock on this node; the context holds it.
    async fn load_aggregate(
        &self,
        aggregate_id: &str,
    ) -> Result<LockedUser, AggregateError<Refusal>> {
        self.lock(user_no(aggregate_id)?).await.map_err(unexpected)
    }

    /// Appends events that a handler made of the context's state. The handler has applied them
    /// already, so the state decided upon is loaded anew and must lead to the same.
    async fn commit(
        &self,
        events: Vec<Event>,
        context: LockedUser,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<Presence>>, AggregateError<Refusal>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let expected = context.position;
        let user = self.load(context.user_no, context.lock).await.map_err(unexpected)?;
        if user.position != expected {
            return Err(AggregateError::AggregateConflict);
        }
        let decision = Decision::of_events(user.state.clone(), events.clone());
        let first = user.state.sequence;
        let verdict = self.submit(&user, decision, &Asked::by(None)).await.map_err(unexpected)?;
        if !matches!(verdict, Verdict::Accepted(_)) {
            return Err(AggregateError::AggregateConflict);
        }
        let envelope = |(index, payload): (usize, Event)| EventEnvelope {
            aggregate_id: user.user_no.to_string(),
            sequence: first as usize + index + 1,
            payload,
            metadata: metadata.clone(),
        };
        Ok(events.into_iter().enumerate().map(envelope).collect())
    }
}
