//! The long poll: what it answers, when it wakes, how it goes on.

use std::time::{Duration, Instant};

use api::limits::MISSED_MAX;
use serde_json::{Value, json};
use tests::{Client, World};

/// Far below what a poll of the log alone would take, far above what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);

async fn changes(client: &Client, query: &str) -> Value {
    client.get(&format!("/v1/changes?{query}")).await.expect(200)
}

fn words(answer: &Value) -> Vec<(&str, &str)> {
    let items = answer["items"].as_array().unwrap().iter();
    items
        .map(|item| (item["user_id"].as_str().unwrap(), item["status"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn without_a_position_everybody_is_told_and_from_one_what_changed() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let phone = ana.login().await;
    let full = changes(&bob, "").await;
    assert_eq!((&full["full"], words(&full)), (&json!(true), vec![("ana", "online")]));
    let position = full["position"].as_i64().unwrap();
    bob.login().await;
    ana.beat_idle(&phone, 400_000).await.expect(200);
    ana.logout(&phone).await.expect(200);
    let answer = changes(&bob, &format!("since={position}")).await;
    let told = vec![("bob", "online"), ("ana", "away"), ("ana", "offline")];
    assert_eq!((&answer["full"], words(&answer)), (&json!(false), told));
    let item = &answer["items"][2];
    assert_eq!(item["since"], ana.status("ana").await["since"]);
    assert_eq!(item["last_seen"], ana.status("ana").await["last_seen"]);
    assert!(item["position"].as_i64() <= answer["position"].as_i64());
    // One's own, and what services are told, says whether one is invisible; others hear nothing.
    assert_eq!(
        (&answer["items"][0]["invisible"], &item["invisible"]),
        (&json!(false), &json!(null))
    );
    let next = answer["position"].as_i64().unwrap();
    let answer = changes(&bob, &format!("since={next}")).await;
    assert_eq!((words(&answer), &answer["full"]), (vec![], &json!(false)));
    let one = changes(&bob, &format!("since={position}&users=bob,nobody")).await;
    assert_eq!(words(&one), vec![("bob", "online")]);
    world.finish().await;
}

#[tokio::test]
async fn a_poll_wakes_at_the_first_change_written_at_any_node() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let bob = world.at_node(&world.user("bob"), 1);
    let phone = ana.login().await;
    let mut position = changes(&world.user("bob"), "").await["position"].as_i64().unwrap();
    assert!(world.nodes[1].realm().reached(position).await);
    let mut took = Vec::new();
    for round in 0..6_u64 {
        let poll = format!("/v1/changes?since={position}&wait_ms=30000&users=ana");
        let waits = tokio::spawn({
            let bob = bob.clone();
            async move { (bob.get(&poll).await.expect(200), Instant::now()) }
        });
        tests::eventually("somebody waits", async || world.nodes[1].live().hub.listeners() == 1)
            .await;
        let sent = Instant::now();
        ana.beat_idle(&phone, if round % 2 == 0 { 400_000 } else { 0 }).await.expect(200);
        let (answer, woken) = waits.await.unwrap();
        took.push(woken - sent);
        assert_eq!(words(&answer), vec![("ana", if round % 2 == 0 { "away" } else { "online" })]);
        position = answer["position"].as_i64().unwrap();
    }
    took.sort();
    println!("woken at another node after {took:?}");
    assert!(took[2] < SOON, "{took:?}");
    world.finish().await;
}

#[tokio::test]
async fn a_poll_without_changes_ends_in_time_with_a_position_to_go_on_from() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    ana.login().await;
    let position = changes(&bob, "").await["position"].as_i64().unwrap();
    bob.login().await;
    let answer = changes(&bob, &format!("since={position}&wait_ms=150&users=ana")).await;
    assert_eq!(words(&answer), vec![]);
    assert!(answer["position"].as_i64().unwrap() > position, "the others' log went on");
    world.finish().await;
}

#[tokio::test]
async fn a_position_beyond_the_head_is_gone_and_wrong_parameters_are_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let beyond = world.head().await + 1_000;
    let expired = (410, "cursor_expired");
    ana.get(&format!("/v1/changes?since={beyond}")).await.problem(expired.0, expired.1);
    ana.get(&format!("/v1/stream?since={beyond}")).await.problem(expired.0, expired.1);
    ana.get("/v1/changes?since=-1").await.problem(400, "invalid_parameter");
    ana.get("/v1/changes?since=x").await.problem(400, "invalid_parameter");
    ana.get("/v1/changes?wait_ms=30001").await.problem(422, "invalid_wait");
    ana.get("/v1/changes?users=a%20b").await.problem(422, "invalid_user_id");
    ana.get("/v1/changes?groups=team").await.problem(403, "forbidden");
    ana.get("/v1/changes?nonsense=1").await.problem(400, "unknown_parameter");
    let many = (0..1_001).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",");
    ana.get(&format!("/v1/changes?users={many}")).await.problem(422, "too_many_users");
    world.nobody().get("/v1/changes").await.problem(401, "unauthenticated");
    world.finish().await;
}

