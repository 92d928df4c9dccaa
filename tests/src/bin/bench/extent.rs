//! How much is done: the usual, a minute's, or an hour's.

use std::time::Duration;

use crate::load::Timing;

/// Live sessions, as a rule.
const SESSIONS: usize = 100_000;
/// The fewest that any work has.
pub(crate) const FEW_SESSIONS: usize = 1_000;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Live sessions. Whatever has other numbers of them, has them in proportion.
    pub(crate) sessions: usize,
    pub(crate) churn_users: usize,
    /// Spans of the one whose history is asked for.
    pub(crate) spans: usize,
    pub(crate) rounds: usize,
    pub(crate) timing: Timing,
    /// Sockets that watch one user.
    pub(crate) watchers: usize,
    /// Changes of that user's, a round.
    pub(crate) changes: usize,
    /// Seconds in which leases end.
    pub(crate) waves: usize,
    /// From the filling of a log to the first end of a lease, in milliseconds.
    pub(crate) prepare_ms: i64,
    /// Most events that a log is filled with.
    pub(crate) events_max: u64,
}

impl Extent {
    /// The usual one.
    pub(crate) const USUAL: Self = Self {
        sessions: SESSIONS,
        churn_users: 20_000,
        spans: 10_000,
        rounds: 5,
        timing: Timing {
            warm_up: Duration::from_millis(500),
            measured: Duration::from_millis(3_500),
        },
        watchers: 1_000,
        changes: 100,
        waves: 3,
        prepare_ms: 120_000,
        events_max: 10_000_000,
    };
    /// Within a minute, with everything that belongs to it.
    pub(crate) const QUICK: Self = Self {
        sessions: 10_000,
        churn_users: 5_000,
        spans: 2_000,
        rounds: 3,
        timing: Timing {
            warm_up: Duration::from_millis(100),
            measured: Duration::from_millis(350),
        },
        watchers: 1_000,
        changes: 20,
        waves: 1,
        prepare_ms: 8_000,
        events_max: 10_000_000,
    };

    /// The usual one, longer and larger.
    pub(crate) fn long() -> Self {
        let mut long = Self { watchers: 10_000, ..Self::USUAL };
        long.timing.measured *= 3;
        long
    }

    /// Sessions that there are at most: a million, as a rule.
    pub(crate) fn many_sessions(&self) -> usize {
        self.sessions * 10
    }

    /// Live sessions, from a few to many. Never fewer than connections, which would be compared.
    pub(crate) fn growing_sessions(&self) -> Vec<usize> {
        let sizes = [self.sessions / 100, self.sessions / 10, self.sessions, self.many_sessions()];
        let mut sizes = sizes.map(|size| size.max(FEW_SESSIONS)).to_vec();
        sizes.dedup();
        sizes
    }

    /// A number that belongs to the usual number of sessions.
    pub(crate) fn scaled(&self, number: u64) -> u64 {
        number * self.sessions as u64 / SESSIONS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_many_is_a_million_as_a_rule_and_fewer_in_proportion() {
        let usual = Extent::USUAL;
        assert_eq!(usual.growing_sessions(), [1_000, 10_000, 100_000, 1_000_000]);
        let fewer = Extent { sessions: 2_000, ..usual };
        assert_eq!(fewer.growing_sessions(), [1_000, 2_000, 20_000]);
        assert_eq!(usual.scaled(50_000_000), 50_000_000);
        assert_eq!(Extent::QUICK.scaled(50_000_000), 5_000_000);
    }
}
