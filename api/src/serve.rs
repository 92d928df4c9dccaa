//! The listener: accepts connections, bounds them, ends them well.
//!
//! HTTP/1.1 only, as hyper speaks it, with what hyper leaves to others: a cap, a time for slow
//! heads that is not the keep-alive time, a lingering close, a bounded stop. Upgrades work.

mod link;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use axum::routing::future::RouteFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::limits;
use link::{Link, LinkLimits};

/// Connections that the system keeps until we accept them.
const BACKLOG: u32 = 4_096;
/// The pause after a failed accept that is not the peer's doing, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this much silence the system asks whether the peer is still there.
#[cfg(target_os = "linux")]
const PROBE_AFTER: Duration = Duration::from_mins(1);

/// What one listener lets in and for how long.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections open at one time, upgraded ones included.
    pub connections_max: usize,
    /// From the first byte of a request's head to its last; for the first request of a
    /// connection, from the accept.
    pub header_read_max: Duration,
    /// From an answer to the first byte of the next request.
    pub keep_alive_max: Duration,
    /// How long requests in flight may take once the server stops.
    pub drain_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            header_read_max: limits::HEADER_READ_MAX,
            keep_alive_max: limits::KEEP_ALIVE_MAX,
            drain_max: limits::DRAIN_MAX,
        }
    }
}

/// Binds with a backlog that a burst of reconnecting clients fits in.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Lets this process open as many files as its hard limit allows: each connection is one.
/// Answers the limit then in force, where the system says.
pub fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_ok() {
        getrlimit(Resource::Nofile).current
    } else {
        before
    }
}

/// Serves until `shutdown`, then closes idle connections at once and gives requests in flight
/// `drain_max`. Returns when all connections are gone or that time is over.
///
/// Beyond `connections_max` nothing is accepted: newcomers wait in the system's backlog, where
/// they cost us nothing, and get in when somebody leaves. A 503 would cost an accept, a write and a
/// close each, just when there is no room, and would bring them back at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ServerLimits,
    shutdown: CancellationToken,
) {
    let connections_max = limits.connections_max.clamp(1, Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(connections_max));
    let limits = Arc::new(limits.clone());
    loop {
        let accepted = async {
            // The semaphore is never closed; were it, there would be nothing to accept.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((accept(&listener).await, slot))
        };
        let ((stream, peer), permit) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
        };
        let service = PeerService { router: router.clone(), peer };
        let stop = shutdown.child_token();
        tokio::spawn(connection(stream, Slot::new(permit), service, Arc::clone(&limits), stop));
    }
    drop(listener); // From now on newcomers are refused.
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    // Each connection bounds itself; the extra second is for upgraded ones, which do not.
    let patience = limits.drain_max + Duration::from_secs(1);
    if tokio::time::timeout(patience, slots.acquire_many(all)).await.is_err() {
        let open = connections_max - slots.available_permits();
        tracing::warn!(open, "stopped while connections were still open");
    }
}

/// The next connection. Errors that are one peer's are passed over; others pass with time.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place among the open connections, given back when the socket is dropped.
#[derive(Debug)]
struct Slot {
    _permit: OwnedSemaphorePermit,
    open: metrics::Gauge,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        let open = metrics::gauge!(crate::telemetry::HTTP_CONNECTIONS);
        open.increment(1.0);
        Self { _permit: permit, open }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

/// Hands requests to the router, with `ConnectInfo` of the peer.
struct PeerService {
    router: Router,
    peer: SocketAddr,
}

impl hyper::service::Service<Request<Incoming>> for PeerService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.clone().call(request)
    }
}

async fn connection(
    stream: TcpStream,
    slot: Slot,
    service: PeerService,
    limits: Arc<ServerLimits>,
    stop: CancellationToken,
) {
    set_options(&stream);
    let link_limits =
        LinkLimits { head: limits.header_read_max, keep_alive: limits.keep_alive_max };
    let (link, timer) = Link::new(stream, slot, link_limits, stop.clone());
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(limits.keep_alive_max)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(link), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        tokio::time::timeout(limits.drain_max, connection).await.unwrap_or(Ok(()))
    };
    if let Err(error) = ended {
        // The peer's doing, mostly: it went away, or sent what is no HTTP.
        tracing::debug!(%error, "a connection broke off");
    }
}

fn set_options(stream: &TcpStream) {
    // An option that cannot be set costs speed or time, not correctness.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let stall_ms = limits::WRITE_STALL_MAX.as_millis() as u32;
        let _ = sockopt::set_tcp_user_timeout(stream, stall_ms);
        let _ = sockopt::set_tcp_keepidle(stream, PROBE_AFTER);
        let _ = sockopt::set_socket_keepalive(stream, true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
