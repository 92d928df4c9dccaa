//! A made-up past, imported, and what it comes to by arithmetic of our own.

use std::collections::BTreeMap;

use api::auth::Role;
use chrono::{DurationRound, TimeDelta};
use domain::Timestamp;
use serde_json::{Value, json};
use tests::{Client, World, fold};
use uuid::Uuid;

/// One imported session.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) user: String,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn analyst(world: &World) -> Client {
    world.client("analyst", &[Role::Analyst])
}

/// Sessions of six people by chance, some of them at one time, over so many days.
pub(super) fn visits(from: &str, days: i64) -> Vec<Visit> {
    let mut visits = Vec::new();
    for user in 0..6 {
        for _ in 0..days * 3 {
            let begins = fastrand::i64(0..days * 86_400_000);
            let length = 1_000 * 10_i64.pow(fastrand::u32(0..5)) + fastrand::i64(0..20_000_000);
            let begins = at(from) + TimeDelta::milliseconds(begins);
            visits.push(Visit {
                user: format!("v{user}"),
                from: begins,
                to: begins + TimeDelta::milliseconds(length),
                kind: fastrand::choice(["web", "mobile", "desktop"]).unwrap(),
                reason: fastrand::choice(["user_request", "lost_carrier"]).unwrap(),
            });
        }
    }
    visits
}

/// Takes them over, and waits until the views have them.
pub(super) async fn import(world: &World, visits: &[Visit]) {
    let mut lines: Vec<(Timestamp, Value)> = Vec::new();
    for (number, visit) in visits.iter().enumerate() {
        let session = Uuid::from_u128(number as u128 + 1);
        let about = |name: &str, at: Timestamp| {
            json!({ "type": name, "user_id": visit.user,
            "session_id": session, "occurred_at": at })
        };
        let mut opened = about("session_opened", visit.from);
        opened["device"] = json!({ "kind": visit.kind });
        let ends =
            if visit.reason == "user_request" { "session_closed" } else { "session_expired" };
        lines.extend([(visit.from, opened), (visit.to, about(ends, visit.to))]);
    }
    lines.sort_by_key(|(at, _)| *at);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line.to_string()).collect();
    let body = lines.join("\n");
    let report = world.admin().post_raw("/v1/import", "application/x-ndjson", body).await;
    assert_eq!(report.expect(200)["imported"], lines.len());
    fold::caught_up(&world.pool).await;
}

/// When each person was online: sessions that overlap are one stretch.
pub(super) fn stretches(visits: &[Visit]) -> BTreeMap<&str, Vec<(Timestamp, Timestamp)>> {
    let mut users: BTreeMap<&str, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
    let mut visits: Vec<&Visit> = visits.iter().collect();
    visits.sort_by_key(|visit| visit.from);
    for visit in visits {
        let stretches = users.entry(&visit.user).or_default();
        match stretches.last_mut().filter(|last| visit.from <= last.1) {
            Some(last) => last.1 = last.1.max(visit.to),
            None => stretches.push((visit.from, visit.to)),
        }
    }
    users
}

/// How many were online at a full minute, where changes count from the end of their minute.
pub(super) fn online_at(visits: &[Visit], at: Timestamp) -> i64 {
    let minute = TimeDelta::minutes(1);
    let counts_from = |at: Timestamp| at.duration_trunc(minute).unwrap() + minute;
    let is_in =
        |(from, to): &(Timestamp, Timestamp)| counts_from(*from) <= at && at < counts_from(*to);
    stretches(visits).values().filter(|user| user.iter().any(is_in)).count() as i64
}

/// What two intervals share, in milliseconds.
pub(super) fn shared_ms(one: (Timestamp, Timestamp), other: (Timestamp, Timestamp)) -> i64 {
    (one.1.min(other.1) - one.0.max(other.0)).num_milliseconds().max(0)
}
