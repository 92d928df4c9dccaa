//! Live feeds: changes reach every watcher in milliseconds, and nobody misses one.
//!
//! In reading order:
//! - [`change`]: one change as each audience is told of it; [`watch`]: who watches whom
//! - [`hub`], [`listening`], [`follow`]: from the log to every listener, in order
//! - [`changes`], [`stream`], [`ws`]: the three ways to listen
//! - [`ticket`]: how browsers come to a WebSocket; [`places`]: how many may
//! - [`groups`], [`messages`]: who belongs together, and what people are sent

pub mod change;
pub mod changes;
pub mod follow;
pub mod groups;
pub mod hub;
pub mod listening;
pub mod messages;
pub mod places;
pub mod stream;
pub mod ticket;
pub mod watch;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::limits;
use hub::Hub;
use places::Places;

/// Who listens now.
pub const LISTENERS: &str = "rollcall_live_listeners";
/// Changes published.
pub const CHANGES: &str = "rollcall_live_changes_total";
/// Listeners dropped because they did not read.
pub const TOO_SLOW: &str = "rollcall_live_too_slow_total";
/// WebSockets open now.
pub const SOCKETS: &str = "rollcall_live_sockets";
/// Streams open now.
pub const STREAMS: &str = "rollcall_live_streams";

/// What live feeds are like on one node.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Changes that may wait for one listener.
    pub listener_queue_max: usize,
    /// Feeds from one address.
    pub per_address_max: usize,
    /// How often the server pings a WebSocket.
    pub ping_every: Duration,
    /// How long the answer to a ping may take.
    pub pong_max: Duration,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            listener_queue_max: limits::LISTENER_QUEUE_MAX,
            per_address_max: limits::LIVE_PER_ADDRESS_MAX,
            ping_every: limits::PING_EVERY,
            pong_max: limits::PONG_MAX,
        }
    }
}

/// What live feeds share on one node.
pub struct Live {
    /// Changes.
    pub hub: Arc<Hub>,
    /// How many listen.
    pub places: Arc<Places>,
    /// Whose turn it is to open or resume a session.
    pub beginnings: Semaphore,
    /// The origins whose pages may open a WebSocket beside the server's own.
    pub allow_origins: Vec<HeaderValue>,
    /// The settings.
    pub settings: LiveSettings,
    /// The node stops: whoever listens is sent elsewhere.
    pub stopping: CancellationToken,
}

impl Live {
    /// Nobody listens yet.
    pub fn new(
        settings: LiveSettings,
        allow_origins: Vec<HeaderValue>,
        stopping: CancellationToken,
    ) -> Self {
        // Shown from the start: who watches them should not wonder whether they exist.
        for gauge in [LISTENERS, SOCKETS, STREAMS] {
            metrics::gauge!(gauge).increment(0.0);
        }
        for counter in [CHANGES, TOO_SLOW] {
            metrics::counter!(counter).increment(0);
        }
        Self {
            hub: Arc::new(Hub::new(settings.listener_queue_max)),
            places: Arc::new(Places::new(limits::LIVE_PER_USER_MAX, settings.per_address_max)),
            beginnings: Semaphore::new(limits::SOCKETS_BEGINNING_MAX),
            allow_origins,
            settings,
            stopping,
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Counts something open in a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(&'static str);

impl Counted {
    pub(crate) fn new(gauge: &'static str) -> Self {
        metrics::gauge!(gauge).increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
