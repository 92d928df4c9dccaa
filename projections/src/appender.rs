//! The one writer of a node: group commit.
//!
//! Whatever arrived while one batch was being committed is the next batch. The queue is bounded;
//! what does not fit is refused at once, never dropped later. A lost answer is asked for again
//! under the same batch's id before new work is taken: so nothing is written twice, and nothing
//! that was acknowledged is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::{Position, Silence, UserNo};
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use crate::batch::{ACCEPTED, Answer, Batch, Beat, COMMANDS_MAX, Decided, age_us};
use crate::db::Database;
use crate::queue::{Accepted, Beaten, Filling, Job, Load, Verdict};
use crate::shared::Shared;
use crate::{Error, leaves, load};

/// A node appends an empty batch when it had nothing to append for so long: that somebody listens
/// is what lets a lease run.
pub const TICK: Duration = Duration::from_secs(1);
/// Whoever has held the append lock for so long while this node waited is ended.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// ... which is long enough to have held it: the holder began a moment after this node.
const LOCK_HELD_MAX: Duration = Duration::from_secs(9);
/// A call that has not answered by then is given up with its connection, and asked for again.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// Between the first two attempts to append a batch; each later pause is twice as long.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The writer. Owns the connection that appends.
pub struct Appender {
    database: Database,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    put_off: VecDeque<Job>,
    connection: Option<PgConnection>,
}

/// What `append` did not take.
enum Failure {
    /// The data's fault: nothing of the batch was written.
    Data,
    /// The server is going down and the database cannot be reached.
    GivenUp,
}

impl Appender {
    /// Not yet connected.
    pub fn new(database: Database, shared: Arc<Shared>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { database, shared, jobs, put_off: VecDeque::new(), connection: None }
    }