#[tokio::test]
async fn a_poll_that_names_a_position_sees_it_on_any_node() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let there = world.at_node(&world.user("ben"), 1);
    let mut since = 0;
    for _ in 0..5 {
        let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
        let at = opened["position"].as_i64().unwrap();
        let full = changes(&there, &format!("users=ana&min_position={at}")).await;
        assert_eq!(words(&full), vec![("ana", "online")]);
        let told = changes(&there, &format!("users=ana&since={since}&min_position={at}")).await;
        assert_eq!(words(&told).last(), Some(&("ana", "online")));
        let session = opened["session_id"].as_str().unwrap();
        let closed = ana.logout(session).await.expect(200);
        since = told["position"].as_i64().unwrap();
        let at = closed["position"].as_i64().unwrap();
        let told = changes(&there, &format!("users=ana&since={since}&min_position={at}")).await;
        assert_eq!(words(&told), vec![("ana", "offline")]);
        since = told["position"].as_i64().unwrap();
        assert!(since >= at);
    }
    // With heartbeats that another node took in, as in every read that names a position.
    let phone = ana.login().await;
    world.advance_s(30).await;
    let beaten = ana.beat(&phone).await.expect(200);
    let full = changes(&there, &format!("users=ana&min_position={}", beaten["position"])).await;
    assert_eq!(full["items"][0]["last_seen"], beaten["status"]["last_seen"]);
    let beyond = world.head().await + 1_000;
    let refused = there.get(&format!("/v1/changes?min_position={beyond}")).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "position_not_reached");
    there.get("/v1/changes?min_position=x").await.problem(400, "invalid_parameter");
    world.finish().await;
}

#[tokio::test]
async fn only_polls_that_wait_take_a_place_among_the_live_feeds() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    bob.login().await;
    let position = changes(&ana, "").await["position"].as_i64().unwrap();
    let poll = format!("/v1/changes?since={position}&users=bob");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..api::limits::LIVE_PER_USER_MAX {
        let (ana, poll) = (ana.clone(), format!("{poll}&wait_ms=30000"));
        waiting.spawn(async move { ana.get(&poll).await.expect(200) });
    }
    let all = api::limits::LIVE_PER_USER_MAX;
    let hub = &world.nodes[0].live().hub;
    tests::eventually("all of them wait", async || hub.listeners() == all).await;
    ana.get(&format!("{poll}&wait_ms=30000")).await.problem(429, "too_many_connections");
    ana.get("/v1/stream").await.problem(429, "too_many_connections");
    for path in [&poll, &format!("{poll}&wait_ms=0"), "/v1/changes", "/v1/changes?wait_ms=30000"] {
        ana.get(path).await.expect(200);
    }
    bob.put("/v1/users/bob/claims/manual", json!({ "status": "busy" })).await.expect(200);
    for answer in waiting.join_all().await {
        assert_eq!(words(&answer), vec![("bob", "busy")]);
    }
    world.finish().await;
}

