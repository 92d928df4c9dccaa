//! One transition, and everybody who watches that user: from the commit to the last socket, in
//! terms of a bare loop over as many sockets.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::watchers::{self, Watchers};
use crate::Failure;
use crate::child::Server;
use crate::http::Request;
use crate::load;
use crate::machine::Usage;
use crate::plan::Limit;
use crate::report::median;
use crate::round::sample;
use crate::stage::{Setting, Stage};
use crate::works::{LONG_LEASE_MS, Outcome, Place};
use ::tests::ws::{self, Socket};

/// Whom all watch.
const STAR: &str = "star";
/// Changes before anything is counted.
const WARM_UP: usize = 10;
/// Ours in terms of the bare loop's.
const RATIO_MAX: f64 = 1.5;
/// Of the changes, so many must have a commit of their own.
const ALONE_MIN: f64 = 0.5;
/// How long the first change may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);

/// A change of ours, then one of the bare loop's, in turn.
pub(crate) async fn measure(place: &Place<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let sockets = place.extent.watchers;
    let setting = Setting { lease_ms: Some(LONG_LEASE_MS), fill: None };
    let stage = Stage::open(place.dir.join("fanout"), place.rollcall, &setting).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("broadcast");
    let bare = Server::start(command, "broadcast", stage.dir()).await?;
    stage.call("POST /v1/sessions", &format!(r#"{{"user_id":"{STAR}"}}"#)).await?;
    let tokens = stage.dir().join("tokens");
    introduce(&stage, sockets, &tokens).await?;
    let frame = frame(&stage).await?;
    let mut arena = Arena {
        ours: Watchers::start(stage.server.address, STAR, &tokens, sockets).await?,
        others: Watchers::start(bare.address, STAR, &tokens, sockets).await?,
        request: Request::new("POST /broadcast", "", &frame, 0),
        stage: &stage,
        bare: &bare,
        turn: 0,
    };
    for _ in 0..WARM_UP {
        arena.ours().await?;
        arena.bare().await?;
    }
    let (head, turn) = (stage.log.head().await?, arena.turn);
    let usage = Usage::now();
    let (mut ours, mut bare_loop) = (Vec::new(), Vec::new());
    for _ in 0..place.extent.rounds {
        let (mut round_ours, mut round_bare) = (Vec::new(), Vec::new());
        for _ in 0..place.extent.changes {
            round_ours.extend(arena.ours().await?);
            round_bare.push(arena.bare().await?);
        }
        ours.push(round_ours);
        bare_loop.push(round_bare);
    }
    let shares = &Usage::now() - &usage;
    let made = (arena.turn - turn) as u64;
    let found = stage.log.transitions(head, stage.log.head().await?).await?;
    if made != found {
        outcome.void(format!("{made} acknowledged, {found} found in the log"));
    }
    outcome.disturbed(&shares);
    outcome.notes.push(format!("processors used: {shares}"));
    let Arena { ours: watching, others: watching_bare, .. } = arena;
    watching.stop().await?;
    watching_bare.stop().await?;
    bare.stop().await?;
    stage.close().await?;
    report(&mut outcome, &ours, &bare_loop, made);
    Ok(outcome)
}

fn report(outcome: &mut Outcome, ours: &[Vec<f64>], bare: &[Vec<f64>], made: u64) {
    let of = |rounds: &[Vec<f64>], part: f64| {
        median(rounds.iter().map(|round| quantile(round.clone(), part)).collect())
    };
    for (name, rounds) in [("commit to last socket", ours), ("bare loop to last socket", bare)] {
        outcome.read(format!("{name}, p50"), of(rounds, 0.50), "ms");
        outcome.read(format!("{name}, p99"), of(rounds, 0.99), "ms");
    }
    let alone = ours.iter().map(Vec::len).sum::<usize>() as f64 / made as f64;
    if alone < ALONE_MIN {
        outcome.void(format!("only {:.0}% of the changes had an append alone", alone * 100.0));
    }
    let ratio = of(ours, 0.99) / of(bare, 0.99);
    outcome.hold("fanout p99/bare loop", ratio, Limit::AtMost(RATIO_MAX));
}

/// The value below which that part lies, or which it ends with.
fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Names, and a file of tokens, for everybody who watches.
async fn introduce(stage: &Stage, sockets: usize, file: &Path) -> Result<(), Failure> {
    let names: Vec<String> = (0..sockets).map(|number| format!("f{number:07}")).collect();
    stage.log.introduce(&names).await?;
    let tokens: Result<Vec<_>, _> = names.iter().map(|name| stage.token_of(name)).collect();
    std::fs::write(file, tokens?.join("\n"))?;
    Ok(())
}

/// What one change looks like: the very bytes that the bare loop sends, too.
async fn frame(stage: &Stage) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(stage.server.address).await?;
    let mut socket = Socket::open(&mut stream, &stage.token_of("witness")?).await?;
    socket.send(&ws::text_frame(r#"{"type":"open"}"#)).await?;
    socket.send(&watchers::watch_frame(STAR)).await?;
    socket.next_with(watchers::ACK).await?;
    change(stage, 1).await?;
    let text = socket.next_with(watchers::CHANGE);
    let text = String::from_utf8(tokio::time::timeout(FIRST_PATIENCE, text).await??.to_vec())?;
    ws::close(&mut stream).await?;
    Ok(text)
}

/// One transition, to one of two statuses in turn. Its position.
async fn change(stage: &Stage, turn: usize) -> Result<i64, Failure> {
    let status = if turn.is_multiple_of(2) { "busy" } else { "dnd" };
    let call = format!("PUT /v1/users/{STAR}/claims/system:bench");
    let answer = stage.call(&call, &format!(r#"{{"status":"{status}"}}"#)).await?;
    answer["position"].as_i64().ok_or_else(|| "a change without a position".into())
}

/// Both servers, and who watches them.
struct Arena<'a> {
    stage: &'a Stage,
    bare: &'a Server,
    ours: Watchers,
    others: Watchers,
    request: Request,
    turn: usize,
}

impl Arena<'_> {
    /// Milliseconds from the commit of a change to the last socket. None: its append was not the
    /// only one meanwhile, so that nothing says how long it took.
    ///
    /// PostgreSQL notes a commit before it is on disk. So the commit is where the append's answer
    /// was: what it took by the server's own account, after the clock that it noted at its start.
    async fn ours(&mut self) -> Result<Option<f64>, Failure> {
        let before = appends(&self.stage.metrics().await?);
        let position = change(self.stage, self.turn).await?;
        self.turn += 1;
        let last_us = self.ours.next_change().await?;
        let after = appends(&self.stage.metrics().await?);
        let began_us = self.stage.log.recorded_at_us(position).await?;
        Ok(append_us(before, after)
            .map(|took_us| (last_us as f64 - (began_us as f64 + took_us)) / 1_000.0))
    }

    /// The same from the beginning of the bare loop.
    async fn bare(&mut self) -> Result<f64, Failure> {
        let (status, body) = load::once(self.bare.address, self.request.bytes()).await?;
        let began_us: u64 = String::from_utf8(body)?.parse()?;
        if status != 200 {
            return Err(format!("the bare loop answers {status}").into());
        }
        let last_us = self.others.next_change().await?;
        Ok((last_us as f64 - began_us as f64) / 1_000.0)
    }
}

/// How many appends there were, and how long they took, in seconds.
fn appends(metrics: &str) -> (f64, f64) {
    let value = |name| sample(metrics, name).unwrap_or_default();
    (value("rollcall_append_seconds_count"), value("rollcall_append_seconds_sum"))
}

/// How long the only append between two looks took, in microseconds.
fn append_us(before: (f64, f64), after: (f64, f64)) -> Option<f64> {
    let alone = (after.0 - before.0 - 1.0).abs() < 0.5;
    alone.then_some((after.1 - before.1) * 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((quantile(values.clone(), 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((quantile(values, 0.50) - 50.0).abs() < f64::EPSILON);
        assert!((quantile(vec![7.0], 0.99) - 7.0).abs() < f64::EPSILON);
        assert!(quantile(Vec::new(), 0.5).is_nan());
    }

    #[test]
    fn an_append_is_timed_where_it_was_alone() {
        let took = append_us((3.0, 0.5), (4.0, 0.502)).unwrap_or_default();
        assert!((took - 2_000.0).abs() < 0.001);
        assert_eq!(append_us((3.0, 0.5), (5.0, 0.502)), None);
        assert_eq!(append_us((3.0, 0.5), (3.0, 0.5)), None);
    }
}
