//! Apache Parquet, by the crate's own column writers: Arrow would be four times the build.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::table::{Cell, Column, Kind, Row};

/// Rows that are held in memory before they are written together.
pub const GROUP_ROWS: usize = 16_384;

/// A file that grows row by row.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

impl<W: Write + Send> ParquetFile<W> {
    /// A file of those columns. Every one of them may be empty in a row.
    pub fn begin(sink: W, columns: &'static [Column]) -> Result<Self> {
        let fields = columns.iter().map(field).collect::<Result<_>>()?;
        let schema = Type::group_type_builder("rollcall").with_fields(fields).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, columns, rows: Vec::new() })
    }

    /// Takes one row.
    pub fn push(&mut self, cells: Vec<Cell>) -> Result<()> {
        self.rows.push(cells);
        if self.rows.len() >= GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    /// Writes what is left; the sink.
    pub fn finish(mut self) -> Result<W> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for (index, column) in self.columns.iter().enumerate() {
            let missing = || ParquetError::General(format!("column {} is missing", column.name));
            let mut writer = group.next_column()?.ok_or_else(missing)?;
            let cells = rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Empty));
            write_column(&mut writer, column.kind, cells)?;
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}

/// All rows in one file.
pub fn file<R: Row>(rows: &[R]) -> Result<Vec<u8>> {
    let mut file = ParquetFile::begin(Vec::new(), R::COLUMNS)?;
    for row in rows {
        file.push(row.cells())?;
    }
    file.finish()
}

fn field(column: &Column) -> Result<TypePtr> {
    let instant = LogicalType::timestamp(true, TimeUnit::MICROS);
    let (physical, logical) = match column.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Integer => (Physical::INT64, None),
        Kind::Real => (Physical::DOUBLE, None),
        Kind::Instant => (Physical::INT64, Some(instant)),
    };
    let field = Type::primitive_type_builder(column.name, physical)
        .with_logical_type(logical)
        .with_repetition(Repetition::OPTIONAL)
        .build()?;
    Ok(Arc::new(field))
}

fn write_column<'a>(
    writer: &mut SerializedColumnWriter<'_>,
    kind: Kind,
    cells: impl Iterator<Item = &'a Cell>,
) -> Result<()> {
    use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
    let (mut present, mut texts, mut integers, mut reals) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        present.push(i16::from(*cell != Cell::Empty));
        match cell {
            Cell::Empty => {}
            Cell::Text(text) => texts.push(ByteArray::from(text.as_str())),
            Cell::Integer(number) => integers.push(*number),
            Cell::Real(number) => reals.push(*number),
            Cell::Instant(at) => integers.push(at.timestamp_micros()),
        }
    }
    let present = Some(present.as_slice());
    match kind {
        Kind::Text => writer.typed::<ByteArrayType>().write_batch(&texts, present, None)?,
        Kind::Real => writer.typed::<DoubleType>().write_batch(&reals, present, None)?,
        Kind::Integer | Kind::Instant => {
            writer.typed::<Int64Type>().write_batch(&integers, present, None)?
        }
    };
    Ok(())
}
