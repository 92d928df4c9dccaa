//! What the parts of a node share: its clock, its roster, and what holds for all nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use domain::{Policy, Silence, Silences};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::clock::LogClock;
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
    pub(crate) names: Names,
    pub(crate) queue: Queue,
    pub(crate) pool: PgPool,
    pub(crate) behind: Notify,
    pub(crate) stopping: CancellationToken,
    pub(crate) give_up: CancellationToken,
    policy: RwLock<Arc<Policy>>,
    silences: RwLock<Silences>,
    on_revoked: OnRevoked,
    revocations_known: AtomicBool,
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
            names: Names::new(pool.clone()),
            queue,
            pool,
            behind: Notify::new(),
            stopping: CancellationToken::new(),
            give_up: CancellationToken::new(),
            policy: RwLock::new(Arc::new(seed)),
            silences: RwLock::default(),
            on_revoked,
            revocations_known: AtomicBool::new(false),
        }
    }

    pub(crate) fn tell_revoked(&self, revoked: Vec<Revocation>) {
        (self.on_revoked)(revoked);
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        let mut known = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        if **known != policy {
            tracing::info!(?policy, "the policy changed");
            *known = Arc::new(policy);
        }
    }

    pub(crate) fn silences(&self) -> Silences {
        self.silences.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_silences(&self, silences: Silences) {
        *self.silences.write().unwrap_or_else(PoisonError::into_inner) = silences;
    }

    pub(crate) fn add_silence(&self, silence: Silence) {
        let known = self.silences();
        if known.iter().all(|other| other.from != silence.from) {
            self.set_silences(known.with(silence));
        }
    }

    pub(crate) async fn revocations_read(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(), Error> {
        let recent_only = self.revocations_known.load(Ordering::Relaxed);
        let revoked = revocation::read(connection, recent_only).await?;
        self.revocations_known.store(true, Ordering::Relaxed);
        if !revoked.is_empty() {
            self.tell_revoked(revoked);
        }
        Ok(())
    }
}
