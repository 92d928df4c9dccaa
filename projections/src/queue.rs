//! What waits before the log, and how it is put together into batches.
//!
//! The queue is bounded: what does not fit is refused at once, never dropped later.

use std::collections::HashSet;
use std::ops::Range;

use domain::{Outcome, Position, SessionId, Timestamp, UserNo};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::batch::{BEATS_MAX, Batch, Beat, COMMANDS_MAX, Decided, RECHECKS_MAX, SystemEvent};

/// One thing that waits before the log.
#[derive(Debug)]
pub enum Job {
    /// One plain heartbeat.
    Beat(Beat, oneshot::Sender<Result<Beaten, Error>>),
    /// Many, of different sessions, answered together.
    Beats(Vec<Beat>, oneshot::Sender<Result<Vec<Beaten>, Error>>),
    /// A decided command.
    Command(Box<Decided>, oneshot::Sender<Result<Verdict, Error>>),
    /// Lazy deadlines to be moved on.
    Recheck(Vec<SessionId>, oneshot::Sender<Result<(), Error>>),
    /// An event of the system itself.
    System(SystemEvent, oneshot::Sender<Result<Position, Error>>),
    /// Nothing: tells the clock.
    Tick(oneshot::Sender<Result<(), Error>>),
}

/// What came of a plain heartbeat: its position, or none where only the aggregate can say.
pub type Beaten = Option<Position>;

/// What `append` said of a command.
#[derive(Debug)]
pub enum Verdict {
    /// It stands in the log.
    Accepted(Accepted),
    /// Overtaken: load and decide again.
    Conflict,
    /// The session's name is another user's.
    SessionTaken,
    /// The session's name was used and is over.
    SessionEnded,
    /// The guard's key is known.
    KeyKnown,
}

/// A command that stands in the log.
#[derive(Debug)]
pub struct Accepted {
    /// The last of its events; the log's head, if it has none.
    pub position: Position,
    /// The first event that the command itself made; as `position`, if it made none.
    pub first_position: Position,
    /// The user's count of transitions after it.
    pub sequence: i64,
    /// What the asker hears.
    pub outcome: Outcome,
    /// The database's now.
    pub recorded_at: Timestamp,
}

/// Where jobs are handed in.
#[derive(Debug, Clone)]
pub struct Queue {
    jobs: mpsc::Sender<Job>,
}

