//! A WebSocket client that hides nothing: frames as they come, connections cut at will.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::Client;

/// Longer than any frame may take that is waited for.
const FRAME_MAX: Duration = Duration::from_mins(1);

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// What the server said of the session.
    pub hello: Value,
}

impl Socket {
    /// Opens a connection with these headers, and says nothing yet.
    pub async fn knock(
        client: &Client,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        Self::knock_at(client, "/v1/ws", headers).await
    }

    /// The same at another path.
    pub async fn knock_at(
        client: &Client,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        let address = client.base_url.strip_prefix("http://").unwrap();
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        match client_async(request, tcp).await {
            Ok((stream, _)) => Ok(Self { stream, hello: Value::Null }),
            Err(Error::Http(response)) => Err(response),
            Err(error) => panic!("{address}: {error}"),
        }
    }

    /// Connects with the client's token; `first` is the first frame.
    pub async fn connect(client: &Client, first: Value) -> Self {
        let bearer = format!("Bearer {}", client.token.as_deref().unwrap());
        let headers = [("authorization", bearer.as_str()), ("sec-websocket-protocol", PROTOCOL)];
        let mut socket = Self::knock(client, &headers).await.unwrap();
        socket.say(first).await;
        socket
    }

    /// Connects and opens a session.
    pub async fn open(client: &Client) -> Self {
        let mut socket = Self::connect(client, json!({ "type": "open" })).await;
        socket.hello = socket.expect("hello").await;
        socket
    }

    /// Connects and goes on with a session, from a position if one is given.
    pub async fn resume(client: &Client, hello: &Value, position: Option<i64>) -> Self {
        let mut socket = Self::connect(client, resume_frame(hello, position)).await;
        socket.hello = socket.expect("hello").await;
        if socket.hello["resumed"] == false {
            // On a slow way a session was opened before the wish arrived; then it is followed.
            socket.hello = socket.expect("hello").await;
        }
        assert_eq!(socket.hello["resumed"], true, "{}", socket.hello);
        assert_eq!(socket.hello["session_id"], hello["session_id"]);
        socket
    }

    /// The session's name.
    pub fn session(&self) -> String {
        self.hello["session_id"].as_str().unwrap().to_owned()
    }

    /// Sends a frame. One that cannot be sent any longer is not: what comes says why.
    pub async fn say(&mut self, frame: Value) {
        self.say_raw(Message::text(frame.to_string())).await;
    }

    /// Sends anything.
    pub async fn say_raw(&mut self, message: Message) {
        drop(self.stream.send(message).await);
    }

    /// The next frame; none, if the connection has ended.
    pub async fn next(&mut self) -> Option<Value> {
        match timeout(FRAME_MAX, self.heard()).await.expect("a frame") {
            Heard::Frame(frame) => Some(frame),
            Heard::Closed(_) => None,
        }
    }

    /// The next frame, if it comes within that time.
    pub async fn next_within(&mut self, time: Duration) -> Option<Value> {
        match timeout(time, self.heard()).await {
            Ok(Heard::Frame(frame)) => Some(frame),
            Ok(Heard::Closed(_)) | Err(_) => None,
        }
    }

    /// The next frame, which must be of that type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next().await.unwrap_or_else(|| panic!("{kind}, not the end"));
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The code with which the server closes; frames before it are passed over. 1006: without.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match timeout(FRAME_MAX, self.heard()).await.expect("a close") {
                Heard::Frame(_) => {}
                Heard::Closed(code) => return code,
            }
        }
    }

    async fn heard(&mut self) -> Heard {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.starts_with("{\"type\":"), "{text}");
                    return Heard::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(1006),
            }
        }
    }

    /// The next frame of that type; others before it are passed over.
    pub async fn find(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("{kind}, not the end"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Asks with a `ref`; the answer to it, and what came before.
    pub async fn ask(&mut self, mut frame: Value) -> (Value, Vec<Value>) {
        frame["ref"] = "asked".into();
        self.say(frame).await;
        let mut before = Vec::new();
        loop {
            let frame = self.next().await.expect("an answer");
            if frame["ref"] == "asked" {
                return (frame, before);
            }
            before.push(frame);
        }
    }

    /// Watches these users; the statuses of those who are known.
    pub async fn watch(&mut self, users: &[&str]) -> Value {
        self.say(json!({ "type": "watch", "users": users })).await;
        self.expect("snapshot").await
    }

    /// Asks for a `pong`, and says what came before it.
    pub async fn until_pong(&mut self) -> (Vec<Value>, i64) {
        self.say(json!({ "type": "ping" })).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.expect("a pong");
            if frame["type"] == "pong" {
                return (frames, frame["position"].as_i64().unwrap());
            }
            frames.push(frame);
        }
    }

    /// Closes with a code (1005: with none), and waits for the end.
    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        drop(self.stream.close((code != 1005).then_some(frame)).await);
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    /// Cuts the connection, without a word.
    pub fn cut(self) {
        drop(self.stream.into_inner());
    }
}

enum Heard {
    Frame(Value),
    Closed(u16),
}

/// The subprotocol.
pub const PROTOCOL: &str = "rollcall.v1";

/// The frame that goes on with a session.
pub fn resume_frame(hello: &Value, position: Option<i64>) -> Value {
    json!({ "type": "resume", "session_id": hello["session_id"],
        "resume_token": hello["resume_token"], "position": position })
}
