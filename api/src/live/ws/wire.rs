//! How frames are sent, and how a connection ends.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures::SinkExt as _;
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as WireError;
use tokio_util::sync::CancellationToken;

use super::frames::ServerFrame;
use crate::auth::TokenEnd;
use crate::limits::{FRAME_SEND_MAX, SOCKET_CLOSE_MAX};
use crate::problem::Problem;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed, and means it: a logout.
    Closed,
    /// The connection broke, or the client closed it in another way.
    Broken,
    /// Nothing was heard for too long.
    Silent,
    /// The client does not read.
    TooSlow,
    /// A frame was too long.
    TooBig,
    /// Frames came too fast.
    TooFast,
    /// What came was no WebSocket.
    Garbled,
    /// The token ended.
    Token(TokenEnd),
    /// The session is over.
    SessionOver,
    /// Another connection goes on with the session.
    Superseded,
    /// No session could be opened.
    Refused,
    /// Not now.
    Unavailable,
    /// The node stops.
    Stopping,
}

impl End {
    /// The close code (RFC 6455, 7.4) and its reason; none where nobody hears it.
    fn close_frame(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Closed | Self::Broken | Self::Silent => None,
            Self::Stopping => Some((1001, "the node stops; connect to another")),
            Self::Garbled => Some((1002, "protocol error")),
            Self::TooFast => Some((1008, "too many frames")),
            Self::Refused => Some((1008, "refused")),
            Self::TooBig => Some((1009, "the frame is too long")),
            Self::TooSlow => Some((1013, "too slow")),
            Self::Unavailable => Some((1013, "try again later")),
            Self::Token(TokenEnd::Expired) => Some((4401, "the token expired")),
            Self::Token(TokenEnd::Revoked) => Some((4401, "the token was revoked")),
            Self::Superseded => Some((4409, "another connection has the session")),
            Self::SessionOver => Some((4410, "the session is over")),
        }
    }
}

/// The connection, with patience.
pub(super) struct Wire {
    socket: WebSocket,
    /// Whoever waits for this client to read any longer is told to stop.
    pub(super) hurry: CancellationToken,
}

impl Wire {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self { socket, hurry: CancellationToken::new() }
    }

    /// The next text frame; binary ones are none of ours. Nothing is lost if the call is given up.
    pub(super) async fn next(&mut self) -> Result<Incoming, End> {
        let message = match self.socket.recv().await {
            None => return Err(End::Broken),
            Some(Err(error)) => return Err(end_of(error)),
            Some(Ok(message)) => message,
        };
        match message {
            Message::Text(text) => Ok(Incoming::Text(text)),
            Message::Binary(_) => Ok(Incoming::Binary),
            Message::Ping(_) | Message::Pong(_) => Ok(Incoming::Sign),
            // Without a code it is a page's plain `close()`.
            Message::Close(None | Some(CloseFrame { code: 1000 | 1001 | 1005, .. })) => {
                Err(End::Closed)
            }
            Message::Close(Some(_)) => Err(End::Broken),
        }
    }

    pub(super) async fn say(&mut self, frame: &ServerFrame<'_>) -> Result<(), End> {
        let text = serde_json::to_string(frame).map_err(|error| {
            tracing::error!(%error, "a frame that cannot be written");
            End::Broken
        })?;
        self.send([Message::Text(text.into())]).await
    }

    pub(super) async fn pass(
        &mut self,
        frames: impl IntoIterator<Item = Utf8Bytes>,
    ) -> Result<(), End> {
        self.send(frames.into_iter().map(Message::Text)).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), End> {
        self.send([Message::Ping(axum::body::Bytes::new())]).await
    }

    /// Sends all, within [`FRAME_SEND_MAX`].
    async fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let Self { socket, hurry } = self;
        let sent = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        tokio::select! {
            biased;
            sent = sent => sent.map_err(end_of),
            () = hurry.cancelled() => Err(End::TooSlow),
            () = sleep(FRAME_SEND_MAX) => Err(End::TooSlow),
        }
    }

    /// Says why, closes, and waits a moment for the client to agree.
    pub(super) async fn close(&mut self, end: End) {
        let goodbye = async {
            if end == End::TooSlow {
                let (code, detail) = ("too_slow", "what waited was too much; resume");
                let more = &Map::<String, Value>::new();
                let frame = ServerFrame::Error { reference: None, code, detail, more };
                let text = serde_json::to_string(&frame).unwrap_or_default();
                self.socket.send(Message::Text(text.into())).await?;
            }
            if let Some((code, reason)) = end.close_frame() {
                let reason = Utf8Bytes::from_static(reason);
                self.socket.send(Message::Close(Some(CloseFrame { code, reason }))).await?;
            }
            while let Some(message) = self.socket.recv().await {
                message?;
            }
            Ok::<_, axum::Error>(())
        };
        // Who does not agree in time, or has gone, is left alone.
        if let Ok(Err(error)) = timeout(SOCKET_CLOSE_MAX, goodbye).await {
            tracing::debug!(%error, "closing a WebSocket");
        }
    }

    /// Tells of a refusal.
    pub(super) async fn refuse(
        &mut self,
        reference: Option<&Value>,
        problem: &Problem,
    ) -> Result<(), End> {
        self.say(&ServerFrame::refusal(reference, problem)).await
    }
}

/// What came.
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong.
    Sign,
}

fn end_of(error: axum::Error) -> End {
    let Ok(error) = error.into_inner().downcast::<WireError>() else { return End::Broken };
    match *error {
        WireError::Capacity(_) => End::TooBig,
        WireError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => End::Broken,
        WireError::Protocol(_) | WireError::Utf8(_) => End::Garbled,
        _ => End::Broken, // Another crate's enum.
    }
}