    /// Appends until every queue is gone and empty.
    pub async fn run(mut self) {
        let stopping = self.shared.stopping.clone();
        let mut last = Instant::now();
        loop {
            if self.put_off.is_empty() {
                let wait = TICK.saturating_sub(last.elapsed());
                tokio::select! {
                    biased;
                    () = stopping.cancelled(), if !self.jobs.is_closed() => {
                        // What is in the queue is still appended; nothing more comes in.
                        self.jobs.close();
                        continue;
                    }
                    job = tokio::time::timeout(wait, self.jobs.recv()) => match job {
                        Ok(Some(job)) => self.put_off.push_back(job),
                        Ok(None) => break,
                        Err(_) => {}
                    },
                }
            }
            let load = self.fill();
            last = Instant::now();
            self.commit(load).await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "closing the appending connection");
        }
    }

    /// Whatever has arrived, up to the limits of a batch.
    fn fill(&mut self) -> Load {
        let mut filling = Filling::new();
        for job in std::mem::take(&mut self.put_off) {
            if let Some(job) = filling.take(job) {
                self.put_off.push_back(job);
            }
        }
        while self.put_off.len() < COMMANDS_MAX && !filling.is_full() {
            let Ok(job) = self.jobs.try_recv() else { break };
            if let Some(job) = filling.take(job) {
                self.put_off.push_back(job);
            }
        }
        filling.load
    }

    /// Appends, halving around whatever PostgreSQL refuses, until everybody has an answer.
    async fn commit(&mut self, load: Load) {
        let mut loads = vec![load];
        while let Some(load) = loads.pop() {
            let sent_at = Instant::now();
            match self.append(&load.batch).await {
                Ok((answer, sent)) => {
                    let took = sent_at.elapsed();
                    self.shared.appended_for(took);
                    metrics::histogram!("rollcall_append_seconds").record(took.as_secs_f64());
                    metrics::histogram!("rollcall_append_batch_size")
                        .record(load.batch.len() as f64);
                    self.publish(load, &answer, sent).await;
                }
                Err(Failure::Data) if load.waiting() <= 1 => load.refuse(|| Error::Refused),
                Err(Failure::Data) => loads.extend(load.halves()),
                Err(Failure::GivenUp) => load.refuse(|| Error::ShuttingDown),
            }
        }
    }

    /// One batch, until there is an answer to it.
    async fn append(&mut self, batch: &Batch) -> Result<(Answer, Instant), Failure> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let (error, sent) = match self.attempt(batch).await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            match kind(&error) {
                Kind::Data => {
                    tracing::warn!(error = %brief(&error), "append refused a command's data");
                    return Err(Failure::Data);
                }
                Kind::MissingLeaf => {
                    tracing::warn!("the log has no leaf for its next positions: making one");
                    if let Err(error) = leaves::make_ahead(&self.database).await {
                        tracing::error!(%error, "making a leaf");
                    }
                }
                Kind::Other => {
                    tracing::warn!(error = %brief(&error), waited = ?sent.elapsed(), "append");
                    self.connection = None;
                    metrics::counter!("rollcall_append_retries_total").increment(1);
                }
            }
            if self.shared.stopping.is_cancelled() && self.shared.give_up.is_cancelled() {
                return Err(Failure::GivenUp);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn attempt(
        &mut self,
        batch: &Batch,
    ) -> Result<(Answer, Instant), (sqlx::Error, Instant)> {
        let sent = Instant::now();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.server().await.map_err(|error| (unwrapped(error), sent))?,
        };
        let sent = Instant::now();
        let answer = {
            let call = batch.send(&mut connection, sent);
            let mut call = std::pin::pin!(call);
            let mut patience = LOCK_PATIENCE;
            loop {
                match tokio::time::timeout(patience, call.as_mut()).await {
                    Ok(answer) => break answer,
                    // Dropping the call closes the connection; the batch is asked for again.
                    Err(_) if sent.elapsed() >= CALL_PATIENCE => {
                        return Err((sqlx::Error::PoolTimedOut, sent));
                    }
                    Err(_) => {
                        patience = TICK;
                        self.free_lock().await;
                    }
                }
            }
        };
        match answer {
            Ok(answer) => {
                self.connection = Some(connection);
                Ok((answer, sent))
            }
            Err(error) => {
                if error.as_database_error().is_some() {
                    self.connection = Some(connection);
                }
                Err((error, sent))
            }
        }
    }

    /// Ends whoever sits on the append lock; not while the log moves, for then nobody does.
    async fn free_lock(&self) {
        let stuck = TimeDelta::from_std(LOCK_HELD_MAX).unwrap_or_default();
        if self.shared.clock.newest_age().is_some_and(|age| age < stuck) {
            return;
        }
        let ended = async {
            let mut connection = self.database.owner().await?;
            let ended: i32 =
                sqlx::query_scalar("select free_append_lock($1 * interval '1 second')")
                    .bind(LOCK_HELD_MAX.as_secs_f64())
                    .fetch_one(&mut connection)
                    .await?;
            connection.close().await?;
            Ok::<_, Error>(ended)
        };
        match tokio::time::timeout(TICK, ended).await {
            Ok(Ok(ended)) => tracing::warn!(ended, "waited for the append lock: ended its holder"),
            Ok(Err(error)) => tracing::warn!(%error, "ending the holder of the append lock"),
            Err(_) => tracing::warn!("ending the holder of the append lock: no answer"),
        }
    }

    /// Brings the roster up to the answer, then tells everybody. In position order: one batch is
    /// published before the next is sent.
    async fn publish(&mut self, mut load: Load, answer: &Answer, sent: Instant) {
        let shared = Arc::clone(&self.shared);
        if let Some(from) = answer.resumed_from {
            let to = answer.recorded_at;
            tracing::warn!(%from, %to, "nobody appended for a while: leases are prolonged");
            shared.learn_silences(&[Silence { from, to }]);
        }
        // Another's batch may have ended a silence that this node has not read of: then the tail
        // reads it first, and hears afterwards.
        let gap = answer.head_found > shared.roster.position();
        if !gap || !shared.clock.may_hide_silence(answer.recorded_at) {
            shared.clock.hear(answer.recorded_at);
        }
        if answer.replayed {
            self.reload(&load.batch).await;
        }
        let verdicts = answer.verdicts.as_bytes();
        let beaten = beaten(&shared, &load.batch.beats, answer, sent);
        let commands = std::mem::take(&mut load.batch.commands);
        let mut replies = Vec::with_capacity(commands.len());
        let mut first_event = answer.first_position + load.batch.beats.len() as i64;
        for (index, command) in commands.into_iter().enumerate() {
            let events = command.decision.events.len() as i64;
            let verdict = match verdicts.get(load.batch.beats.len() + index) {
                Some(&ACCEPTED) => accept(&shared, command, answer, sent, first_event),
                Some(b's') => Verdict::SessionTaken,
                Some(b'e') => Verdict::SessionEnded,
                Some(b'k') => Verdict::KeyKnown,
                Some(_) | None => Verdict::Conflict,
            };
            replies.push(verdict);
            first_event += events;
        }
        if answer.head_found <= shared.roster.position() {
            shared.roster.advance(answer.head);
        } else {
            shared.behind.notify_one();
        }
        if !replies.is_empty() {
            shared.appended.notify_one();
        }
        load.reply(&beaten, replies, answer.head);
    }

    /// A replayed batch has the times of its first call, which this node no longer knows.
    async fn reload(&mut self, batch: &Batch) {
        let mut users: Vec<UserNo> = batch.commands.iter().map(|c| c.user_no).collect();
        users.extend(batch.beats.iter().map(|beat| beat.user_no));
        let Some(connection) = self.connection.as_mut() else { return };
        match load::by_number(connection, &users).await {
            Ok(loaded) => loaded.into_iter().for_each(|user| self.shared.roster.put(user)),
            Err(error) => tracing::warn!(%error, "reading users after a replayed batch"),
        }
    }
}

