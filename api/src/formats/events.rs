//! Events of the log in a file that grows, whatever its form: for answers and for exports.

use std::io::{self, Write};

use super::Format;
use super::cloudevents::CloudEvent;
use super::csv::CsvFile;
use super::parquet::ParquetFile;
use super::table::{Cell, Column, Kind, Row, column};
use crate::problem::Problem;
use crate::shapes::{EventBody, StatusName};

/// The forms of a file of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventForm {
    /// A JSON object a line.
    Ndjson,
    /// RFC 4180; `data` is JSON.
    Csv,
    /// Apache Parquet; `data` is JSON.
    Parquet,
    /// A batch of `CloudEvents` 1.0.
    CloudEvents,
}

impl EventForm {
    /// The form of a file in that format, if files have it.
    pub const fn of(format: Format) -> Option<Self> {
        match format {
            Format::Ndjson => Some(Self::Ndjson),
            Format::Csv => Some(Self::Csv),
            Format::Parquet => Some(Self::Parquet),
            Format::CloudEvents => Some(Self::CloudEvents),
            Format::Json | Format::Svg => None,
        }
    }
}

impl Row for EventBody {
    const COLUMNS: &'static [Column] = &[
        column("position", Kind::Integer),
        column("type", Kind::Text),
        column("user_id", Kind::Text),
        column("sequence", Kind::Integer),
        column("session_id", Kind::Text),
        column("from_status", Kind::Text),
        column("to_status", Kind::Text),
        column("occurred_at", Kind::Instant),
        column("recorded_at", Kind::Instant),
        column("reason", Kind::Text),
        column("actor", Kind::Text),
        column("data", Kind::Text),
    ];

    fn cells(&self) -> Vec<Cell> {
        let status = |name: Option<StatusName>| name.map(|s| domain::Status::from(s).as_str());
        vec![
            self.position.into(),
            self.name.as_str().into(),
            self.user_id.as_ref().map(domain::UserId::as_str).into(),
            self.sequence.into(),
            self.session_id.map(|id| id.to_string()).into(),
            status(self.from_status).into(),
            status(self.to_status).into(),
            self.occurred_at.0.into(),
            self.recorded_at.0.into(),
            self.reason.into(),
            self.actor.as_ref().map(domain::UserId::as_str).into(),
            serde_json::Value::Object(self.data.clone()).to_string().into(),
        ]
    }
}

/// A file that grows event by event.
pub enum EventFile<W: Write + Send> {
    /// A line each.
    Lines(W),
    /// A line each, below the names.
    Csv(Box<CsvFile<W>>),
    /// Groups of rows.
    Parquet(Box<ParquetFile<W>>),
    /// One array.
    Batch {
        /// Where it goes.
        sink: W,
        /// How many there are.
        events: u64,
    },
}

impl<W: Write + Send> EventFile<W> {
    /// An empty file of that form.
    pub fn begin(form: EventForm, mut sink: W) -> io::Result<Self> {
        let columns = EventBody::COLUMNS;
        Ok(match form {
            EventForm::Ndjson => Self::Lines(sink),
            EventForm::Csv => Self::Csv(Box::new(CsvFile::begin(sink, columns)?)),
            EventForm::Parquet => {
                let file = ParquetFile::begin(sink, columns).map_err(io::Error::other)?;
                Self::Parquet(Box::new(file))
            }
            EventForm::CloudEvents => {
                sink.write_all(b"[")?;
                Self::Batch { sink, events: 0 }
            }
        })
    }

    /// Takes one event.
    pub fn push(&mut self, event: &EventBody) -> io::Result<()> {
        match self {
            Self::Lines(sink) => {
                serde_json::to_writer(&mut *sink, event)?;
                sink.write_all(b"\n")
            }
            Self::Csv(file) => file.push(event.cells()),
            Self::Parquet(file) => file.push(event.cells()).map_err(io::Error::other),
            Self::Batch { sink, events } => {
                sink.write_all(if *events == 0 { b"\n" } else { b",\n" })?;
                *events += 1;
                Ok(serde_json::to_writer(sink, &CloudEvent::from(event))?)
            }
        }
    }

    /// Ends the file; the sink, to which everything has been written.
    pub fn finish(self) -> io::Result<W> {
        let mut sink = match self {
            Self::Lines(sink) => sink,
            Self::Csv(file) => file.finish()?,
            Self::Parquet(file) => file.finish().map_err(io::Error::other)?,
            Self::Batch { mut sink, .. } => {
                sink.write_all(b"\n]\n")?;
                sink
            }
        };
        sink.flush()?;
        Ok(sink)
    }
}

/// All of these events in one file. Errors: 500, which no data can bring about.
pub fn file(form: EventForm, events: &[EventBody]) -> Result<Vec<u8>, Problem> {
    let write = || {
        let mut file = EventFile::begin(form, Vec::new())?;
        for event in events {
            file.push(event)?;
        }
        file.finish()
    };
    write().map_err(Problem::internal)
}
