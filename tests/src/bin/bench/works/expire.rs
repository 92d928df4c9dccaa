//! Many leases that end in one second, while others send heartbeats.

use std::time::Duration;

use crate::Failure;
use crate::fill::{Fill, Group};
use crate::load::Timing;
use crate::log::Lapses;
use crate::plan::Limit;
use crate::report::median;
use crate::scripts::Names;
use crate::stage::{Setting, Stage};
use crate::works::{self, Outcome, Place};

/// The lease of those who are there from the beginning, in milliseconds: longer than it takes until
/// the last wave.
const LEASE_MS: u32 = 600_000;
/// All are recorded within this, in milliseconds.
const RECORDED_MS_MAX: f64 = 5_000.0;
/// Heartbeats meanwhile may take so many times as long, at the 99th percentile.
const SLOWER_MAX: f64 = 3.0;
/// From one wave of ends to the next, in milliseconds.
const WAVES_APART_MS: i64 = 20_000;
/// How long before the first end everything must be ready, in milliseconds.
const READY_BEFORE_MS: i64 = 500;
/// Between two looks at what has been recorded.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the names of those begin with whose leases end, a letter a wave.
const WAVES: &[char] = &['x', 'y', 'z'];

/// Waves of ends; before each, the usual heartbeats; in it, the same until all are recorded.
pub(crate) async fn measure(place: &Place<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let extent = place.extent;
    let others = Group::fresh('u', extent.sessions / 5);
    let sessions = others.sessions();
    let mut groups = vec![others];
    let waves = extent.waves.min(WAVES.len());
    for (wave, letter) in WAVES.iter().take(waves).enumerate() {
        let ends_in_ms = extent.prepare_ms + WAVES_APART_MS * wave as i64;
        let group = Group::fresh(*letter, extent.sessions);
        groups.push(Group { ends_in_ms: Some(ends_in_ms), ..group });
    }
    let fill = Fill { groups, heartbeats: 0, lease_ms: LEASE_MS };
    let setting = Setting { lease_ms: None, fill: Some(fill) };
    let stage = Stage::open(place.dir.join("expire"), place.rollcall, &setting).await?;
    stage.caught_up().await?;
    let (mut recorded, mut ratios, mut p99s) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for letter in &WAVES[..waves] {
        let found = wave(&stage, *letter, &sessions, extent.timing, &mut outcome).await?;
        if found.lapses.count != extent.sessions as u64 {
            let count = found.lapses.count;
            outcome.void(format!("{count} of {} ends are in the log", extent.sessions));
        }
        recorded.push(found.lapses.behind_max_ms);
        ratios.push(found.p99_ms / found.usual_p99_ms);
        p99s.0.push(found.usual_p99_ms);
        p99s.1.push(found.p99_ms);
        outcome.read(format!("wave {letter}: ends within"), found.lapses.apart_ms, "ms");
    }
    stage.close().await?;
    outcome.read("heartbeat p99, usually", median(p99s.0), "ms");
    outcome.read("heartbeat p99, meanwhile", median(p99s.1), "ms");
    outcome.hold("expire, last recorded, ms", median(recorded), Limit::AtMost(RECORDED_MS_MAX));
    outcome.hold("expire, heartbeat p99", median(ratios), Limit::AtMost(SLOWER_MAX));
    Ok(outcome)
}

/// What came of one wave.
struct Wave {
    lapses: Lapses,
    usual_p99_ms: f64,
    p99_ms: f64,
}

async fn wave(
    stage: &Stage,
    letter: char,
    sessions: &Names,
    timing: Timing,
    outcome: &mut Outcome,
) -> Result<Wave, Failure> {
    stage.beat_all(sessions).await?;
    // Silences while the server started have moved the ends.
    let until_ms = stage.log.ends_in_ms(letter).await?;
    let measured_ms = (timing.warm_up + timing.measured).as_millis() as i64;
    let rest_ms = until_ms - READY_BEFORE_MS - measured_ms;
    if rest_ms < 0 {
        return Err(format!("leases ended {} ms before all was ready", -rest_ms).into());
    }
    tokio::time::sleep(Duration::from_millis(rest_ms.cast_unsigned())).await;
    let usual = works::heartbeats(stage, sessions, timing, outcome).await?;
    let until_ms = stage.log.ends_in_ms(letter).await?.max(0).cast_unsigned();
    let recorded = async {
        while stage.log.any_live(letter).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    let until = Duration::from_millis(until_ms);
    let (tally, ()) = works::heartbeats_beside(stage, sessions, until, outcome, recorded).await?;
    Ok(Wave {
        lapses: stage.log.lapses(letter).await?,
        usual_p99_ms: usual.latency_ms(0.99),
        p99_ms: tally.latency_ms(0.99),
    })
}
