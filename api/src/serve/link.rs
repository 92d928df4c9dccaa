//! One connection's socket, and the clock that hyper reads heads by.
//!
//! Hyper has one time for "the next head has not come yet", which holds for a client that trickles
//! a head and for one that rests between two heartbeats. The first must be short, the second must
//! outlast a heartbeat interval. So hyper is given the long one, and a timer that knows from the
//! socket whether bytes have come since the wait began.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Slot;

/// How long a closed connection waits for the peer to read our last answer and close, too.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How much of a body that nobody wanted is read meanwhile, in bytes.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
const LINGER_BUFFER_BYTES: usize = 16 * 1024;

/// How long a peer may take to send a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkLimits {
    /// From its first byte on.
    pub(super) head: Duration,
    /// Until its first byte.
    pub(super) keep_alive: Duration,
}

/// What socket and timer share.
struct Shared {
    /// Reads that brought bytes. Only changes matter, so that the order with others does not.
    reads: AtomicU64,
    alarm: Mutex<Alarm>,
    limits: LinkLimits,
}

/// A deadline that is mostly put off: the runtime's timer is only told when it must ring earlier,
/// or rang too early. So a request touches the runtime's timers not at all.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

impl Shared {
    fn poll_alarm(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner).poll(deadline, cx)
    }
}

/// A socket that counts its reads and lingers when it is closed.
pub(super) struct Link {
    stream: TcpStream,
    shared: Arc<Shared>,
    stop: CancellationToken,
    linger: Option<Linger>,
    _slot: Slot,
}

struct Linger {
    until: Instant,
    bytes_left: usize,
}

impl Link {
    /// The socket, and the timer to give to hyper with it. `stop` ends lingering.
    pub(super) fn new(
        stream: TcpStream,
        slot: Slot,
        limits: LinkLimits,
        stop: CancellationToken,
    ) -> (Self, HeadTimer) {
        let alarm = Alarm(Box::pin(sleep_until(Instant::now() + limits.head)));
        let shared =
            Arc::new(Shared { reads: AtomicU64::new(0), alarm: Mutex::new(alarm), limits });
        let timer = HeadTimer(Arc::clone(&shared));
        (Self { stream, shared, stop, linger: None, _slot: slot }, timer)
    }

    /// Reads what still comes, until the peer closes. Closing a socket with unread bytes resets the
    /// connection, and the peer may lose the answer that says why (413, 401, ...).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            until: Instant::now() + LINGER_MAX,
            bytes_left: LINGER_BYTES_MAX,
        });
        let mut bytes = [0; LINGER_BUFFER_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let read = buffer.filled().len();
                    match linger.bytes_left.checked_sub(read) {
                        Some(left) => linger.bytes_left = left,
                        None => return Poll::Ready(()),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.stop.is_cancelled() => return Poll::Ready(()),
                Poll::Pending => return self.shared.poll_alarm(linger.until, cx),
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            // One task reads and the same task's timer looks: no read-modify-write is needed.
            let reads = self.shared.reads.load(Ordering::Relaxed);
            self.shared.reads.store(reads.wrapping_add(1), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The timer of one connection's heads.
#[derive(Clone)]
pub(super) struct HeadTimer(Arc<Shared>);

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(std::time::Instant::now() + duration)
    }

    /// Called by hyper when it begins to wait for a head; `deadline` is the end of the keep-alive.
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let reads = self.0.reads.load(Ordering::Relaxed);
        let deadline = Instant::from_std(deadline);
        Box::pin(HeadWait {
            shared: Arc::clone(&self.0),
            keep_alive_ends: deadline,
            reads,
            // Who just connected did so to ask something.
            head_ends: (reads == 0)
                .then(|| deadline - self.0.limits.keep_alive + self.0.limits.head),
        })
    }
}

/// The wait for one head.
struct HeadWait {
    shared: Arc<Shared>,
    /// `Shared::reads` when the wait began.
    reads: u64,
    keep_alive_ends: Instant,
    /// Known once the head has begun.
    head_ends: Option<Instant>,
}

impl Future for HeadWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.head_ends.is_none() && self.shared.reads.load(Ordering::Relaxed) != self.reads {
            self.head_ends = Some(Instant::now() + self.shared.limits.head);
        }
        let deadline = self.head_ends.unwrap_or(self.keep_alive_ends);
        self.shared.poll_alarm(deadline, cx)
    }
}

impl hyper::rt::Sleep for HeadWait {}
