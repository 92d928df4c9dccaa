//! A reader of server-sent events.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use reqwest::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::Client;

/// Longer than any event may take that is waited for.
const EVENT_MAX: Duration = Duration::from_mins(1);
/// Longer than any stream stays open.
const OPEN_MAX: Duration = Duration::from_mins(10);

/// An open stream.
pub struct EventStream {
    bytes: Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>,
    read: Vec<u8>,
}

/// One event, or a comment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamEvent {
    /// Its name.
    pub event: String,
    /// Its id.
    pub id: Option<i64>,
    /// What it says.
    pub data: Value,
    /// A comment.
    pub comment: Option<String>,
}

impl EventStream {
    /// Opens a stream at `path`, going on from an event's id if one is given.
    pub async fn open(client: &Client, path: &str, last_id: Option<i64>) -> Self {
        let request = client.request(Method::GET, path).timeout(OPEN_MAX);
        let request = match last_id {
            Some(id) => request.header("Last-Event-ID", id.to_string()),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = response.bytes_stream();
        let bytes = bytes.take_while(|read| std::future::ready(read.is_ok()));
        let bytes = bytes.filter_map(|read| std::future::ready(read.ok().map(|b| b.to_vec())));
        Self { bytes: Box::pin(bytes), read: Vec::new() }
    }

    /// The next event or comment; none, if the stream has ended.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        timeout(EVENT_MAX, self.read()).await.expect("an event")
    }

    /// The next one, if it comes within that time.
    pub async fn next_within(&mut self, time: Duration) -> Option<StreamEvent> {
        timeout(time, self.read()).await.ok().flatten()
    }

    /// The next event, which must be of that name.
    pub async fn expect(&mut self, name: &str) -> StreamEvent {
        let event = self.next().await.unwrap_or_else(|| panic!("{name}, not the end"));
        assert_eq!(event.event, name, "{event:?}");
        event
    }

    async fn read(&mut self) -> Option<StreamEvent> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(parse(std::str::from_utf8(&block).unwrap()));
            }
            self.read.extend(self.bytes.next().await?);
        }
    }
}

fn parse(block: &str) -> StreamEvent {
    let mut event = StreamEvent::default();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.event),
            "id" => event.id = Some(value.parse().unwrap()),
            "data" => event.data = serde_json::from_str(value).unwrap(),
            "" => event.comment = Some(value.to_owned()),
            other => panic!("an unknown field {other}: {block}"),
        }
    }
    event
}
