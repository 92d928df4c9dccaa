//! Live feeds as lean as thousands of them in one process need: what comes is cut into events, and
//! read no further.

use std::io::{self, BufRead as _};
use std::ops::Range;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Client;
use crate::socket::resume_frame;
use crate::ws;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A session of which the server says so is not there any more, or never was this client's.
const LOST: [&str; 3] = ["session_closed", "resume_refused", "cursor_expired"];

/// What came.
#[derive(Debug)]
pub enum Told<'a> {
    /// How things stand: a JSON object.
    Snapshot(&'a [u8]),
    /// A change: a JSON object.
    Change(&'a [u8]),
    /// The server ends the connection, and says why.
    Error(&'a [u8]),
    /// Nothing of interest, such as a sign of life.
    Nothing,
}

/// Which kind of feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Server-sent events.
    Stream,
    /// A WebSocket.
    Socket,
}

/// An open feed. Dropped, it is cut off without a word.
#[derive(Debug)]
pub enum Feed {
    /// Server-sent events.
    Stream(Stream),
    /// A WebSocket.
    Socket(ws::Socket<TcpStream>),
}

impl Feed {
    /// The next event. Nothing is lost if the call is given up.
    pub async fn next(&mut self) -> io::Result<Told<'_>> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Socket(socket) => {
                let text = socket.next().await?;
                Ok(match kind_of(text) {
                    b"status_changed" => Told::Change(text),
                    b"snapshot" => Told::Snapshot(text),
                    b"error" => Told::Error(text),
                    other => panic!("{}", String::from_utf8_lossy(other)),
                })
            }
        }
    }
}

/// The first member of a frame is its type.
fn kind_of(text: &[u8]) -> &[u8] {
    const HEAD: &[u8] = br#"{"type":""#;
    let kind = text.strip_prefix(HEAD).expect("`type` is first");
    &kind[..kind.iter().position(|byte| *byte == b'"').unwrap()]
}

/// Opens a WebSocket with a session, or goes on with the one that `hello` tells of, and watches
/// these users, or everybody. Panics where the session is lost.
pub async fn open_socket(
    client: &Client,
    users: Option<&[String]>,
    hello: &mut Value,
    position: Option<i64>,
) -> io::Result<ws::Socket<TcpStream>> {
    let tcp = connect(client).await?;
    let mut socket = ws::Socket::open(tcp, client.token.as_deref().unwrap()).await?;
    let resumes = !hello.is_null();
    let first = if resumes { resume_frame(hello, position) } else { json!({ "type": "open" }) };
    let mut watch = json!({ "type": "watch" });
    if let Some(users) = users {
        watch["users"] = json!(users);
    }
    let said = [first, watch].map(|frame| ws::text_frame(&frame.to_string()));
    socket.send(&said.concat()).await?;
    loop {
        let frame: Value = serde_json::from_slice(socket.next().await?)?;
        match frame["type"].as_str().unwrap() {
            // On a slow way a session was opened before the wish arrived; then it is followed.
            "hello" if resumes && frame["resumed"] == false => {}
            "hello" => {
                let same = hello["session_id"] == frame["session_id"];
                assert!(!resumes || same, "{hello}, then {frame}");
                *hello = frame;
                return Ok(socket);
            }
            "error" => {
                let code = frame["code"].as_str().unwrap();
                assert!(!LOST.contains(&code), "{frame}");
                return Err(io::Error::other(code.to_owned()));
            }
            other => panic!("{other} before `hello`: {frame}"),
        }
    }
}

async fn connect(client: &Client) -> io::Result<TcpStream> {
    TcpStream::connect(client.base_url.strip_prefix("http://").unwrap()).await
}

/// Server-sent events.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    bytes: Vec<u8>,
    /// How much of it was read.
    read: usize,
}

impl Stream {
    /// Opens one that tells of these users, or of everybody, from a position on.
    pub async fn open(
        client: &Client,
        users: Option<&[String]>,
        position: Option<i64>,
    ) -> io::Result<Self> {
        let mut tcp = connect(client).await?;
        let query = users.map(|users| format!("?users={}", users.join(","))).unwrap_or_default();
        let last = position.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let token = client.token.as_deref().unwrap();
        // To HTTP/1.0 a body is sent as it is, to the connection's end.
        let request = format!(
            "GET /v1/stream{query} HTTP/1.0\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        );
        tcp.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1_024);
        loop {
            if tcp.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD_BYTES_MAX {
                return Err(complaint(&bytes));
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let good = bytes.starts_with(b"HTTP/1.0 200") || bytes.starts_with(b"HTTP/1.1 200");
                let open = Self { tcp, read: end + 4, bytes };
                return if good { Ok(open) } else { Err(complaint(&open.bytes)) };
            }
        }
    }

    /// The next event. Nothing is lost if the call is given up.
    pub async fn next(&mut self) -> io::Result<Told<'_>> {
        let block = loop {
            if let Some(block) = self.block() {
                break block;
            }
            self.bytes.drain(..self.read);
            self.read = 0;
            if self.tcp.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        self.read = block.end;
        let block = &self.bytes[block];
        let (mut event, mut data) = (&b""[..], &b""[..]);
        for line in block.split(|byte| *byte == b'\n') {
            if let Some(name) = line.strip_prefix(b"event: ") {
                event = name;
            } else if let Some(text) = line.strip_prefix(b"data: ") {
                data = text;
            } else if line == b": too_slow" {
                return Ok(Told::Error(line));
            }
        }
        Ok(match event {
            b"snapshot" => Told::Snapshot(data),
            b"status_changed" => Told::Change(data),
            b"" => Told::Nothing,
            other => panic!("{}", String::from_utf8_lossy(other)),
        })
    }

    /// The next lines up to an empty one, if they have come.
    fn block(&self) -> Option<Range<usize>> {
        let mut end = self.read;
        loop {
            // The standard library's search is optimised in tests, too.
            let length = (&self.bytes[end..]).skip_until(b'\n').unwrap_or_default();
            let whole = length > 0 && self.bytes[end + length - 1] == b'\n';
            if !whole {
                return None;
            }
            end += length;
            if length == 1 {
                return Some(self.read..end);
            }
        }
    }
}

fn complaint(bytes: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned())
}
