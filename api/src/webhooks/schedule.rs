//! When a failed attempt is repeated.

use std::time::Duration;

/// The waits after the first, second, ... failed attempt: those of Standard Webhooks, with
/// two more at the beginning, so that what a restart cost is told within a minute. Three days in
/// all; after the last attempt it is given up.
pub const RETRY_AFTER: [Duration; 11] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// Up to so much of a wait is added by chance, in percent: those who failed together do not come
/// back together.
pub const JITTER_PERCENT: u32 = 20;
/// Longest wait that an endpoint may ask for by `Retry-After`.
pub const ASKED_WAIT_MAX: Duration = Duration::from_hours(1);

/// How long to wait after that attempt, counted from 1; none: it was the last.
pub fn wait(attempt: i32, asked: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
    let planned = *RETRY_AFTER.get(index)?;
    let jittered = planned + planned * fastrand::u32(0..=JITTER_PERCENT) / 100;
    Some(asked.map_or(jittered, |asked| jittered.max(asked.min(ASKED_WAIT_MAX))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        for (index, planned) in RETRY_AFTER.iter().enumerate() {
            let waited = wait(index as i32 + 1, None).unwrap();
            assert!(waited >= *planned && waited <= *planned * 6 / 5);
        }
        assert_eq!(wait(RETRY_AFTER.len() as i32 + 1, None), None);
    }

    #[test]
    fn an_endpoint_may_ask_for_more_time_within_bounds() {
        assert_eq!(wait(1, Some(Duration::from_secs(90))), Some(Duration::from_secs(90)));
        assert_eq!(wait(1, Some(Duration::from_hours(99))), Some(ASKED_WAIT_MAX));
        assert!(wait(1, Some(Duration::ZERO)).unwrap() >= RETRY_AFTER[0]);
    }
}
