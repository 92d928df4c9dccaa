//! Tokens that were revoked before they expired.
//!
//! Only memory here: whoever reads the stored revocations fills this set on each node, within 1 s.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

/// Revoked token keys (`jti`, else the SHA-256 of the token in hex), each until its token expires.
#[derive(Debug, Default)]
pub struct Revocations {
    keys: RwLock<HashMap<Box<str>, DateTime<Utc>>>,
    // Mostly nothing is revoked: then a request pays one load, no lock and no hash.
    count: AtomicUsize,
    /// Those who want to know at once, by key, with how many they are.
    watched: Mutex<HashMap<Box<str>, (CancellationToken, usize)>>,
}

/// Somebody who wants to know at once when a token is revoked.
#[derive(Debug)]
pub(super) struct RevocationWatch {
    revocations: Arc<Revocations>,
    key: Box<str>,
    revoked: CancellationToken,
}

impl RevocationWatch {
    /// Completes when the token is revoked.
    pub(super) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

impl Drop for RevocationWatch {
    fn drop(&mut self) {
        let mut watched = self.revocations.watched();
        if let Some((_, count)) = watched.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&self.key);
            }
        }
    }
}

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for a revocation of the token with this key; one that is revoked already counts.
    pub(super) fn watch(self: &Arc<Self>, key: &str) -> RevocationWatch {
        let mut watched = self.watched();
        let entry = watched.entry(key.into()).or_default();
        entry.1 += 1;
        let revoked = entry.0.clone();
        drop(watched);
        // After it is entered: a revocation in between is told by either.
        if self.contains(key) {
            revoked.cancel();
        }
        RevocationWatch { revocations: Arc::clone(self), key: key.into(), revoked }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Box<str>, (CancellationToken, usize)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses the token with this key from now on. It may be forgotten after `until`, when the
    /// token is refused for its age anyway. Repeatable; the later `until` wins.
    pub fn revoke(&self, key: &str, until: DateTime<Utc>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        match keys.get_mut(key) {
            Some(known) => *known = until.max(*known),
            None => {
                keys.insert(key.into(), until);
            }
        }
        self.count.store(keys.len(), Ordering::Release);
        drop(keys);
        if let Some((revoked, _)) = self.watched().get(key) {
            revoked.cancel();
        }
    }

    /// Whether the token with this key was revoked.
    pub fn contains(&self, key: &str) -> bool {
        self.count.load(Ordering::Acquire) != 0
            && self.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Drops those whose tokens have expired before `now`.
    pub fn forget_expired(&self, now: DateTime<Utc>) {
        if self.is_empty() {
            return;
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, until| *until >= now);
        self.count.store(keys.len(), Ordering::Release);
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_revoked_key_is_refused_until_its_token_has_expired() {
        let revoked = Revocations::new();
        assert!(!revoked.contains("a"));
        revoked.revoke("a", at(10));
        assert!(revoked.contains("a") && !revoked.contains("b"));
        revoked.forget_expired(at(10));
        assert!(revoked.contains("a"));
        revoked.forget_expired(at(11));
        assert!(!revoked.contains("a") && revoked.is_empty());
    }

    #[test]
    fn revoking_again_never_shortens() {
        let revoked = Revocations::new();
        revoked.revoke("a", at(10));
        revoked.revoke("a", at(5));
        revoked.forget_expired(at(7));
        assert!(revoked.contains("a"));
    }
}
