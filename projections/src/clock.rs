//! The database's clock, as well as a node can know it.
//!
//! There is one clock: `append`'s `now`. Each answer of `append` tells it; between answers the
//! node's monotonic clock carries it on. The estimate never runs backwards, never runs ahead of the
//! database, and never more than [`SILENCE`] past the newest batch known: whatever happened after
//! that may have been a silence, in which no lease runs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::Timestamp;

/// From here on, time without a batch is an outage. The same in `append`.
pub const SILENCE: TimeDelta = TimeDelta::seconds(5);

/// The estimate.
#[derive(Debug, Default)]
pub struct LogClock {
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// `recorded_at` of the newest batch.
    newest: Timestamp,
    /// The database's time at `heard`, as the fastest recent answer told it.
    told: Timestamp,
    heard: Instant,
    /// What was last answered: time does not run backwards.
    latest: Timestamp,
}

impl LogClock {
    /// The newest batch known has `recorded_at`; its answer arrived just now.
    pub fn hear(&self, recorded_at: Timestamp) {
        let heard = Instant::now();
        let mut known = self.lock();
        let fresh = Known { newest: recorded_at, told: recorded_at, heard, latest: recorded_at };
        *known = Some(match *known {
            None => fresh,
            Some(old) if recorded_at < old.newest => old,
            Some(old) => {
                // The answer that took the shortest way is the best estimate; clocks drift, so an
                // old one is believed a little less with time.
                let expected = carried(old, heard) - drift(old, heard);
                if recorded_at >= expected {
                    Known { latest: old.latest.max(recorded_at), ..fresh }
                } else {
                    let latest = old.latest.max(recorded_at);
                    Known { newest: recorded_at, told: expected, heard, latest }
                }
            }
        });
    }

    /// Whether a silence of which this node has not read yet may have ended with a batch of that
    /// time: hearing of it before reading the silences would cut leases short.
    pub fn may_hide_silence(&self, recorded_at: Timestamp) -> bool {
        self.lock().is_none_or(|known| recorded_at - known.newest > SILENCE)
    }

    /// The database's now. Before the first answer: the beginning of time.
    pub fn now(&self) -> Timestamp {
        let mut known = self.lock();
        let Some(known) = known.as_mut() else { return Timestamp::UNIX_EPOCH };
        let estimate = carried(*known, Instant::now()).min(known.newest + SILENCE);
        known.latest = known.latest.max(estimate);
        known.latest
    }

    /// How old the newest batch is that this node knows of; none: it knows of none.
    pub fn newest_age(&self) -> Option<TimeDelta> {
        let known = *self.lock();
        known.map(|known| carried(known, Instant::now()) - known.newest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn carried(known: Known, at: Instant) -> Timestamp {
    known.told + micros(at - known.heard)
}

/// A tenth of a per cent of the time since: more than any clock drifts.
fn drift(known: Known, at: Instant) -> TimeDelta {
    micros((at - known.heard) / 1000)
}

/// The log's clock ticks in microseconds: what is decided by a finer one would be stored as
/// another instant than was decided.
pub(crate) fn micros(length: Duration) -> TimeDelta {
    TimeDelta::microseconds(i64::try_from(length.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_run_backwards_when_an_older_batch_is_heard_of() {
        let clock = LogClock::default();
        let base = Timestamp::UNIX_EPOCH + TimeDelta::days(20_000);
        clock.hear(base);
        let first = clock.now();
        clock.hear(base - TimeDelta::seconds(3));
        assert!(clock.now() >= first);
    }

    #[test]
    fn it_follows_a_database_that_runs_ahead() {
        let clock = LogClock::default();
        let base = Timestamp::UNIX_EPOCH + TimeDelta::days(20_000);
        clock.hear(base);
        clock.hear(base + TimeDelta::hours(1));
        assert!(clock.now() >= base + TimeDelta::hours(1));
    }

    #[test]
    fn only_a_batch_long_after_the_newest_known_may_have_ended_a_silence() {
        let clock = LogClock::default();
        let base = Timestamp::UNIX_EPOCH + TimeDelta::days(20_000);
        assert!(clock.may_hide_silence(base));
        clock.hear(base);
        assert!(!clock.may_hide_silence(base + SILENCE));
        assert!(clock.may_hide_silence(base + SILENCE + TimeDelta::microseconds(1)));
    }

    #[test]
    fn it_never_runs_far_past_the_newest_batch() {
        let clock = LogClock::default();
        let base = Timestamp::UNIX_EPOCH + TimeDelta::days(20_000);
        clock.hear(base);
        assert!(clock.now() <= base + SILENCE);
    }
}
