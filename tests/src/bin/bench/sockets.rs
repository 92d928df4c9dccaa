//! Heartbeats over WebSockets: each connection is a user with a session of its own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::ws::{self, Frame, Socket};
use api::limits::{FRAMES_BURST, FRAMES_PER_SECOND};
use tokio::net::TcpStream;

use crate::http::{Answer, Parsed};
use crate::load::Script;

/// What the server says of a heartbeat that it took in. Each has a `ref`, or nothing is said.
const ACK: &[u8] = br#"{"type":"ack","#;
/// Frames that a connection sends before it has to look at the clock: fewer than the server takes.
const BURST: u32 = FRAMES_BURST - FRAMES_BURST / 10;
/// Frames a second after that.
const PER_SECOND: u32 = FRAMES_PER_SECOND - FRAMES_PER_SECOND / 10;

/// One connection's heartbeats.
pub(crate) struct SocketBeat {
    token: String,
    frame: Arc<[u8]>,
    sent: u32,
    opened: Instant,
}

impl SocketBeat {
    /// One for each token.
    pub(crate) fn each(tokens: &[String]) -> Vec<Self> {
        let text = r#"{"type":"heartbeat","idle_ms":0,"ref":1}"#;
        let frame: Arc<[u8]> = ws::text_frame(text).into();
        let opened = Instant::now();
        let one = |token: &String| Self {
            token: token.clone(),
            frame: Arc::clone(&frame),
            sent: 0,
            opened,
        };
        tokens.iter().map(one).collect()
    }
}

impl Script for SocketBeat {
    fn next(&mut self) -> &[u8] {
        self.sent += 1;
        &self.frame
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        answer.body.starts_with(ACK).then_some(1)
    }

    /// The server lets nobody send faster; two thousand who do not are never held up by it.
    fn pause(&mut self) -> Option<Duration> {
        let beyond = self.sent.checked_sub(BURST)?;
        let due = Duration::from_secs(beyond.into()) / PER_SECOND;
        due.checked_sub(self.opened.elapsed())
    }

    async fn open(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut socket = Socket::open(stream, &self.token).await?;
        socket.send(&ws::text_frame(r#"{"type":"open"}"#)).await?;
        socket.next_with(br#""type":"hello""#).await?;
        self.opened = Instant::now();
        Ok(())
    }

    /// A logout, too: the next round's sessions are its own.
    async fn close(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        ws::close(stream).await
    }

    fn parse(bytes: &[u8]) -> Parsed {
        let mut at = 0;
        loop {
            match ws::parse(&bytes[at..]) {
                Frame::Text(text) => return Parsed::Whole(200, at + text.start..at + text.end),
                // Whoever sends heartbeats need not answer pings: both are signs of life.
                Frame::Ping(length) | Frame::Pong(length) => at += length,
                Frame::Partial => return Parsed::Partial,
                Frame::Close => return Parsed::Whole(410, at..bytes.len()),
                Frame::Garbled => return Parsed::Garbled,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_found_behind_a_ping() {
        let ack = br#"{"type":"ack","ref":1}"#;
        let mut bytes = vec![0x89, 0, 0x81, ack.len() as u8];
        bytes.extend(ack);
        assert_eq!(SocketBeat::parse(&bytes), Parsed::Whole(200, 4..bytes.len()));
        assert_eq!(SocketBeat::parse(&bytes[..9]), Parsed::Partial);
        let mut script = SocketBeat::each(&[String::new()]).remove(0);
        let answer = |body| Answer { status: 200, body };
        assert_eq!(script.acknowledged(answer(ack)), Some(1));
        assert_eq!(script.acknowledged(answer(br#"{"type":"error","ref":1}"#)), None);
    }

    #[test]
    fn nobody_sends_faster_than_the_server_takes() {
        let mut script = SocketBeat::each(&[String::new()]).remove(0);
        for _ in 0..BURST {
            script.next();
        }
        assert_eq!(script.pause(), None);
        for _ in 0..PER_SECOND {
            script.next();
        }
        assert!(script.pause().is_some_and(|pause| pause > Duration::from_millis(500)));
    }
}
