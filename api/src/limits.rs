//! Every limit of the HTTP edge: its name, its unit, its default; and the rate limit per subject.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::auth::{Caller, Role};
use crate::problem::Problem;

/// Longest request body where nothing else is said, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest body of `POST /v1/status/query`, in bytes.
pub const QUERY_BYTES_MAX: usize = 256 * 1024;
/// Longest body of `POST /v1/heartbeats`, in bytes.
pub const HEARTBEATS_BYTES_MAX: usize = 1024 * 1024;
/// Longest line of `POST /v1/import`, in bytes; the body itself is streamed without a limit.
pub const IMPORT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Most heartbeats in one `POST /v1/heartbeats`.
pub const HEARTBEATS_MAX: usize = 10_000;
/// Most users in one status query.
pub const USERS_MAX: usize = 1_000;
/// Items of a list where `limit` is not given.
pub const LIST_LIMIT_DEFAULT: u32 = 100;
/// Largest `limit` of a list; above it: 422.
pub const LIST_LIMIT_MAX: u32 = 1_000;

/// A request is answered within this, its body's reading included; else 503 `timeout`.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a request's head to its last.
pub const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Longest silence within a body that is read as a stream (`/v1/import`); each request that is
/// read whole is under [`REQUEST_TIME_MAX`].
pub const BODY_IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request. Above twice the default heartbeat
/// interval (30 s), so that polling clients keep their connections.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(75);
/// How long a peer may leave what we sent unacknowledged before its connection is dropped.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// How long requests in flight may take to finish once the server stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Open connections at one time, live feeds included.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Longest request head (line and headers), in bytes.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;

/// Between two looks at the log for one who waits.
pub const LOG_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Requests per second and subject.
pub const RATE_PER_SECOND: u32 = 200;
/// Requests that a subject may send at once after a pause.
pub const RATE_BURST: u32 = 1_000;

/// Changes that a client may have missed and still be told of one by one; beyond: a snapshot.
pub const MISSED_MAX: usize = 10_000;
/// Changes that may wait for one listener; one more, and it is told so and dropped.
pub const LISTENER_QUEUE_MAX: usize = 1_024;
/// Longest wait of a long poll.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Users of a snapshot of everybody; where there are more, name some.
pub const SNAPSHOT_USERS_MAX: usize = 100_000;
/// Users on the watch list of one WebSocket.
pub const WATCHED_USERS_MAX: usize = 10_000;
/// Groups on one watch list.
pub const WATCHED_GROUPS_MAX: usize = 100;
/// How often a feed looks up whom its reader may see and who is in the groups that it is about.
pub const GROUPS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Live feeds (streams, waiting polls, WebSockets) of one user on one node; services: no limit.
pub const LIVE_PER_USER_MAX: usize = 64;
/// Live feeds from one address (IPv6: one /64) on one node; this machine's own: no limit.
pub const LIVE_PER_ADDRESS_MAX: usize = 2_000;
/// A stream says that it is alive when it was silent for so long.
pub const STREAM_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long a WebSocket's first frame is waited for, before a session is opened.
pub const RESUME_WAIT: Duration = Duration::from_millis(250);
/// WebSockets that open or resume a session at one time. When a herd comes, the others wait their
/// turn, not in the queue for the database, where they would hold up everybody else.
pub const SOCKETS_BEGINNING_MAX: usize = 32;
/// How often the server pings a WebSocket.
pub const PING_EVERY: Duration = Duration::from_secs(25);
/// How long the answer to a ping may take.
pub const PONG_MAX: Duration = Duration::from_secs(10);
/// How long a WebSocket may take to accept what is sent.
pub const FRAME_SEND_MAX: Duration = Duration::from_secs(10);
/// How long a closing handshake may take.
pub const SOCKET_CLOSE_MAX: Duration = Duration::from_secs(1);
/// Longest frame or message that a client may send, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Frames per second that one WebSocket may send.
pub const FRAMES_PER_SECOND: u32 = 50;
/// Frames that one WebSocket may send at once after a pause.
pub const FRAMES_BURST: u32 = 200;

/// Routes that outlast [`REQUEST_TIME_MAX`] by design: long polls bound themselves by `wait_ms`,
/// uploads by [`BODY_IDLE_MAX`], live feeds by who reads them. Route templates as given to the
/// router.
pub const UNTIMED_ROUTES: &[&str] =
    &["/v1/import", "/v1/log", "/v1/changes", "/v1/stream", "/v1/ws"];

type Limiter<C> =
    RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A token bucket for each subject. Callers with the role `service` have none: they are held by
/// the write queue alone.
///
/// Keyed by the subject's hash, which [`Caller`] carries, so that a check neither hashes a name
/// nor allocates. Two subjects with one 64-bit hash would share a bucket; the hash is keyed by a
/// random secret, so that nobody can aim at that.
pub struct RateLimits<C: Clock = DefaultClock> {
    limiter: Limiter<C>,
    clock: C,
}

impl RateLimits {
    /// `per_second` requests per second and subject, up to `burst` at once. Zeros count as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::with_clock(per_second, burst, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(per_second: u32, burst: u32, clock: C) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        Self { limiter: Limiter::dashmap_with_clock(quota, clock.clone()), clock }
    }

    /// Takes one request out of the caller's bucket, or says 429 `rate_limited` and when to retry.
    pub fn check(&self, caller: &Caller) -> Result<(), Problem> {
        if caller.has(Role::Service) { Ok(()) } else { self.take(caller.subject_hash) }
    }

    fn take(&self, subject_hash: u64) -> Result<(), Problem> {
        self.limiter
            .check_key(&subject_hash)
            .map_err(|refused| Problem::rate_limited(refused.wait_time_from(self.clock.now())))
    }

    /// Forgets the subjects whose buckets are full again. To be called every few seconds.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// How many subjects have a bucket that is not known to be full.
    pub fn subjects(&self) -> usize {
        self.limiter.len()
    }
}

impl<C: Clock + Clone> std::fmt::Debug for RateLimits<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").field("subjects", &self.subjects()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_request_is_told_when_to_come_back() {
        let clock = FakeRelativeClock::default();
        let limits = RateLimits::with_clock(10, 3, clock.clone());
        for _ in 0..3 {
            assert!(limits.take(1).is_ok());
        }
        let refused = limits.take(1).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "rate_limited"));
        assert!(limits.take(2).is_ok(), "another subject has its own bucket");
        clock.advance(Duration::from_millis(100));
        assert!(limits.take(1).is_ok());
        assert!(limits.take(1).is_err());
    }

    #[test]
    fn idle_subjects_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limits = RateLimits::with_clock(10, 3, clock.clone());
        assert!(limits.take(1).is_ok());
        limits.tidy();
        assert_eq!(limits.subjects(), 1);
        clock.advance(Duration::from_secs(5));
        limits.tidy();
        assert_eq!(limits.subjects(), 0);
    }
}
