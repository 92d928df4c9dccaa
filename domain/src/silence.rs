//! When a lease ends. A lease runs only while somebody was listening.
//!
//! A *silence* is a stretch in which no node appended anything: an outage of ours. No client could
//! renew a lease then, so it does not count: the deadline is the instant when that much time
//! *outside* silences has passed. `lease_end` in `migrations/` computes the same in SQL.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One outage, as `service_resumed` records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The newest batch before it.
    pub from: Timestamp,
    /// The first batch after it.
    pub to: Timestamp,
}

/// All silences that may still matter, oldest first, without overlap. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Silences(Arc<[Silence]>);

impl Silences {
    /// From silences in any order.
    pub fn new(mut silences: Vec<Silence>) -> Self {
        silences.sort_by_key(|silence| silence.from);
        Self(silences.into())
    }

    /// These and one more.
    #[must_use]
    pub fn with(&self, silence: Silence) -> Self {
        let mut all = self.0.to_vec();
        all.push(silence);
        Self::new(all)
    }

    /// The silences, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.0.iter()
    }

    /// The instant at which `length_ms` of time outside silences has passed since `start`.
    pub fn deadline(&self, start: Timestamp, length_ms: u32) -> Timestamp {
        let mut end = start + TimeDelta::milliseconds(length_ms.into());
        for silence in self.0.iter() {
            if silence.to > start && silence.from < end {
                end += silence.to - silence.from.max(start);
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap_or_default()
    }

    fn silent(pairs: &[(i64, i64)]) -> Silences {
        Silences::new(pairs.iter().map(|&(a, b)| Silence { from: at(a), to: at(b) }).collect())
    }

    #[test]
    fn without_a_silence_the_lease_is_its_length() {
        assert_eq!(silent(&[]).deadline(at(0), 120_000), at(120));
    }

    #[test]
    fn a_silence_inside_the_lease_prolongs_it_by_its_length() {
        assert_eq!(silent(&[(60, 120)]).deadline(at(0), 120_000), at(180));
    }

    #[test]
    fn only_the_part_after_the_last_sign_of_life_counts() {
        assert_eq!(silent(&[(-50, 30)]).deadline(at(0), 120_000), at(150));
    }

    #[test]
    fn a_silence_that_begins_at_the_deadline_or_ended_before_does_not_count() {
        assert_eq!(silent(&[(120, 500), (-10, 0)]).deadline(at(0), 120_000), at(120));
    }

    #[test]
    fn a_prolonged_lease_may_run_into_the_next_silence() {
        assert_eq!(silent(&[(130, 160), (100, 120)]).deadline(at(0), 120_000), at(170));
    }
}
