//! Lines of bounded length from a stream of any length.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::limits::IMPORT_LINE_BYTES_MAX;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Text(String),
    /// Longer than [`IMPORT_LINE_BYTES_MAX`]; skipped to its end.
    TooLong,
    /// Not UTF-8.
    NotText,
}

/// Reads lines and counts them.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    /// Lines read.
    pub count: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// From the beginning.
    pub fn new(reader: R) -> Self {
        Self { reader, count: 0, bytes: 0 }
    }

    /// The next line; none at the end.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        let limit = IMPORT_LINE_BYTES_MAX as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(None);
        }
        self.count += 1;
        self.bytes += read as u64;
        let ended = line.last() == Some(&b'\n');
        if !ended && line.len() > IMPORT_LINE_BYTES_MAX {
            self.skip_line().await?;
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(match String::from_utf8(line) {
            Ok(text) => Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(_) => Line::NotText,
        }))
    }

    async fn skip_line(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf().await?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let skipped = end.map_or(buffer.len(), |end| end + 1);
            let done = end.is_some() || skipped == 0;
            self.reader.consume(skipped);
            self.bytes += skipped as u64;
            if done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(bytes);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return_or_at_the_end() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(all(b"a\r\nb\n\nc").await, [text("a"), text("b"), text(""), text("c")]);
    }

    #[tokio::test]
    async fn a_line_too_long_is_skipped_to_its_end() {
        let mut bytes = vec![b'x'; IMPORT_LINE_BYTES_MAX * 3];
        bytes.extend(b"\nb\n");
        assert_eq!(all(&bytes).await, [Line::TooLong, Line::Text("b".to_owned())]);
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_do_not_stop_the_rest() {
        assert_eq!(all(b"\xff\nb").await, [Line::NotText, Line::Text("b".to_owned())]);
    }
}
