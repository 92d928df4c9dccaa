//! `rollcall import`.

use std::io::IsTerminal;
use std::path::Path;

use chrono::Datelike;
use indicatif::{ProgressBar, ProgressStyle};
use projections::Realm;
use tokio::io::{AsyncBufRead, BufReader};

use super::{Failure, Opened, join, print};
use crate::config::{ImportArgs, ImportFormat, LogFormat};
use crate::import::http::unreadable;
use crate::import::lines::{Line, Lines};
use crate::import::pam::PamLog;
use crate::import::status_csv::StatusCsv;
use crate::import::{CHUNK_LINES_MAX, Importer, Item, Rejected, Report, ndjson};
use crate::telemetry;

/// Reads a file into the log and prints the report as JSON; rejected lines also to stderr.
pub(super) async fn import(args: ImportArgs) -> Result<(), Failure> {
    telemetry::init_logs(LogFormat::Text);
    let (input, length) = open(&args.file).await?;
    let opened = Opened::open_or_make(&args.database).await?;
    let report = async {
        let realm = join(&opened.url).await?;
        let report = read(&realm, &args, input, progress(length)).await;
        realm.leave().await;
        report
    }
    .await;
    opened.close().await?;
    let report = report?;
    for rejected in &report.rejected {
        eprintln!("line {}: {}: {}", rejected.line, rejected.code, rejected.detail);
    }
    print(&serde_json::to_string(&report)?)
}

pub(super) type Input = Box<dyn AsyncBufRead + Unpin + Send>;

pub(super) async fn open(file: &Path) -> Result<(Input, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(tokio::io::stdin())), None));
    }
    let opened = tokio::fs::File::open(file).await;
    let opened = opened.map_err(|error| format!("{}: {error}", file.display()))?;
    let length = opened.metadata().await?.len();
    Ok((Box::new(BufReader::new(opened)), Some(length)))
}

/// Shown on a terminal only.
pub(super) fn progress(length: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

/// How lines of the chosen format are understood.
enum Parser {
    Ndjson,
    Pam(PamLog),
    StatusCsv(StatusCsv),
}

impl Parser {
    async fn of(args: &ImportArgs, lines: &mut Lines<Input>) -> Result<Self, Failure> {
        Ok(match args.format {
            ImportFormat::Ndjson => Self::Ndjson,
            ImportFormat::Pam => {
                Self::Pam(PamLog::new(args.year.unwrap_or_else(|| chrono::Utc::now().year())))
            }
            ImportFormat::StatusCsv => Self::StatusCsv(header(lines).await?),
        })
    }

    fn parse(&mut self, number: u64, text: &str) -> Result<Option<Item>, Rejected> {
        match self {
            Self::Ndjson if text.trim().is_empty() => Ok(None),
            Self::Ndjson => ndjson::parse(number, text).map(Some),
            Self::Pam(log) => log.parse(number, text),
            Self::StatusCsv(table) => table.parse(number, text),
        }
    }
}

/// The columns of a status table, by its first line.
pub(super) async fn header(lines: &mut Lines<Input>) -> Result<StatusCsv, Failure> {
    match lines.next().await? {
        Some(Line::Text(text)) => Ok(StatusCsv::of_header(&text)?),
        Some(line @ (Line::TooLong | Line::NotText)) => Err(unreadable(1, &line).detail.into()),
        None => Err("the file is empty".into()),
    }
}

async fn read(
    realm: &Realm,
    args: &ImportArgs,
    input: Input,
    bar: ProgressBar,
) -> Result<Report, Failure> {
    let mut lines = Lines::new(input);
    let mut parser = Parser::of(args, &mut lines).await?;
    let mut importer = Importer::new(realm, None);
    let mut items = Vec::with_capacity(CHUNK_LINES_MAX);
    while let Some(line) = lines.next().await? {
        let parsed = match &line {
            Line::Text(text) => parser.parse(lines.count, text),
            Line::TooLong | Line::NotText => Err(unreadable(lines.count, &line)),
        };
        match parsed {
            Ok(item) => items.extend(item),
            Err(rejected) => importer.report.reject(rejected),
        }
        if items.len() >= CHUNK_LINES_MAX {
            importer.take(std::mem::take(&mut items)).await?;
            bar.set_position(lines.bytes);
        }
    }
    importer.take(items).await?;
    bar.finish_and_clear();
    Ok(importer.finish().await?)
}
