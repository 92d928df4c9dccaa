//! `rollcall export`: the log into a file, in bounded memory, beside a running server or alone.
//!
//! Page by page, each a short statement of its own: while a long transaction is open, every
//! heartbeat costs the database more.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use domain::Position;
use indicatif::{ProgressBar, ProgressStyle};
use projections::db::{Database, Pool};
use projections::log::{self, Filter};

use super::{Failure, Opened};
use crate::config::{ExportArgs, ExportFormat, LogFormat};
use crate::formats::events::{EventFile, EventForm};
use crate::shapes::EventBody;
use crate::telemetry;

/// Events of one page: what is held in memory, with [`crate::formats::parquet::GROUP_ROWS`].
const PAGE_EVENTS: usize = 5_000;

/// Writes the events that were asked for, in position order, up to the head found at the start.
pub(super) async fn export(args: ExportArgs) -> Result<(), Failure> {
    telemetry::init_logs(LogFormat::Text);
    if args.from.zip(args.to).is_some_and(|(from, to)| from >= to) {
        return Err("--from must be before --to".into());
    }
    let opened = Opened::open(&args.database).await?;
    let exported = read(&opened.url, &args).await;
    opened.close().await?;
    exported
}

async fn read(url: &str, args: &ExportArgs) -> Result<(), Failure> {
    let database = Database::new(url)?;
    database.migrate().await?;
    let pool = database.pool();
    let done = match Output::open(args.output.as_deref()) {
        Ok(output) => write(&pool, args, output).await,
        Err(failure) => Err(failure),
    };
    pool.close().await;
    // Whoever stopped reading has read enough.
    match done {
        Err(failure) if is_broken_pipe(&failure) => Ok(()),
        done => done,
    }
}

async fn write(pool: &Pool, args: &ExportArgs, output: Output) -> Result<(), Failure> {
    let filter = filter(pool, args).await?;
    let mut file = EventFile::begin(form(args.format), BufWriter::new(output.sink))?;
    let mut after: Position = 0;
    let mut head = None;
    let bar = progress();
    let mut events: u64 = 0;
    loop {
        let page = log::page(pool, &filter, after, PAGE_EVENTS).await?;
        let last = *head.get_or_insert(page.head);
        bar.set_length(last.unsigned_abs());
        for event in page.events.into_iter().take_while(|event| event.position <= last) {
            file.push(&EventBody::from(event))?;
            events += 1;
        }
        after = page.next;
        bar.set_position(after.min(last).unsigned_abs());
        bar.set_message(format!("{events} events"));
        if after >= last {
            break;
        }
    }
    file.finish()?;
    bar.finish_and_clear();
    if let Some(target) = &output.target {
        std::fs::rename(unfinished(target), target).map_err(|e| about(target, &e))?;
    }
    eprintln!("{events} events up to position {after}");
    Ok(())
}

async fn filter(pool: &Pool, args: &ExportArgs) -> Result<Filter, Failure> {
    let users = match args.users.as_slice() {
        [] => None,
        names => Some(log::numbers(pool, names).await?),
    };
    if users.as_ref().is_some_and(|found| found.len() < args.users.len()) {
        eprintln!("rollcall: some of these users were never seen");
    }
    Ok(Filter {
        heartbeats: args.heartbeats,
        types: (!args.types.is_empty()).then(|| args.types.clone()),
        users,
        from: args.from,
        to: args.to,
        ..Filter::default()
    })
}

const fn form(format: ExportFormat) -> EventForm {
    match format {
        ExportFormat::Ndjson => EventForm::Ndjson,
        ExportFormat::Csv => EventForm::Csv,
        ExportFormat::Parquet => EventForm::Parquet,
        ExportFormat::Cloudevents => EventForm::CloudEvents,
    }
}

/// Where the file goes.
struct Output {
    sink: Box<dyn Write + Send>,
    /// Its name, once it is whole; none: standard output.
    target: Option<PathBuf>,
}

impl Output {
    fn open(target: Option<&Path>) -> Result<Self, Failure> {
        let Some(target) = target.filter(|target| *target != Path::new("-")) else {
            return Ok(Self { sink: Box::new(io::stdout()), target: None });
        };
        let file = File::create(unfinished(target)).map_err(|e| about(target, &e))?;
        Ok(Self { sink: Box::new(file), target: Some(target.to_owned()) })
    }
}

/// What the file is called until it is whole: nobody takes half of it for all.
fn unfinished(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn about(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn is_broken_pipe(failure: &Failure) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**failure);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Shown on a terminal only.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{wide_bar} {percent} % {msg} {eta}";
    ProgressBar::new(0).with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
