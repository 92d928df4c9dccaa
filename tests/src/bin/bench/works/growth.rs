//! Whether a heartbeat is as cheap among a million sessions, and after millions of events, as it is
//! among a thousand.

use crate::Failure;
use crate::fill::{Fill, Group, lack_of_room};
use crate::plan::Limit;
use crate::report::median;
use crate::scripts::Names;
use crate::stage::{Setting, Stage};
use crate::works::{self, LONG_LEASE_MS, Outcome, Place};

/// Slowest in terms of fastest.
const SLOWEST_MIN: f64 = 0.8;
/// Events in the log, beside none: for as many as the disk, and whoever asks, lets us.
const EVENTS: &[u64] = &[10_000_000, 50_000_000];

/// One size.
struct Size {
    name: String,
    stage: Stage,
    sessions: std::sync::Arc<Names>,
    rates: Vec<f64>,
}

/// All sizes at the same time, each with a server of its own, and measured in turn.
pub(crate) async fn measure(place: &Place<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let usual = place.extent.sessions;
    let mut sizes = Vec::new();
    for sessions in place.extent.growing_sessions() {
        let fill = fill(sessions, 0);
        sizes.extend(open(place, format!("{sessions} sessions"), fill, &mut outcome).await?);
    }
    for events in EVENTS.iter().map(|events| place.extent.scaled(*events)) {
        if events > place.extent.events_max {
            let max = place.extent.events_max;
            outcome.notes.push(format!("{events} events: left out by --events-max {max}"));
            continue;
        }
        let name = format!("{usual} sessions, {events} events");
        sizes.extend(open(place, name, fill(usual, events), &mut outcome).await?);
    }
    for _ in 0..place.extent.rounds {
        for size in &mut sizes {
            let timing = place.extent.timing;
            let tally =
                works::heartbeats(&size.stage, &size.sessions, timing, &mut outcome).await?;
            size.rates.push(works::rate(&tally, timing));
        }
    }
    let mut medians = Vec::new();
    for size in sizes {
        let rate = median(size.rates);
        medians.push(rate);
        outcome.read(size.name, rate, "heartbeats/s");
        size.stage.close().await?;
    }
    let fastest = medians.iter().copied().fold(0.0, f64::max);
    let slowest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    outcome.hold("growth, slowest/fastest", slowest / fastest, Limit::AtLeast(SLOWEST_MIN));
    Ok(outcome)
}

fn fill(sessions: usize, heartbeats: u64) -> Fill {
    Fill { groups: vec![Group::fresh('u', sessions)], heartbeats, lease_ms: LONG_LEASE_MS }
}

/// None where the disk cannot hold it.
async fn open(
    place: &Place<'_>,
    name: String,
    fill: Fill,
    outcome: &mut Outcome,
) -> Result<Option<Size>, Failure> {
    if let Some(lack) = lack_of_room(&place.dir, fill.bytes())? {
        outcome.notes.push(format!("{name}: left out, as {lack}"));
        return Ok(None);
    }
    eprintln!("growth: {name}");
    let sessions = fill.groups[0].sessions();
    let dir = place.dir.join(format!("growth-{}", name.replace([' ', ','], "-")));
    let setting = Setting { lease_ms: Some(LONG_LEASE_MS), fill: Some(fill) };
    let stage = Stage::open(dir, place.rollcall, &setting).await?;
    stage.settled().await?;
    Ok(Some(Size { name, stage, sessions, rates: Vec::new() }))
}