impl Queue {
    /// A queue of that length and the end that the appender reads.
    pub fn bounded(queue_max: usize) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(queue_max);
        (Self { jobs }, receiver)
    }

    /// Jobs waiting.
    pub fn depth(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Hands one in and waits for its answer. A full queue refuses at once.
    pub async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Job,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(job(reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::ShuttingDown,
        })?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

/// Who waits for what in a batch.
enum Waiting {
    Beat(oneshot::Sender<Result<Beaten, Error>>),
    Beats(oneshot::Sender<Result<Vec<Beaten>, Error>>),
}

/// A batch and those who wait for it.
pub(crate) struct Load {
    pub(crate) batch: Batch,
    beats: Vec<(Range<usize>, Waiting)>,
    commands: Vec<oneshot::Sender<Result<Verdict, Error>>>,
    systems: Vec<oneshot::Sender<Result<Position, Error>>>,
    rest: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// A batch being filled.
pub(crate) struct Filling {
    pub(crate) load: Load,
    users: HashSet<UserNo>,
    beating: HashSet<SessionId>,
    opening: HashSet<SessionId>,
}

impl Filling {
    pub(crate) fn new() -> Self {
        let load = Load {
            batch: Batch::default(),
            beats: Vec::new(),
            commands: Vec::new(),
            systems: Vec::new(),
            rest: Vec::new(),
        };
        Self { load, users: HashSet::new(), beating: HashSet::new(), opening: HashSet::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        let batch = &self.load.batch;
        batch.beats.len() >= BEATS_MAX
            || batch.commands.len() >= COMMANDS_MAX
            || batch.rechecks.len() >= RECHECKS_MAX
    }

    /// Takes a job in, or gives it back for the next batch.
    pub(crate) fn take(&mut self, job: Job) -> Option<Job> {
        let batch = &mut self.load.batch;
        let at = batch.beats.len();
        match job {
            Job::Beat(beat, reply) => {
                if at >= BEATS_MAX || !self.beating.insert(beat.session) {
                    return Some(Job::Beat(beat, reply));
                }
                batch.beats.push(beat);
                self.load.beats.push((at..at + 1, Waiting::Beat(reply)));
            }
            Job::Beats(beats, reply) => {
                let clash = beats.iter().any(|beat| self.beating.contains(&beat.session));
                if clash || (at > 0 && at + beats.len() > BEATS_MAX) {
                    return Some(Job::Beats(beats, reply));
                }
                self.beating.extend(beats.iter().map(|beat| beat.session));
                self.load.beats.push((at..at + beats.len(), Waiting::Beats(reply)));
                batch.beats.extend(beats);
            }
            Job::Command(command, reply) => {
                let opens = |event: &domain::Recorded| match event.event.body {
                    domain::Body::SessionOpened { session, .. } => Some(session),
                    _ => None,
                };
                let opened = command.decision.events.iter().find_map(opens);
                let full = batch.commands.len() >= COMMANDS_MAX;
                if full
                    || self.users.contains(&command.user_no)
                    || opened.is_some_and(|session| self.opening.contains(&session))
                {
                    return Some(Job::Command(command, reply));
                }
                self.users.insert(command.user_no);
                self.opening.extend(opened);
                batch.commands.push(*command);
                self.load.commands.push(reply);
            }
            Job::Recheck(sessions, reply) => {
                batch.rechecks.extend(sessions);
                self.load.rest.push(reply);
            }
            Job::System(event, reply) => {
                if !batch.systems.is_empty() {
                    return Some(Job::System(event, reply));
                }
                batch.systems.push(event);
                self.load.systems.push(reply);
            }
            Job::Tick(reply) => self.load.rest.push(reply),
        }
        None
    }
}

/// Whoever asked may have stopped waiting; then its answer has nowhere to go.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}

impl Load {
    /// Parts that can be refused apart from each other.
    pub(crate) fn waiting(&self) -> usize {
        let rest = usize::from(!self.rest.is_empty());
        self.beats.len() + self.commands.len() + self.systems.len() + rest
    }

    pub(crate) fn reply(self, beaten: &[Beaten], verdicts: Vec<Verdict>, head: Position) {
        for (range, waiting) in self.beats {
            match waiting {
                Waiting::Beat(reply) => {
                    tell(reply, Ok(beaten.get(range.start).copied().flatten()));
                }
                Waiting::Beats(reply) => {
                    tell(reply, Ok(beaten.get(range).unwrap_or_default().to_vec()));
                }
            }
        }
        for (reply, verdict) in self.commands.into_iter().zip(verdicts) {
            tell(reply, Ok(verdict));
        }
        self.systems.into_iter().for_each(|reply| tell(reply, Ok(head)));
        self.rest.into_iter().for_each(|reply| tell(reply, Ok(())));
    }

    pub(crate) fn refuse(self, why: impl Fn() -> Error) {
        for (_, waiting) in self.beats {
            match waiting {
                Waiting::Beat(reply) => tell(reply, Err(why())),
                Waiting::Beats(reply) => tell(reply, Err(why())),
            }
        }
        self.commands.into_iter().for_each(|reply| tell(reply, Err(why())));
        self.systems.into_iter().for_each(|reply| tell(reply, Err(why())));
        self.rest.into_iter().for_each(|reply| tell(reply, Err(why())));
    }

    /// Two batches with new ids: heartbeats and the like in one, or the commands halved.
    pub(crate) fn halves(mut self) -> [Self; 2] {
        let mut other = Filling::new().load;
        let plain = self.batch.beats.len() + self.batch.rechecks.len() + self.batch.systems.len();
        if plain == 0 {
            let half = self.batch.commands.len() / 2;
            other.batch.commands = self.batch.commands.split_off(half);
            other.commands = self.commands.split_off(half);
        } else if !self.batch.commands.is_empty() {
            other.batch.commands = std::mem::take(&mut self.batch.commands);
            other.commands = std::mem::take(&mut self.commands);
        } else {
            other.batch.systems = std::mem::take(&mut self.batch.systems);
            other.systems = std::mem::take(&mut self.systems);
            other.batch.rechecks = std::mem::take(&mut self.batch.rechecks);
            other.rest = std::mem::take(&mut self.rest);
            if other.batch.is_empty() && self.beats.len() > 1 {
                let half = self.beats.len() / 2;
                other.beats = self.beats.split_off(half);
                let cut = other.beats.first().map_or(0, |(range, _)| range.start);
                other.batch.beats = self.batch.beats.split_off(cut);
                for (range, _) in &mut other.beats {
                    *range = range.start - cut..range.end - cut;
                }
            }
        }
        self.batch.id = uuid::Uuid::new_v4();
        [self, other]
    }
}
