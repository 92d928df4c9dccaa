//! `rollcall export`: the log into a file, in bounded memory, beside a running server or alone.
//!
//! Page by page, each a short statement of its own: while a long transaction is open, every
//! heartbeat costs the database more.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use domain::Position;
use indicatif::{ProgressBar, ProgressStyle};
use projections::db::{Database, Pool};
use projections::log::{self, Filter};
use tempfile::NamedTempFile;

use super::serve::Signals;
use super::{Failure, Opened};
use crate::config::{ExportArgs, ExportFormat, LogFormat};
use crate::formats::events::{EventFile, EventForm};
use crate::shapes::EventBody;
use crate::telemetry;

/// Events of one page: what is held in memory, with [`crate::formats::parquet::GROUP_ROWS`].
const PAGE_EVENTS: usize = 5_000;
/// Of the file, less what the umask takes away.
const FILE_MODE: u32 = 0o666;

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
        Ok(Output::Stream(sink)) => write(&pool, args, sink).await,
        Ok(Output::File { unfinished, target }) => whole(&pool, args, unfinished, &target).await,
        Err(failure) => Err(failure),
    };
    pool.close().await;
    // Whoever stopped reading has read enough.
    match done {
        Err(failure) if is_broken_pipe(&failure) => Ok(()),
        done => done,
    }
}

/// Nobody takes half of a file for all: it gets its name once it is whole, and goes away if it
/// never is.
async fn whole(
    pool: &Pool,
    args: &ExportArgs,
    unfinished: NamedTempFile,
    target: &Path,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let sink = Box::new(unfinished.reopen()?);
    tokio::select! {
        written = write(pool, args, sink) => written?,
        () = signals.any() => return Err(format!("stopped: no {}", target.display()).into()),
    }
    unfinished.persist(target).map_err(|failed| about(target, &failed.error))?;
    Ok(())
}

async fn write(pool: &Pool, args: &ExportArgs, sink: Sink) -> Result<(), Failure> {
    let filter = filter(pool, args).await?;
    let mut file = EventFile::begin(form(args.format), BufWriter::new(sink))?;
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

type Sink = Box<dyn Write + Send>;

/// Where the events go.
enum Output {
    /// Standard output, a pipe or a device: as they come.
    Stream(Sink),
    /// A file, under a name of its own beside its place until it is whole.
    File { unfinished: NamedTempFile, target: PathBuf },
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stream(Box::new(io::stdout())));
        };
        let wrong = |error: io::Error| about(path, &error);
        let target = match path.metadata() {
            Ok(found) if !found.is_file() => {
                let opened = OpenOptions::new().write(true).open(path).map_err(wrong)?;
                return Ok(Self::Stream(Box::new(opened)));
            }
            // A link stays one: what it leads to is replaced.
            Ok(_) => path.canonicalize().map_err(wrong)?,
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                path.to_owned()
            }
            Err(error) => return Err(wrong(error).into()),
        };
        let unfinished = unfinished(&target).map_err(wrong)?;
        Ok(Self::File { unfinished, target })
    }
}

/// `log.csv.Xy12Zz.part` beside `log.csv`: two exports at once do not share it.
fn unfinished(target: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = target.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".part")
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(dir.unwrap_or_else(|| Path::new(".")))
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