#[tokio::test]
async fn what_was_missed_is_found_in_the_log_also_by_a_node_that_was_not_there() {
    let mut world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    ana.login().await;
    let position = changes(&bob, "").await["position"].as_i64().unwrap();
    let busy = json!({ "status": "busy", "text": "a call" });
    ana.put("/v1/users/ana/claims/manual", busy).await.expect(200);
    ana.put("/v1/users/ana/visibility", json!({ "invisible": true })).await.expect(200);
    ana.delete("/v1/users/ana/claims/manual").await.expect(200);
    ana.put("/v1/users/ana/visibility", json!({ "invisible": false })).await.expect(200);
    let live = changes(&bob, &format!("since={position}")).await;
    let told = vec![("ana", "busy"), ("ana", "offline"), ("ana", "online")];
    assert_eq!(words(&live), told);
    world.add_node().await;
    let late = changes(&world.at_node(&bob, 1), &format!("since={position}")).await;
    assert_eq!(late["items"], live["items"], "the same, read from the log alone");
    let own = changes(&world.at_node(&ana, 1), &format!("since={position}")).await;
    let seen = vec![("ana", "busy"), ("ana", "busy"), ("ana", "online"), ("ana", "online")];
    assert_eq!(words(&own), seen, "going invisible is a change to oneself, too");
    world.finish().await;
}

#[tokio::test]
async fn a_text_that_changes_under_the_same_status_is_told() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    ana.login().await;
    let say = async |text: &str| {
        let body = json!({ "status": "busy", "text": text });
        ana.put("/v1/users/ana/claims/manual", body).await.expect(200)
    };
    say("lunch").await;
    let first = changes(&bob, "since=0").await;
    let position = first["position"].as_i64().unwrap();
    say("lunch").await;
    assert_eq!(words(&changes(&bob, &format!("since={position}")).await), vec![]);
    say("a call").await;
    let answer = changes(&bob, &format!("since={position}")).await;
    assert_eq!(answer["items"][0]["text"], "a call");
    assert_eq!(answer["items"][0]["since"], ana.status("ana").await["since"], "busy all along");
    world.finish().await;
}

#[tokio::test]
async fn whoever_missed_more_than_ten_thousand_changes_is_told_everybodys_status() {
    let world = World::start().await;
    let service = world.service();
    let users: Vec<String> = (0..CROWD).map(|n| format!("u{n}")).collect();
    for some in users.chunks(50) {
        let login = |user| service.post("/v1/sessions", json!({ "user_id": user }));
        for opened in futures::future::join_all(some.iter().map(login)).await {
            opened.expect(201);
        }
    }
    // Imported history is none of the present, and so no change.
    let line = |kind: &str, at: &str| {
        json!({ "type": kind, "user_id": "old", "session_id": uuid::Uuid::from_u128(1),
            "occurred_at": at })
    };
    let lines = [
        line("session_opened", "2020-01-01T08:00:00Z"),
        line("session_closed", "2020-01-01T09:00:00Z"),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    world.admin().post_raw("/v1/import", "application/x-ndjson", lines).await.expect(200);
    for round in 1..MISSED_MAX / CROWD {
        flip(&service, &users, round).await;
    }
    let answer = changes(&service, "since=0").await;
    let count = answer["items"].as_array().unwrap().len();
    assert_eq!((count, &answer["full"]), (MISSED_MAX, &json!(false)));
    flip(&service, &users[..1], MISSED_MAX / CROWD).await;
    let answer = changes(&service, "since=0").await;
    let count = answer["items"].as_array().unwrap().len();
    assert_eq!((count, &answer["full"]), (CROWD + 1, &json!(true)));
    let named = changes(&world.user("bob"), "since=0&users=u1,nobody").await;
    assert_eq!((&named["full"], named["items"].as_array().unwrap().len()), (&json!(true), 1));
    world.finish().await;
}

const CROWD: usize = 500;

/// One change of each.
async fn flip(service: &Client, users: &[String], round: usize) {
    let claim = if round % 2 == 1 { json!("busy") } else { json!(null) };
    let guard = |user: &String| {
        json!({ "user_id": user, "action": "flip", "require": ["online", "busy"],
            "claim": { "source": "system:flip", "status": claim } })
    };
    let guards: Vec<Value> = users.iter().map(guard).collect();
    service.post("/v1/guards", json!({ "guards": guards })).await.expect(200);
}
