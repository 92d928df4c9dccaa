//! The benchmark: one command that starts a PostgreSQL, a server as shipped, and the references,
//! drives them in turn, checks that whatever was acknowledged stands in the log, and says which
//! bars of BENCH.md are met. Only ratios taken in one run on one machine count.
//!
//! Reading order: `plan` (what is measured, and the bars), `extent` (how much), `stage` (what
//! runs), `fill` (a log that is long already), `site` (who is logged in), `child`, `round` (one
//! figure, once), `load` and `http` (the load generator, with `ws` of the tests), `scripts`,
//! `sockets` and `past` (what it asks), `log` (the proof), `works` (what is no rate), `reference`
//! (what we are compared to), `machine` (who uses the processors), `report`.

mod child;
mod extent;
mod fill;
mod http;
mod load;
mod log;
mod machine;
mod past;
mod plan;
mod reference;
mod report;
mod round;
mod scripts;
mod site;
mod sockets;
mod stage;
mod works;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::extent::Extent;
use crate::machine::OTHERS_MAX;
use crate::plan::{Chosen, Figure};
use crate::report::{Measured, Series};
use crate::site::Site;
use crate::works::Place;
use crate::works::watchers::{self, WatchArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why there is no result.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How fast Rollcall is, in terms of what it could be and of what it replaces.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this, and what it is compared to; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Fewer sessions and shorter rounds: under a minute
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// Longer rounds, more sockets, and works that take an hour
    #[arg(long)]
    long: bool,
    /// Rounds of each figure, instead of the usual number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: Option<u8>,
    /// Live sessions, instead of the usual number
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Length of a round, instead of the usual one
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Most events that a log is filled with before its server starts; beyond: left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    events_max: Option<u64>,
    /// Writes the bars and figures there, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The server to measure, instead of the one that is built from this workspace
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Where the database is made, on the disk to be measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a reference: the benchmark calls itself so
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
    /// Serve the bare loop over sockets
    #[command(hide = true)]
    Broadcast,
    /// Watch somebody over many sockets
    #[command(hide = true)]
    Watch(WatchArgs),
}

impl Cli {
    fn extent(&self) -> Extent {
        let mut extent = match (self.quick, self.long) {
            (true, _) => Extent::QUICK,
            (false, true) => Extent::long(),
            (false, false) => Extent::USUAL,
        };
        extent.rounds = self.rounds.map_or(extent.rounds, usize::from);
        extent.sessions = self.sessions.unwrap_or(extent.sessions).max(extent::FEW_SESSIONS);
        if let Some(seconds) = self.seconds {
            extent.timing.measured = Duration::from_secs(seconds.into());
        }
        extent.events_max = self.events_max.unwrap_or(extent.events_max);
        extent
    }
}

/// Exit status: 0 every bar met, 1 no result, 3 a bar missed.
#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Reference(args)) => reference::serve(args).await.map(|()| true),
        Some(Command::Broadcast) => {
            api::serve::raise_open_files_limit();
            reference::broadcast::serve().await.map(|()| true)
        }
        Some(Command::Watch(args)) => {
            api::serve::raise_open_files_limit();
            watchers::watch(args).await.map(|()| true)
        }
        None => tokio::select! {
            done = bench(&cli) => done,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(cli: &Cli) -> Result<bool, Failure> {
    let chosen = plan::chosen(&cli.only, cli.long)?;
    let rollcall = match &cli.server {
        Some(server) => server.clone(),
        None => child::rollcall().await?,
    };
    // What connects is us and the server, each with a thousand sockets and more.
    api::serve::raise_open_files_limit();
    let others = machine::others().await;
    if others > OTHERS_MAX {
        eprintln!("WARNING: others use {:.0}% of this machine", others * 100.0);
    }
    let dir = cli.dir.join(format!("rollcall-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = measure(&dir, &rollcall, &chosen, cli.extent()).await;
    if measured.is_err() {
        eprintln!("what it has left is in {}", dir.display());
    }
    let measured = measured?;
    std::fs::remove_dir_all(&dir)?;
    report::print(&measured, cli.json.as_deref())
}

/// Everything, once.
async fn measure(
    dir: &Path,
    rollcall: &Path,
    chosen: &Chosen,
    extent: Extent,
) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    if !chosen.figures.is_empty() {
        let dir = dir.join("rates");
        rates(dir, rollcall, &chosen.figures, extent, &mut measured).await?;
    }
    let place = Place { dir: dir.to_owned(), rollcall, extent };
    for &work in &chosen.works {
        eprintln!("{}", work.name());
        let outcome = works::measure(&place, work).await?;
        measured.works.push((work, outcome));
    }
    Ok(measured)
}

/// Every figure once a round, round after round; and those that cannot be had here.
async fn rates(
    dir: PathBuf,
    rollcall: &Path,
    figures: &[Figure],
    extent: Extent,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let mut site = Site::open(dir, rollcall, figures, extent).await?;
    let mut all: Vec<Series> =
        figures.iter().map(|&figure| Series { figure, rounds: Vec::new() }).collect();
    let mut batch = (0, 0);
    for number in 1..=extent.rounds {
        for series in &mut all {
            let measured = round::measure(&mut site, series.figure, &mut batch).await?;
            if let Some(round) = &measured {
                let name = series.figure.name();
                eprintln!("round {number}/{}: {name} {:.0}", extent.rounds, round.rate);
            }
            series.rounds.extend(measured);
        }
    }
    site.close().await?;
    let (all, missing): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|series| !series.rounds.is_empty());
    measured.series = all;
    measured.missing = missing.into_iter().map(|series| series.figure).collect();
    Ok(())
}
