//! Conditions are awaited with a bound; tests do not sleep.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits: what takes milliseconds, on a machine that others keep busy.
pub const EVENTUALLY_MAX: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `check` holds, at most [`EVENTUALLY_MAX`].
pub async fn eventually(what: &str, check: impl AsyncFnMut() -> bool) {
    within(EVENTUALLY_MAX, what, check).await;
}

/// Waits until `check` holds, at most `limit`; how long that took.
pub async fn within(limit: Duration, what: &str, mut check: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if check().await {
            return began.elapsed();
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
    }
}
