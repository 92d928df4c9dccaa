//! Callers whose tokens were verified, by the SHA-256 of the token.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock};

use super::Caller;
use super::token::TokenHash;

/// Parts of the map with a lock each; a power of two.
const SHARDS: usize = 16;

/// The keys are SHA-256 already, and only verified tokens are put in: eight of their bytes serve.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type Generation = HashMap<TokenHash, Caller, BuildHasherDefault<FirstBytes>>;

/// Two generations: when the young one is full it becomes the old one, and the old one goes. Who is
/// found in the old one moves to the young. So at least the last `capacity / 2` used ones are kept,
/// without a list to maintain on each use.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

impl Shard {
    fn insert(&mut self, hash: TokenHash, caller: Caller, generation_max: usize) {
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, caller);
    }
}

/// A bounded map that forgets the longest unused.
pub(super) struct CallerCache {
    shards: [RwLock<Shard>; SHARDS],
    generation_max: usize,
}

impl CallerCache {
    /// Holds at most `capacity` callers.
    pub(super) fn new(capacity: usize) -> Self {
        let generation_max = (capacity / SHARDS / 2).max(1);
        Self { shards: Default::default(), generation_max }
    }

    fn shard(&self, hash: &TokenHash) -> &RwLock<Shard> {
        // The last byte: the first ones choose the bucket within the shard.
        &self.shards[usize::from(hash[31]) % SHARDS]
    }

    pub(super) fn get(&self, hash: &TokenHash) -> Option<Caller> {
        let found = {
            let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
            if let Some(caller) = shard.young.get(hash) {
                return Some(caller.clone());
            }
            shard.old.get(hash).cloned()
        };
        if let Some(caller) = &found {
            self.insert(*hash, caller.clone());
        }
        found
    }

    pub(super) fn insert(&self, hash: TokenHash, caller: Caller) {
        let mut shard = self.shard(&hash).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(hash, caller, self.generation_max);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.write().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let count = |shard: &RwLock<Shard>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }
}