fn beaten(shared: &Shared, beats: &[Beat], answer: &Answer, sent: Instant) -> Vec<Beaten> {
    let verdicts = answer.verdicts.as_bytes();
    let mut beaten = Vec::with_capacity(beats.len());
    for (index, beat) in beats.iter().enumerate() {
        let accepted = verdicts.get(index) == Some(&ACCEPTED);
        if accepted && !answer.replayed {
            let age = TimeDelta::microseconds(age_us(beat.taken, sent));
            let at = answer.taken_at - age;
            shared.roster.beat(beat.user_no, beat.session, at, beat.idle_ms, beat.lease_ms);
        }
        beaten.push(accepted.then_some(answer.first_position + index as i64));
    }
    beaten
}

fn accept(
    shared: &Shared,
    command: Decided,
    answer: &Answer,
    sent: Instant,
    first_event: Position,
) -> Verdict {
    let decision = command.decision;
    let outcome = decision.outcome.clone();
    let count = decision.events.len() as i64;
    let last_of = |wanted: fn(&domain::Recorded) -> bool| {
        decision.events.iter().rposition(wanted).map(|index| first_event + index as i64)
    };
    let transition = last_of(|event| event.event.body.is_transition());
    let own = decision.events.iter().position(|event| event.when != domain::When::Deadline);
    let position = if count > 0 { first_event + count - 1 } else { answer.head };
    let sequence = decision.after.sequence;
    if !answer.replayed && count > 0 {
        let age = TimeDelta::microseconds(age_us(command.taken, sent));
        let sessions_before = decision.base.sessions.len();
        let (_, state) = decision.resolved(answer.taken_at - age);
        let (user_no, user_id) = (command.user_no, command.user_id);
        let position = transition.unwrap_or(command.expected);
        let ended = state.sessions.len() < sessions_before;
        shared.roster.put(load::Loaded { user_no, user_id, state, position });
        if ended {
            shared.suspect(user_no);
        }
    }
    Verdict::Accepted(Accepted {
        position,
        first_position: own.map_or(position, |index| first_event + index as i64),
        sequence,
        outcome,
        recorded_at: answer.recorded_at,
    })
}

/// What kind of failure it is, and so what to do about it.
enum Kind {
    Data,
    MissingLeaf,
    Other,
}

fn kind(error: &sqlx::Error) -> Kind {
    let Some(database) = error.as_database_error() else { return Kind::Other };
    let code = database.code().unwrap_or_default();
    // "no partition of relation found for row": a check violation that names no constraint.
    if code == "23514" && database.constraint().is_none() {
        return Kind::MissingLeaf;
    }
    match code.get(..2) {
        Some("21" | "22" | "23") => Kind::Data,
        Some(_) | None => Kind::Other,
    }
}

/// Without the statement's values: logs hold no personal data. Messages of data errors quote them.
fn brief(error: &sqlx::Error) -> String {
    match (error.as_database_error(), kind(error)) {
        (None, _) => error.to_string(),
        (Some(database), Kind::Data) => format!("SQLSTATE {}", database.code().unwrap_or_default()),
        (Some(database), Kind::MissingLeaf | Kind::Other) => database.message().to_owned(),
    }
}

fn unwrapped(error: Error) -> sqlx::Error {
    match error {
        Error::Database(error) => error,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
