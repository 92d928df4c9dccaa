//! Whether what stands in the database is consistent, checked all the time and on demand.
//!
//! A look ([`look`]) covers one scope in one snapshot; each round goes through everything in
//! slices of at most [`scope::USERS_SLICE`] users, [`scope::EVENTS_SLICE`] transitions,
//! [`scope::POSITIONS_SLICE`] positions and [`look::SLICE_TIME_MAX`], and pauses nine times as
//! long as a slice took. What a look finds must be found once more, [`CONFIRM_AFTER`] later,
//! before anybody hears of it; and goes when a later look no longer finds it.
//!
//! In reading order:
//! - [`finding`]: what can be found, how bad it is, what to do about it
//! - [`scope`]: slices and rounds; [`look`]: one look
//! - `fold`, `present`, `signs`, `log`, `views`, `watch`, `system`: the checks themselves
//! - `board`: what has been found; `worker`: all the time; [`survey`]: everything once

mod board;
pub mod finding;
pub(crate) mod fold;
mod log;
pub mod look;
pub(crate) mod present;
pub mod scope;
mod signs;
pub mod survey;
mod system;
mod views;
pub mod watch;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use domain::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::db::Database;
use crate::follow::versions::Version;
use board::Board;
use finding::Key;
pub use finding::{Check, Finding, Remedy, Severity};
use scope::Scope;
pub use survey::{Progress, Survey};

/// This machine's time of day. It decides nothing: it is compared with the database's.
pub type WallClock = fn() -> Timestamp;

/// From a first look that found something to the second.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(3);
/// An end is to be recorded within this, by the log's clock.
pub const OVERDUE_AFTER: TimeDelta = TimeDelta::seconds(5);
/// How long a survey that somebody waits for may look, before the second look.
pub const FRESH_MAX: Duration = Duration::from_secs(4);

/// What a node knows of the consistency of its realm.
#[derive(Debug)]
pub struct Health {
    known: Mutex<Known>,
    surveying: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    board: Board,
    views: Vec<Version>,
    checked_at: Option<Timestamp>,
    complete: bool,
}

/// What was found so far.
#[derive(Debug)]
pub struct Summary {
    /// How many findings.
    pub findings: usize,
    /// The worst of them.
    pub worst: Option<Severity>,
    /// The views, as of the last look at them.
    pub views: Vec<Version>,
}

impl Default for Health {
    fn default() -> Self {
        board::show_all();
        Self { known: Mutex::default(), surveying: tokio::sync::Mutex::default() }
    }
}

impl Health {
    /// Checks all the time, until `stop`.
    pub async fn run(
        self: Arc<Self>,
        database: Database,
        wall: WallClock,
        stop: CancellationToken,
    ) {
        worker::Worker::new(database, self, wall).run(stop).await;
    }

    /// What the checks that run all the time have found so far.
    pub fn latest(&self) -> Survey {
        let known = self.lock();
        Survey {
            findings: known.board.findings(),
            checked_at: known.checked_at.unwrap_or_default(),
            complete: known.complete && !known.board.is_full(),
        }
    }

    /// The same in short.
    pub fn summary(&self) -> Summary {
        let known = self.lock();
        Summary {
            findings: known.board.count(),
            worst: known.board.worst(),
            views: known.views.clone(),
        }
    }

    /// Everything anew, as far as [`FRESH_MAX`] goes. None: another is under way.
    pub async fn fresh(
        &self,
        database: &Database,
        wall: WallClock,
    ) -> Result<Option<Survey>, Error> {
        let Ok(_alone) = self.surveying.try_lock() else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + FRESH_MAX;
        let mut db = database.server().await?;
        let survey = survey::survey(&mut db, wall, Some(deadline), |_| {}).await?;
        Ok(Some(survey))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, finding: Finding, scope: Scope) {
        let mut known = self.lock();
        let now = known.checked_at.unwrap_or_default();
        known.board.put(finding, scope, now);
    }

    fn settle(&self, scope: &Scope, found: &[Key]) {
        self.lock().board.settle(scope, found);
    }

    fn has(&self, key: &Key) -> bool {
        self.lock().board.has(key)
    }

    fn scopes(&self, most: usize) -> Vec<Scope> {
        let mut scopes = self.lock().board.scopes();
        // Where there are many, chance gives each its turn.
        if scopes.len() > most {
            let start = uuid::Uuid::new_v4().as_u128() as usize % scopes.len();
            scopes.rotate_left(start);
            scopes.truncate(most);
        }
        scopes
    }

    fn note_look(&self, now: Timestamp) {
        let mut known = self.lock();
        known.checked_at = known.checked_at.max(Some(now));
    }

    fn note_views(&self, views: Vec<Version>) {
        self.lock().views = views;
    }

    fn set_complete(&self, complete: bool) {
        self.lock().complete = complete;
    }
}

/// Everything once, whole: for a command that may take its time. Writes nothing.
pub async fn examine(
    database: &Database,
    wall: WallClock,
    tell: impl FnMut(Progress),
) -> Result<Survey, Error> {
    let mut db = database.server().await?;
    survey::survey(&mut db, wall, None, tell).await
}
