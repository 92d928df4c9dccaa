//! Every view made anew from a long log, one after the other, while heartbeats go on.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;
use crate::fill::{Fill, Group, lack_of_room};
use crate::plan::Limit;
use crate::report::median;
use crate::scripts::Names;
use crate::stage::{Setting, Stage};
use crate::works::{self, LONG_LEASE_MS, Outcome, Place};

/// Transitions of each user: five sessions that are over, and one that is live.
const TRANSITIONS_EACH: usize = 11;
/// Events a second, over all views.
const RATE_MIN: f64 = 50_000.0;
/// Heartbeats meanwhile in terms of those without.
const HEARTBEATS_MIN: f64 = 0.7;
/// Between two looks at how far a view is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came of one view.
struct Built {
    view: String,
    seconds: f64,
    /// Heartbeats a second meanwhile.
    heartbeats: f64,
}

/// Heartbeats alone before, between and after the builds; and during each.
pub(crate) async fn measure(place: &Place<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let users = place.extent.sessions;
    let group = Group { letter: 'u', users, transitions_each: TRANSITIONS_EACH, ends_in_ms: None };
    let sessions = group.sessions();
    let fill = Fill { groups: vec![group], heartbeats: 0, lease_ms: LONG_LEASE_MS };
    if let Some(lack) = lack_of_room(&place.dir, fill.bytes())? {
        outcome.notes.push(format!("not measured: {lack}"));
        return Ok(outcome);
    }
    let events = fill.transitions() as f64;
    let setting = Setting { lease_ms: Some(LONG_LEASE_MS), fill: Some(fill) };
    let stage = Stage::open(place.dir.join("rebuild"), place.rollcall, &setting).await?;
    let began = Instant::now();
    stage.caught_up().await?;
    let live_views = began.elapsed().as_secs_f64();
    stage.settled().await?;
    let timing = place.extent.timing;
    let mut alone = Vec::new();
    let mut built = Vec::new();
    for view in views(&stage.call("GET /v1/views", "").await?) {
        let tally = works::heartbeats(&stage, &sessions, timing, &mut outcome).await?;
        alone.push(works::rate(&tally, timing));
        built.push(build(&stage, view, &sessions, &mut outcome).await?);
    }
    let tally = works::heartbeats(&stage, &sessions, timing, &mut outcome).await?;
    alone.push(works::rate(&tally, timing));
    check_rows(&stage, &mut outcome).await?;
    stage.close().await?;
    report(&mut outcome, events, &alone, &built);
    let count = built.len() as f64;
    outcome.read("live views, from the beginning", events * count / live_views, "events/s");
    Ok(outcome)
}

fn report(outcome: &mut Outcome, events: f64, alone: &[f64], built: &[Built]) {
    for one in built {
        outcome.read(format!("{} anew", one.view), events / one.seconds, "events/s");
        outcome.read(format!("heartbeats during {}", one.view), one.heartbeats, "heartbeats/s");
    }
    let seconds: f64 = built.iter().map(|one| one.seconds).sum();
    let beaten: f64 = built.iter().map(|one| one.heartbeats * one.seconds).sum();
    let alone = median(alone.to_vec());
    outcome.read("heartbeats without", alone, "heartbeats/s");
    let rate = events * built.len() as f64 / seconds;
    outcome.hold("rebuild, events/s", rate, Limit::AtLeast(RATE_MIN));
    let ratio = beaten / seconds / alone;
    outcome.hold("rebuild, heartbeats kept", ratio, Limit::AtLeast(HEARTBEATS_MIN));
}

/// The names of all views, from the answer of `GET /v1/views`.
fn views(all: &Value) -> Vec<String> {
    let items = all["items"].as_array().into_iter().flatten();
    let live = items.filter(|view| view["state"] == "live");
    live.filter_map(|view| view["view"].as_str().map(str::to_owned)).collect()
}

/// Asks for a view anew, and sends heartbeats until the new version is live.
async fn build(
    stage: &Stage,
    view: String,
    sessions: &Names,
    outcome: &mut Outcome,
) -> Result<Built, Failure> {
    eprintln!("rebuild: {view}");
    let built = async {
        let began = Instant::now();
        let asked = stage.call(&format!("POST /v1/views/{view}/rebuild"), "").await?;
        let version = asked["version"].as_i64().ok_or("a build without a version")?;
        while !is_live(&stage.call("GET /v1/views", "").await?, &view, version) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(began.elapsed().as_secs_f64())
    };
    let (tally, seconds) =
        works::heartbeats_beside(stage, sessions, Duration::ZERO, outcome, built).await?;
    let heartbeats = tally.counted as f64 / tally.took.as_secs_f64();
    Ok(Built { view, seconds, heartbeats })
}

fn is_live(all: &Value, view: &str, version: i64) -> bool {
    let items = all["items"].as_array().into_iter().flatten();
    items
        .into_iter()
        .any(|one| one["view"] == view && one["version"] == version && one["state"] == "live")
}

/// What was built holds what was there before: as many rows.
async fn check_rows(stage: &Stage, outcome: &mut Outcome) -> Result<(), Failure> {
    let rebuilt = stage.log.rebuilt().await?;
    if rebuilt.is_empty() {
        outcome.void("nothing was built anew");
    }
    for (view, live, kept) in rebuilt {
        if live != kept {
            outcome.void(format!("{view} has {live} rows, and had {kept}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_build_is_over_when_its_version_is_live() {
        let all = json!({ "items": [
            { "view": "occupancy", "version": 1, "state": "live" },
            { "view": "occupancy", "version": 2, "state": "building" },
        ] });
        assert_eq!(views(&all), ["occupancy"]);
        assert!(is_live(&all, "occupancy", 1) && !is_live(&all, "occupancy", 2));
    }

    #[test]
    fn the_rate_over_all_views_is_of_all_their_time() {
        let mut outcome = Outcome::default();
        let built = |seconds| Built { view: "v".to_owned(), seconds, heartbeats: 80.0 };
        report(&mut outcome, 100.0, &[100.0, 90.0, 110.0], &[built(1.0), built(3.0)]);
        let values: Vec<f64> = outcome.verdicts.iter().map(|verdict| verdict.value).collect();
        assert_eq!(values, [50.0, 0.8]);
    }
}
