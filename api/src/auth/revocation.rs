//! Tokens that were revoked before they expired.
//!
//! Only memory here: whoever reads the stored revocations fills this set on each node, within 1 s.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use chrono::{DateTime, Utc};

/// Revoked token keys (`jti`, else the SHA-256 of the token in hex), each until its token expires.
#[derive(Debug, Default)]
pub struct Revocations {
    keys: RwLock<HashMap<Box<str>, DateTime<Utc>>>,
    // Mostly nothing is revoked: then a request pays one load, no lock and no hash.
    count: AtomicUsize,
}

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
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
