//! The checks that run all the time: small slices with pauses, so that the database hardly feels
//! them, and whatever was found is looked at again before anybody hears of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::finding::{Finding, Key};
use super::look::{Depth, home, look};
use super::scope::{Cursor, Scope};
use super::watch::Watch;
use super::{CONFIRM_AFTER, Health, WallClock, system};
use crate::Error;
use crate::db::Database;

/// Between two looks at the system: views, leaves, clocks, deadlines.
const SYSTEM_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at what has been found.
const RECHECK_EVERY: Duration = Duration::from_secs(2);
/// A round begins no sooner after the one before.
const ROUND_EVERY: Duration = Duration::from_secs(3);
/// The shortest and the longest pause after a look; between them, so many times as long as it took.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// The rest after a slice of the rounds, which never end.
const REST_AFTER_SLICE: u32 = 9;
/// The rest after a look at what has been found, which is rare and waited for.
const REST_AFTER_FOUND: u32 = 3;
/// How often there is a look whether anything has to be done.
const IDLE: Duration = Duration::from_millis(250);
/// Between two attempts while the database cannot be asked.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Scopes that wait for their second look; what does not fit is found again in the next round.
const PENDING_MAX: usize = 256;
/// Findings looked at again at one time.
const RECHECKS_MAX: usize = 32;

/// One round: from its beginning to its end, then again.
struct Lap {
    from: Cursor,
    at: Cursor,
    began: Instant,
    rounds: u64,
}

pub(super) struct Worker {
    database: Database,
    health: Arc<Health>,
    wall: WallClock,
    connection: Option<PgConnection>,
    watch: Watch,
    laps: [Lap; 4],
    turn: usize,
    pending: VecDeque<(Instant, Scope, Vec<Key>)>,
    rechecks: VecDeque<Scope>,
    recheck_next: bool,
    system_at: Option<Instant>,
    rechecked_at: Instant,
}

impl Worker {
    pub(super) fn new(database: Database, health: Arc<Health>, wall: WallClock) -> Self {
        let began = Instant::now();
        let laps = Cursor::ALL.map(|from| Lap { from, at: from, began, rounds: 0 });
        Self {
            database,
            health,
            wall,
            connection: None,
            watch: Watch::default(),
            laps,
            turn: 0,
            pending: VecDeque::new(),
            rechecks: VecDeque::new(),
            recheck_next: false,
            system_at: None,
            rechecked_at: began,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = async {
                let began = Instant::now();
                let pause = match self.step().await {
                    Ok(Some(rest)) => (began.elapsed() * rest).clamp(PAUSE.0, PAUSE.1),
                    Ok(None) => IDLE,
                    Err(error) => {
                        // A slice cut off by a statement's time limit, or a view swapped meanwhile.
                        tracing::warn!(%error, "checking consistency");
                        self.connection = None;
                        RETRY_PAUSE
                    }
                };
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = next => {}
            }
        }
    }

    /// The most urgent look, and what rest it asks for. None: nothing is to be done yet.
    async fn step(&mut self) -> Result<Option<u32>, Error> {
        let now = Instant::now();
        if self.connection.is_none() {
            self.connection = Some(self.database.server().await?);
        }
        if self.system_at.is_none_or(|at| now - at >= SYSTEM_EVERY) {
            self.system_at = Some(now);
            self.first_look(Scope::System).await?;
            return Ok(Some(REST_AFTER_SLICE));
        }
        if self.pending.front().is_some_and(|(at, ..)| now - *at >= CONFIRM_AFTER)
            && let Some((_, scope, keys)) = self.pending.pop_front()
        {
            self.second_look(scope, &keys).await?;
            return Ok(Some(REST_AFTER_FOUND));
        }
        if self.rechecks.is_empty() && now - self.rechecked_at >= RECHECK_EVERY {
            self.rechecked_at = now;
            self.rechecks = self.health.scopes(RECHECKS_MAX).into();
        }
        // In turns: however much has been found, the rounds go on.
        self.recheck_next = !self.recheck_next;
        if !self.recheck_next && self.next_slice(now).await? {
            return Ok(Some(REST_AFTER_SLICE));
        }
        match self.rechecks.pop_front() {
            Some(scope) => {
                self.again(scope).await?;
                Ok(Some(REST_AFTER_FOUND))
            }
            None if self.recheck_next => {
                Ok(self.next_slice(now).await?.then_some(REST_AFTER_SLICE))
            }
            None => Ok(None),
        }
    }

    /// The next slice of the rounds, in turn: a long log keeps no user waiting. False: none is due.
    async fn next_slice(&mut self, now: Instant) -> Result<bool, Error> {
        for _ in 0..self.laps.len() {
            self.turn = (self.turn + 1) % self.laps.len();
            let lap = &mut self.laps[self.turn];
            if lap.at == Cursor::Done {
                if now - lap.began < ROUND_EVERY {
                    continue;
                }
                (lap.at, lap.began) = (lap.from, now);
            }
            let Some(db) = self.connection.as_mut() else { return Ok(false) };
            let scope = lap.at.next(db).await?;
            if lap.at == Cursor::Done {
                lap.rounds += 1;
            }
            if let Some(scope) = scope {
                self.first_look(scope).await?;
            }
            self.health.set_complete(self.laps.iter().all(|lap| lap.rounds > 0));
            return Ok(true);
        }
        Ok(false)
    }

    async fn look(&mut self, scope: &Scope) -> Result<Vec<Finding>, Error> {
        let Some(db) = self.connection.as_mut() else { return Ok(Vec::new()) };
        let looked = look(db, scope, Depth::Slice).await?;
        let mut findings = looked.findings;
        if *scope == Scope::System {
            findings.extend(system::skew(db, self.wall).await?);
            findings.extend(self.watch.look(&looked.versions, Instant::now()));
            self.health.note_views(looked.versions);
        }
        self.health.note_look(looked.now);
        Ok(findings)
    }

    /// What is found is kept for a second look.
    async fn first_look(&mut self, scope: Scope) -> Result<(), Error> {
        let now = Instant::now();
        for finding in self.look(&scope).await? {
            let (home, key) = (home(&finding, &scope), finding.key());
            if self.health.has(&key) {
                continue;
            }
            if self.pending.iter().any(|(_, scope, keys)| *scope == home && keys.contains(&key)) {
                continue;
            }
            // Those of one look share their second one.
            let together = self.pending.iter_mut().find(|(at, of, _)| *at == now && *of == home);
            if let Some((_, _, keys)) = together {
                keys.push(key);
            } else if self.pending.len() < PENDING_MAX {
                self.pending.push_back((now, home, vec![key]));
            }
        }
        Ok(())
    }

    /// What was found, and still is, a moment later in another snapshot.
    async fn second_look(&mut self, scope: Scope, keys: &[Key]) -> Result<(), Error> {
        for finding in self.look(&scope).await? {
            if keys.contains(&finding.key()) {
                self.health.put(finding, scope.clone());
            }
        }
        Ok(())
    }

    /// Whether it is still so.
    async fn again(&mut self, scope: Scope) -> Result<(), Error> {
        let found: Vec<Key> = self.look(&scope).await?.iter().map(Finding::key).collect();
        self.health.settle(&scope, &found);
        Ok(())
    }
}
