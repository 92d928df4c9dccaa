//! Which session a token had last, as far as this node remembers. Forgetting costs a look into the
//! database, nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Tokens and their devices that are remembered: some 10 MB when full.
const REMEMBERED_MAX: usize = 131_072;
/// Locks that they share. Two on one lock wait for each other needlessly, never wrongly.
const LOCKS: usize = 1_024;

/// Two ages: when the young one is full it becomes the old one, and the old one goes. So those used
/// last are kept, without a list to maintain on each use.
#[derive(Debug, Default)]
struct Ages {
    young: HashMap<Uuid, u32>,
    old: HashMap<Uuid, u32>,
}

/// The generation of the session of each token and device.
#[derive(Debug)]
pub(crate) struct TokenSessions {
    ages: Mutex<Ages>,
    locks: Box<[Arc<tokio::sync::Mutex<()>>]>,
    remembered_max: usize,
}

impl Default for TokenSessions {
    fn default() -> Self {
        Self::holding(REMEMBERED_MAX)
    }
}

impl TokenSessions {
    fn holding(remembered_max: usize) -> Self {
        let locks = (0..LOCKS).map(|_| Arc::default()).collect();
        Self { ages: Mutex::default(), locks, remembered_max }
    }

    /// The generation last met.
    pub(crate) fn generation(&self, key: Uuid) -> Option<u32> {
        let found = {
            let ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(generation) = ages.young.get(&key) {
                return Some(*generation);
            }
            ages.old.get(&key).copied()
        };
        if let Some(generation) = found {
            self.remember(key, generation);
        }
        found
    }

    /// Remembers a generation; a later one that is remembered already stands.
    pub(crate) fn remember(&self, key: Uuid, generation: u32) {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        if ages.young.len() >= self.remembered_max / 2 && !ages.young.contains_key(&key) {
            ages.old = std::mem::take(&mut ages.young);
        }
        let known = ages.young.entry(key).or_default();
        *known = generation.max(*known);
    }

    /// One request of a token and device at a time may open its session or append its heartbeat.
    pub(crate) async fn alone(&self, key: Uuid) -> tokio::sync::OwnedMutexGuard<()> {
        let index = key.as_u128() as usize % LOCKS;
        Arc::clone(&self.locks[index]).lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_used_last_are_remembered_and_the_number_is_bounded() {
        let sessions = TokenSessions::holding(8);
        let key = Uuid::from_u128;
        sessions.remember(key(0), 7);
        for n in 1..100 {
            sessions.remember(key(n), 1);
            assert_eq!(sessions.generation(key(0)), Some(7), "used all the time");
        }
        assert_eq!(sessions.generation(key(1)), None);
        let ages = sessions.ages.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(ages.young.len() + ages.old.len() <= 8);
    }

    #[test]
    fn a_generation_never_goes_back() {
        let sessions = TokenSessions::holding(8);
        sessions.remember(Uuid::nil(), 3);
        sessions.remember(Uuid::nil(), 2);
        assert_eq!(sessions.generation(Uuid::nil()), Some(3));
    }
}
