//! What the parts of a node share: its clock, its roster, and what holds for all nodes.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use domain::{Policy, Silence, Silences, Timestamp, UserNo};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::clock::LogClock;
use crate::holders::Holders;
use crate::names::Names;
use crate::queue::Queue;
use crate::revocation::{self, Revocation};
use crate::roster::Roster;

/// Hears of revoked tokens.
pub type OnRevoked = Box<dyn Fn(Vec<Revocation>) + Send + Sync>;

/// What the parts of a node share.
pub struct Shared {
    pub(crate) clock: LogClock,
    pub(crate) roster: Roster,
    pub(crate) holders: Arc<Holders>,
    pub(crate) names: Names,
    pub(crate) queue: Queue,
    pub(crate) pool: PgPool,
    pub(crate) behind: Notify,
    /// This node has appended transitions: other nodes may want to know.
    pub(crate) appended: Notify,
    pub(crate) stopping: CancellationToken,
    pub(crate) give_up: CancellationToken,
    /// How long this node has been appending, in microseconds since it started.
    appending_us: AtomicU64,
    /// Another node has appended since this one joined.
    pub(crate) has_company: AtomicBool,
    /// Users to be read anew: see [`Shared::suspect`].
    suspects: Mutex<Vec<UserNo>>,
    policy: watch::Sender<Arc<Policy>>,
    silences: RwLock<Silences>,
    on_revoked: OnRevoked,
    /// Revocations up to here are known, by the database's clock.
    revocations_known: Mutex<Timestamp>,
    /// Repairs of the present up to this one are in the roster.
    repairs_heard: AtomicI64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(crate) fn new(pool: PgPool, queue: Queue, seed: Policy, on_revoked: OnRevoked) -> Self {
        Self {
            clock: LogClock::default(),
            roster: Roster::default(),
            holders: Arc::default(),
            names: Names::new(pool.clone()),
            queue,
            pool,
            behind: Notify::new(),
            appended: Notify::new(),
            stopping: CancellationToken::new(),
            give_up: CancellationToken::new(),
            appending_us: AtomicU64::new(0),
            has_company: AtomicBool::new(false),
            suspects: Mutex::default(),
            policy: watch::Sender::new(Arc::new(seed)),
            silences: RwLock::default(),
            on_revoked,
            revocations_known: Mutex::new(Timestamp::UNIX_EPOCH),
            repairs_heard: AtomicI64::new(0),
        }
    }

    /// An append has taken so long.
    pub(crate) fn appended_for(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.appending_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How long this node has been appending since it started.
    pub(crate) fn appending(&self) -> Duration {
        Duration::from_micros(self.appending_us.load(Ordering::Relaxed))
    }

    /// This node has ended a session of that user whose heartbeats may have gone to another node:
    /// what the database kept of them is read anew.
    pub(crate) fn suspect(&self, user: UserNo) {
        if self.has_company.load(Ordering::Relaxed) {
            self.suspects.lock().unwrap_or_else(PoisonError::into_inner).push(user);
            self.behind.notify_one();
        }
    }

    pub(crate) fn take_suspects(&self) -> Vec<UserNo> {
        std::mem::take(&mut self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tell_revoked(&self, revoked: Vec<Revocation>) {
        (self.on_revoked)(revoked);
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    pub(crate) fn policy_changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        self.policy.send_if_modified(|known| {
            let changed = **known != policy;
            if changed {
                tracing::info!(?policy, "the policy changed");
                *known = Arc::new(policy);
            }
            changed
        });
    }

    pub(crate) fn silences(&self) -> Silences {
        self.silences.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds those not known yet: a snapshot read a moment ago may lack one that was just appended.
    pub(crate) fn learn_silences<'a>(&self, silences: impl IntoIterator<Item = &'a Silence>) {
        let mut known = self.silences.write().unwrap_or_else(PoisonError::into_inner);
        for silence in silences {
            if known.iter().all(|other| other.from != silence.from) {
                *known = known.with(*silence);
            }
        }
    }

    pub(crate) fn repairs_heard(&self) -> i64 {
        self.repairs_heard.load(Ordering::Relaxed)
    }

    pub(crate) fn set_repairs_heard(&self, repair_no: i64) {
        self.repairs_heard.store(repair_no, Ordering::Relaxed);
    }

    pub(crate) async fn revocations_read(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(), Error> {
        let known = *self.revocations_known.lock().unwrap_or_else(PoisonError::into_inner);
        let (revoked, read_at) = revocation::read(connection, known).await?;
        *self.revocations_known.lock().unwrap_or_else(PoisonError::into_inner) = read_at;
        if !revoked.is_empty() {
            self.tell_revoked(revoked);
        }
        Ok(())
    }
}
