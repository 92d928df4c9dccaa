//! What a live session takes of the server's memory.

use crate::Failure;
use crate::fill::{Fill, Group, lack_of_room};
use crate::plan::Limit;
use crate::scripts::Names;
use crate::stage::{Setting, Stage};
use crate::works::{LONG_LEASE_MS, Outcome, Place};

/// Most bytes for each session.
const BYTES_MAX: f64 = 1_024.0;

/// The same server with nobody, and with everybody, all of whom have sent a heartbeat.
pub(crate) async fn measure(place: &Place<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let group = Group::fresh('u', place.extent.many_sessions());
    let (count, sessions) = (group.users, group.sessions());
    let fill = Fill { groups: vec![group], heartbeats: 0, lease_ms: LONG_LEASE_MS };
    if let Some(lack) = lack_of_room(&place.dir, fill.bytes())? {
        outcome.notes.push(format!("not measured: {lack}"));
        return Ok(outcome);
    }
    let alone = resident(place, None).await?;
    let crowded = resident(place, Some((fill, &sessions))).await?;
    let each = crowded.saturating_sub(alone) as f64 / count as f64;
    outcome.read("resident, nobody there", alone as f64 / f64::from(1 << 20), "MiB");
    outcome.read(format!("resident, {count} sessions"), crowded as f64 / f64::from(1 << 20), "MiB");
    outcome.hold("memory, bytes a session", each, Limit::AtMost(BYTES_MAX));
    Ok(outcome)
}

async fn resident(place: &Place<'_>, there: Option<(Fill, &Names)>) -> Result<u64, Failure> {
    let (fill, sessions) = there.unzip();
    let setting = Setting { lease_ms: Some(LONG_LEASE_MS), fill };
    let stage = Stage::open(place.dir.join("memory"), place.rollcall, &setting).await?;
    stage.caught_up().await?;
    if let Some(sessions) = sessions {
        stage.beat_all(sessions).await?;
    }
    let bytes = stage.resident_bytes()?;
    stage.close().await?;
    Ok(bytes)
}
