//! CSV (RFC 4180): a line of column names, then a line a row. Nothing is an empty field.

use std::io::{self, Write};

use chrono::SecondsFormat;

use super::table::{Cell, Column, Row};

/// A file that grows row by row.
pub struct CsvFile<W: Write>(csv::Writer<W>);

impl<W: Write> CsvFile<W> {
    /// Writes the names of the columns.
    pub fn begin(sink: W, columns: &[Column]) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(sink);
        writer.write_record(columns.iter().map(|column| column.name))?;
        Ok(Self(writer))
    }

    /// Writes one row.
    pub fn push(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        Ok(self.0.write_record(cells.into_iter().map(text))?)
    }

    /// Writes what is left; the sink.
    pub fn finish(self) -> io::Result<W> {
        self.0.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

/// All rows in one file.
pub fn file<R: Row>(rows: &[R]) -> io::Result<Vec<u8>> {
    let mut file = CsvFile::begin(Vec::new(), R::COLUMNS)?;
    for row in rows {
        file.push(row.cells())?;
    }
    file.finish()
}

fn text(cell: Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) => text,
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Instant(at) => at.to_rfc3339_opts(SecondsFormat::Micros, true),
    }
}
