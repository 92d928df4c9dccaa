//! History from elsewhere: lines over HTTP, and a real host's log.

use std::collections::BTreeMap;
use std::path::Path;

use api::import::pam::PamLog;
use api::import::{Importer, Item};
use chrono::{NaiveDateTime, TimeDelta};
use domain::Timestamp;
use serde_json::{Value, json};
use tests::{World, instant};
use uuid::Uuid;

const NDJSON: &str = "application/x-ndjson";

async fn import(world: &World, lines: &[Value]) -> Value {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    world.admin().post_raw("/v1/import", NDJSON, lines.join("\n")).await.expect(200)
}

fn line(name: &str, session: u128, at: &str) -> Value {
    json!({ "type": name, "user_id": "ana", "session_id": Uuid::from_u128(session),
        "occurred_at": at })
}

#[tokio::test]
async fn history_is_taken_over_once_however_often_it_is_sent() {
    let world = World::start().await;
    let lines = [
        line("session_opened", 1, "2020-01-01T08:00:00Z"),
        line("heartbeat", 1, "2020-01-01T08:30:00Z"),
        line("session_closed", 1, "2020-01-01T09:00:00Z"),
        line("session_opened", 2, "2020-01-01T10:00:00Z"),
        line("session_expired", 2, "2020-01-01T11:00:00Z"),
    ];
    let report = import(&world, &lines).await;
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(5), &json!(0)));
    assert_eq!(report["rejected"], json!([]));
    assert_eq!(report["position"], world.head().await);
    let events = world.events().await;
    let again = import(&world, &lines).await;
    assert_eq!((&again["imported"], &again["skipped"]), (&json!(0), &json!(5)));
    assert_eq!(world.events().await, events);
    // It is history, and no part of the present.
    let status = world.user("ben").status("ana").await;
    assert_eq!(
        (&status["status"], &status["since"]),
        (&json!("offline"), &json!("2020-01-01T11:00:00.000000Z"))
    );
    for (at, word) in [("08:29:00", "online"), ("09:30:00", "offline"), ("10:59:59", "online")] {
        let path = format!("/v1/users/ana/status?at=2020-01-01T{at}Z");
        assert_eq!(world.auditor().get(&path).await.expect(200)["status"], word, "{at}");
    }
    let first = &world.transitions("ana").await[0];
    assert_eq!((&first["data"]["imported"], &first["actor"]), (&json!(true), &json!("root")));
    assert_eq!(first["occurred_at"], "2020-01-01T08:00:00.000000Z");
    world.finish().await;
}

