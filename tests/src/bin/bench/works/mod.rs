//! Works that are no plain rate: each has a stage of its own, and says what it has found.
//!
//! - [`fanout`]: one transition to everybody who watches; [`watchers`]: those who do
//! - [`expire`]: many leases that end in one second
//! - [`rebuild`]: views made anew from a long log, beside heartbeats
//! - [`growth`]: heartbeats as sessions and log grow; [`memory`]: what a session takes of it

pub(crate) mod expire;
pub(crate) mod fanout;
pub(crate) mod growth;
pub(crate) mod memory;
pub(crate) mod rebuild;
pub(crate) mod watchers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future;

use crate::Failure;
use crate::extent::Extent;
use crate::http::{Answer, Request};
use crate::load::{self, Script, Tally, Timing};
use crate::machine::Shares;
use crate::plan::{Limit, Work};
use crate::scripts::{Names, One};
use crate::stage::Stage;

/// What a client sends.
const BEAT: &str = r#"{"idle_ms":0}"#;
/// Connections that send heartbeats beside a work, or for it: as many as `heartbeat` has.
const CONNECTIONS: usize = 512;
/// How long anything may take that heartbeats are sent beside.
const WORK_PATIENCE: Duration = Duration::from_mins(20);
/// A lease that no work outlasts, in milliseconds: where nothing is to end.
pub(crate) const LONG_LEASE_MS: u32 = 12 * 3_600_000;

/// One number that a work has found.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// What is held against a bar.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Limit,
}

/// What came of a work.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) readings: Vec<Reading>,
    pub(crate) verdicts: Vec<Verdict>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    /// Why nothing of it counts.
    pub(crate) void: Option<String>,
    /// The largest part of the machine that others used.
    pub(crate) others: f64,
}

impl Outcome {
    /// Adds a number.
    pub(crate) fn read(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.readings.push(Reading { name: name.into(), value, unit });
    }

    /// Holds a number against a bar.
    pub(crate) fn hold(&mut self, name: &'static str, value: f64, limit: Limit) {
        self.verdicts.push(Verdict { name, value, limit });
    }

    /// Nothing of it counts, for the first reason given.
    pub(crate) fn void(&mut self, why: impl Into<String>) {
        self.void.get_or_insert_with(|| why.into());
    }

    /// Notes who else was at work.
    pub(crate) fn disturbed(&mut self, shares: &Shares) {
        self.others = self.others.max(shares.others);
    }
}

/// Where works are done.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// A directory for stages.
    pub(crate) dir: PathBuf,
    /// The server's program.
    pub(crate) rollcall: &'a Path,
    pub(crate) extent: Extent,
}

/// Does one work.
pub(crate) async fn measure(place: &Place<'_>, work: Work) -> Result<Outcome, Failure> {
    match work {
        Work::Fanout => fanout::measure(place).await,
        Work::Expire => expire::measure(place).await,
        Work::Rebuild => rebuild::measure(place).await,
        Work::Growth => growth::measure(place).await,
        Work::Memory => memory::measure(place).await,
    }
}

/// Heartbeats of some sessions, each connection's its own, proved by the log.
pub(crate) async fn heartbeats(
    stage: &Stage,
    sessions: &Names,
    timing: Timing,
    outcome: &mut Outcome,
) -> Result<Tally, Failure> {
    beats(stage, own_beats(stage, sessions), timing, outcome).await
}

/// Heartbeats from `warm_up` from now on, until something else is done.
pub(crate) async fn heartbeats_beside<T>(
    stage: &Stage,
    sessions: &Names,
    warm_up: Duration,
    outcome: &mut Outcome,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<(Tally, T), Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let scripts = own_beats(stage, sessions)
        .into_iter()
        .map(|beat| Until { beat, over: Arc::clone(&over) })
        .collect();
    let work = async {
        let done = tokio::time::timeout(WORK_PATIENCE, work).await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let timing = Timing { warm_up, measured: WORK_PATIENCE };
    let (tally, done) = future::join(beats(stage, scripts, timing, outcome), work).await;
    Ok((tally?, done??))
}

/// Heartbeats, until somebody says that it is over.
struct Until {
    beat: One,
    over: Arc<AtomicBool>,
}

impl Script for Until {
    fn next(&mut self) -> &[u8] {
        self.beat.next()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        self.beat.acknowledged(answer)
    }

    fn is_done(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// One script for each connection.
fn own_beats(stage: &Stage, sessions: &Names) -> Vec<One> {
    let call = "POST /v1/sessions/{}/heartbeat";
    let request = Request::new(call, &stage.token, BEAT, sessions.width());
    One::each_of_its_own(CONNECTIONS, &request, sessions)
}

/// Whatever sends heartbeats, proved by the log.
async fn beats<S: Script>(
    stage: &Stage,
    scripts: Vec<S>,
    timing: Timing,
    outcome: &mut Outcome,
) -> Result<Tally, Failure> {
    let before = stage.log.head().await?;
    let tally = load::drive(stage.server.address, scripts, timing).await?;
    let found = stage.log.heartbeats(before, stage.log.head().await?).await?;
    if let Some(complaint) = &tally.complaint {
        outcome.void(format!("{} errors, the first: {complaint}", tally.errors));
    } else if found != tally.acknowledged {
        outcome.void(format!("{} acknowledged, {found} found in the log", tally.acknowledged));
    }
    outcome.disturbed(&tally.shares);
    Ok(tally)
}

/// Units a second: to the end of the window, or to the last answer where it came before.
pub(crate) fn rate(tally: &Tally, timing: Timing) -> f64 {
    tally.counted as f64 / timing.measured.min(tally.took).as_secs_f64()
}
