//! As much of WebSocket (RFC 6455) as a load generator needs: whole text frames, no extensions.
//!
//! Hand-written, as it shares the machine with what it measures, and ten thousand of them one
//! process. Masks are zero, which is a mask like any other, and leaves the bytes as they are.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest answer to a handshake, in bytes.
const HANDSHAKE_BYTES_MAX: usize = 8 * 1_024;
/// The last frame of a message, of text.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// Set in the length of whatever a client sends.
const MASKED: u8 = 0x80;
/// Lengths up to it stand in the second byte.
const SHORT_MAX: usize = 125;
/// In the second byte: the length stands in the next two, or eight.
const IN_TWO: u8 = 126;
const IN_EIGHT: u8 = 127;

/// What a client says when it goes, and means it.
const GOODBYE: &[u8] = &[CLOSE, MASKED | 2, 0, 0, 0, 0, 0x03, 0xE8];
/// The answer to a ping.
const PONG_FRAME: &[u8] = &[PONG, MASKED, 0, 0, 0, 0];

/// A text as a client sends it; at most 64 KiB.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![TEXT];
    if text.len() <= SHORT_MAX {
        bytes.push(MASKED | text.len() as u8);
    } else {
        bytes.push(MASKED | IN_TWO);
        bytes.extend((text.len() as u16).to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// What stands at the beginning of what has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not yet all of it.
    Partial,
    /// A text: where it stands. What follows begins at its end.
    Text(Range<usize>),
    /// A ping, so many bytes long.
    Ping(usize),
    /// A pong, so many bytes long.
    Pong(usize),
    /// The other side goes.
    Close,
    /// Nothing that this reads.
    Garbled,
}

/// Reads one frame from a server.
pub fn parse(bytes: &[u8]) -> Frame {
    let [kind, short, rest @ ..] = bytes else { return Frame::Partial };
    let (start, length) = match *short {
        IN_TWO => match rest.first_chunk() {
            Some(length) => (4, u16::from_be_bytes(*length).into()),
            None => return Frame::Partial,
        },
        IN_EIGHT => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length) as usize),
            None => return Frame::Partial,
        },
        short if short & MASKED == 0 => (2, short.into()),
        _ => return Frame::Garbled,
    };
    let end = start + length;
    if bytes.len() < end {
        return Frame::Partial;
    }
    match *kind {
        TEXT => Frame::Text(start..end),
        PING => Frame::Ping(end),
        PONG => Frame::Pong(end),
        CLOSE => Frame::Close,
        _ => Frame::Garbled,
    }
}

/// A connection, and what has arrived on it that nobody has read.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How much of it was read.
    read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Shakes hands over a fresh connection, with this token.
    pub async fn open(mut stream: S, token: &str) -> io::Result<Self> {
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: {}\r\nauthorization: Bearer {token}\r\n\r\n",
            api::live::ws::PROTOCOL
        );
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1_024);
        let read = loop {
            if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > HANDSHAKE_BYTES_MAX {
                return Err(complaint(&bytes));
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            return Err(complaint(&bytes));
        }
        Ok(Self { stream, bytes, read })
    }

    /// Sends what is a frame already.
    pub async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await
    }

    /// The next text. Pings are answered on the way.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        let text = loop {
            match parse(&self.bytes[self.read..]) {
                Frame::Text(text) => {
                    let text = self.read + text.start..self.read + text.end;
                    self.read = text.end;
                    break text;
                }
                Frame::Ping(length) => {
                    self.read += length;
                    self.stream.write_all(PONG_FRAME).await?;
                }
                Frame::Pong(length) => self.read += length,
                Frame::Partial => self.fill().await?,
                Frame::Close => return Err(complaint(&self.bytes[self.read..])),
                Frame::Garbled => return Err(io::ErrorKind::InvalidData.into()),
            }
        };
        Ok(&self.bytes[text])
    }

    /// Reads until a text has that in it, such as what answers a request.
    pub async fn next_with(&mut self, what: &[u8]) -> io::Result<&[u8]> {
        loop {
            let text = self.next().await?;
            let (length, found) = (text.len(), contains(text, what));
            if found {
                return Ok(&self.bytes[self.read - length..self.read]);
            }
        }
    }

    /// Goes, and means it: a logout.
    pub async fn close(mut self) -> io::Result<()> {
        close(&mut self.stream).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.stream.read_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Goes, and waits until the other side has seen to it.
pub async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(GOODBYE).await?;
    let mut bytes = Vec::with_capacity(1_024);
    while stream.read_buf(&mut bytes).await? > 0 {
        bytes.clear();
    }
    Ok(())
}

/// Whether a text has that in it.
pub fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

fn complaint(bytes: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_once_all_of_it_has_come() {
        for length in [0, 125, 126, 70_000] {
            let mut bytes = vec![TEXT];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=65_535 => {
                    bytes.push(IN_TWO);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(IN_EIGHT);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            let start = bytes.len();
            bytes.resize(start + length, b'x');
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Frame::Partial, "{end} of {length}");
            }
            bytes.push(PING);
            assert_eq!(parse(&bytes), Frame::Text(start..start + length));
        }
    }

    #[test]
    fn other_frames_are_told_apart() {
        assert_eq!(parse(&[PING, 1, b'x']), Frame::Ping(3));
        assert_eq!(parse(&[PONG, 0]), Frame::Pong(2));
        assert_eq!(parse(&[CLOSE, 0]), Frame::Close);
        assert_eq!(parse(&[TEXT, MASKED, 0, 0, 0, 0]), Frame::Garbled);
    }

    #[test]
    fn what_a_client_says_is_masked_with_zeros() {
        assert_eq!(text_frame("ab"), [TEXT, MASKED | 2, 0, 0, 0, 0, b'a', b'b']);
        let long = text_frame(&"x".repeat(300));
        assert_eq!(long[..8], [TEXT, MASKED | IN_TWO, 1, 44, 0, 0, 0, 0]);
    }
}
