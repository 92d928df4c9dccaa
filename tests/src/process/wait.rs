//! What the processes' tests wait for: conditions, each with a name and a bound.

use std::time::{Duration, Instant};

use crate::wait::within;

/// Between two looks of [`comes_to_hold`].
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds something; fails the test by `what` after `bound`.
pub async fn until<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut found = None;
    within(bound, what, async || {
        found = look().await;
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// The same outside of async code, where a failing test is being cleared away; true if it holds.
pub fn comes_to_hold(bound: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() >= bound {
            return false;
        }
        std::thread::sleep(LOOK_EVERY); // Between two looks.
    }
    true
}

/// Lets time pass that is itself the point, such as an outage of a length.
pub async fn pass(time: Duration) {
    let began = Instant::now();
    let patience = Duration::from_secs(10);
    within(time + patience, "time passes", async || began.elapsed() >= time).await;
}