#[tokio::test]
async fn lines_out_of_order_or_over_own_history_are_refused_by_their_number() {
    let world = World::start().await;
    let report = import(
        &world,
        &[
            line("session_opened", 1, "2020-01-01T08:00:00Z"),
            line("session_closed", 1, "2020-01-01T09:00:00Z"),
            line("session_opened", 2, "2020-01-01T08:30:00Z"),
            line("session_closed", 9, "2020-01-01T10:00:00Z"),
            line("session_opened", 3, "2100-01-01T10:00:00Z"),
        ],
    )
    .await;
    assert_eq!(report["imported"], 2);
    assert_eq!(codes(&report), [(3, "out_of_order"), (4, "not_open"), (5, "in_the_future")]);
    world.user("ana").login().await;
    let soon = world.now().await + TimeDelta::microseconds(0);
    let late = soon.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let report = import(
        &world,
        &[
            line("session_opened", 4, &late),
            line("session_opened", 5, "2020-02-01T08:00:00Z"),
            line("session_closed", 5, "2020-02-01T09:00:00Z"),
        ],
    )
    .await;
    assert_eq!((&report["imported"], codes(&report)), (&json!(2), vec![(1, "overlaps_history")]));
    assert_eq!(world.user("ana").status_word("ana").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn a_session_left_open_ends_at_its_last_imported_event() {
    let world = World::start().await;
    let report = import(
        &world,
        &[
            line("session_opened", 1, "2020-01-01T08:00:00Z"),
            line("heartbeat", 1, "2020-01-01T08:45:00Z"),
        ],
    )
    .await;
    assert_eq!(report["imported"], 2);
    let end = world.transitions("ana").await.pop().unwrap();
    assert_eq!((&end["type"], &end["reason"]), (&json!("session_closed"), &json!("lost_carrier")));
    assert_eq!(end["occurred_at"], "2020-01-01T08:45:00.000000Z");
    assert_eq!(world.user("ben").status_word("ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn wrong_lines_do_not_hold_up_the_others() {
    let world = World::start().await;
    let good = line("session_opened", 1, "2020-01-01T08:00:00Z");
    let mut far = line("session_opened", 2, "2020-01-01T08:00:00Z");
    far["occurred_at"] = json!("-262143-01-01T00:00:00Z");
    let body = [
        b"{".to_vec(),
        b"\xff\xfe".to_vec(),
        vec![b'x'; 70_000],
        b"".to_vec(),
        line("claim_set", 3, "2020-01-01T08:00:00Z").to_string().into_bytes(),
        far.to_string().into_bytes(),
        good.to_string().into_bytes(),
    ];
    let report = world.admin().post_raw("/v1/import", NDJSON, body.join(&b'\n')).await.expect(200);
    let codes = codes(&report);
    let expected =
        [(1, "malformed"), (2, "malformed"), (3, "line_too_long"), (5, "unsupported_type")];
    assert_eq!(codes[..4], expected);
    assert_eq!((codes[4].0, codes.len(), &report["imported"]), (6, 5, &json!(1)));
    world.finish().await;
}

#[tokio::test]
async fn nothing_from_before_1970_is_taken_over() {
    let world = World::start().await;
    let report = import(
        &world,
        &[
            line("session_opened", 1, "1066-10-14T09:00:00Z"),
            line("session_closed", 1, "1969-12-31T23:59:59.999999Z"),
            line("session_opened", 1, "1970-01-01T00:00:00Z"),
            line("session_closed", 1, "2020-01-01T09:00:00Z"),
        ],
    )
    .await;
    assert_eq!(codes(&report), [(1, "before_epoch"), (2, "before_epoch")]);
    assert_eq!(report["imported"], 2);
    world.finish().await;
}

#[tokio::test]
async fn an_import_is_for_admins_and_may_be_empty() {
    let world = World::start().await;
    for client in [world.user("ana"), world.service(), world.auditor()] {
        client.post_raw("/v1/import", NDJSON, "").await.problem(403, "forbidden");
    }
    let report = world.admin().post_raw("/v1/import", NDJSON, "\n\n").await.expect(200);
    assert_eq!((&report["imported"], &report["rejected"]), (&json!(0), &json!([])));
    world.finish().await;
}

#[tokio::test]
async fn many_users_histories_are_taken_over_at_one_time() {
    let world = World::start().await;
    let mut lines = Vec::new();
    for n in 0..300_u128 {
        for (name, at) in [("session_opened", "08"), ("session_closed", "09")] {
            let mut line = line(name, n, &format!("2020-01-01T{at}:00:00Z"));
            line["user_id"] = json!(format!("u{n}"));
            lines.push(line);
        }
    }
    assert_eq!(import(&world, &lines).await["imported"], 600);
    let counts = world.user("x").get("/v1/status/summary").await.expect(200)["counts"].clone();
    assert_eq!(counts["offline"], 300);
    world.finish().await;
}

/// The year of the real log, whose lines have none.
const YEAR: i32 = 2005;

#[tokio::test]
async fn a_real_hosts_sessions_keep_their_lengths() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let file = root.join("shared/data/linux_pam_sessions.log");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: {} is missing", file.display());
        return;
    };
    let world = World::start().await;
    let mut log = PamLog::new(YEAR);
    let items: Vec<Item> =
        text.lines().zip(1..).filter_map(|(line, n)| log.parse(n, line).unwrap()).collect();
    let mut importer = Importer::new(world.nodes[0].realm(), None);
    importer.take(items.clone()).await.unwrap();
    let report = importer.finish().await.unwrap();
    assert!(report.rejected.is_empty(), "{:?}", report.rejected);
    let expected = parse(&text);
    let sessions: usize = expected.values().map(Vec::len).sum();
    assert_eq!((sessions, report.imported), (62, 124));
    for (user, sessions) in &expected {
        assert_eq!(lengths(&world, user).await, *sessions, "{user}");
        assert_eq!(world.user("x").status_word(user).await, "offline");
        for (opened, length) in sessions.iter().filter(|(_, length)| *length > 1) {
            let middle = *opened + TimeDelta::seconds(length / 2);
            let path = format!("/v1/users/{user}/status?at={}", middle.format("%FT%TZ"));
            assert_eq!(world.auditor().get(&path).await.expect(200)["status"], "online");
        }
    }
    let mut importer = Importer::new(world.nodes[0].realm(), None);
    importer.take(items).await.unwrap();
    assert_eq!(importer.finish().await.unwrap().skipped, 124);
    world.finish().await;
}

/// What the log says of a user's sessions: when each was opened, and its length in seconds.
async fn lengths(world: &World, user: &str) -> Vec<(Timestamp, i64)> {
    let mut open: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut sessions = Vec::new();
    for event in world.transitions(user).await {
        let session = event["session_id"].as_str().unwrap().to_owned();
        let at = instant(&event["occurred_at"]);
        if event["type"] == "session_opened" {
            open.insert(session, at);
        } else {
            let opened = open.remove(&session).unwrap();
            sessions.push((opened, (at - opened).num_seconds()));
        }
    }
    assert!(open.is_empty());
    sessions.sort_unstable();
    sessions
}

/// The same, read from the text by nothing of ours.
fn parse(text: &str) -> BTreeMap<String, Vec<(Timestamp, i64)>> {
    let mut open: BTreeMap<(String, String), Timestamp> = BTreeMap::new();
    let mut users: BTreeMap<String, Vec<(Timestamp, i64)>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "session") else { continue };
        let time = format!("{YEAR} {}", words[..3].join(" "));
        let time = NaiveDateTime::parse_from_str(&time, "%Y %b %d %H:%M:%S").unwrap().and_utc();
        let user = words[at + 4].to_owned();
        let key = (words[4].to_owned(), user.clone());
        match words[at + 1] {
            "opened" => assert!(open.insert(key, time).is_none()),
            "closed" => {
                let opened = open.remove(&key).unwrap();
                users.entry(user).or_default().push((opened, (time - opened).num_seconds()));
            }
            other => panic!("{other}"),
        }
    }
    for sessions in users.values_mut() {
        sessions.sort_unstable();
    }
    users
}

fn codes(report: &Value) -> Vec<(u64, &str)> {
    let rejected = report["rejected"].as_array().unwrap().iter();
    rejected.map(|r| (r["line"].as_u64().unwrap(), r["code"].as_str().unwrap())).collect()
}
