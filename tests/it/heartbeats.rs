//! Heartbeats, one and many.

use serde_json::{Value, json};
use tests::{World, instant};
use uuid::Uuid;

const NDJSON: &str = "application/x-ndjson";

#[tokio::test]
async fn a_heartbeat_moves_the_end_of_the_lease() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(60).await;
    let beaten = ana.beat(&session).await.expect(200);
    assert_eq!(beaten["status"]["status"], "online");
    assert_eq!(beaten["heartbeat_interval_ms"], 30_000);
    let seen = instant(&beaten["status"]["last_seen"]);
    let since = instant(&beaten["status"]["since"]);
    assert!(seen - since >= chrono::TimeDelta::seconds(60));
    assert_eq!((instant(&beaten["expires_at"]) - seen).num_milliseconds(), 120_000);
    assert!(beaten["position"].as_i64() > Some(0));
    // Past the first deadline, within the second.
    world.advance_s(90).await;
    assert_eq!(ana.status_word("ana").await, "online");
    assert_eq!(world.count("ana", "heartbeat").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn heartbeats_are_taken_from_the_owner_and_services_alone() {
    let world = World::with_nodes(2).await;
    let session = world.user("ana").login().await;
    for node in 0..2 {
        world.at_node(&world.user("ana"), node).beat(&session).await.expect(200);
        world.at_node(&world.service(), node).beat(&session).await.expect(200);
        let events = world.events().await;
        world.at_node(&world.user("ben"), node).beat(&session).await.problem(403, "not_yours");
        world.at_node(&world.admin(), node).beat(&session).await.problem(403, "not_yours");
        let unknown = Uuid::now_v7().to_string();
        let unknown = world.at_node(&world.user("ana"), node).beat(&unknown).await;
        unknown.problem(404, "session_not_found");
        assert_eq!(world.events().await, events);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_the_logout_hears_why_and_when() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let closed = ana.logout(&session).await.expect(200);
    let position = closed["position"].as_i64().unwrap();
    let events = world.events().await;
    for node in 0..2 {
        let gone = world.at_node(&ana, node).beat(&session).await.problem(410, "session_closed");
        assert_eq!(gone["reason"], "user_request");
        let logged = world.transitions("ana").await;
        let end = logged.iter().find(|event| event["position"] == position).unwrap();
        assert_eq!(gone["closed_at"], end["occurred_at"]);
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_the_deadline_revives_nothing() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(121).await;
    for node in 0..2 {
        let gone = world.at_node(&ana, node).beat(&session).await.problem(410, "session_closed");
        assert_eq!(gone["reason"], "lost_carrier");
        instant(&gone["closed_at"]);
    }
    assert_eq!(world.count("ana", "heartbeat").await, 0);
    assert_eq!(ana.status_word("ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn an_idle_person_is_away_and_comes_back() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let beat = |node, idle_ms| {
        let (world, client, session) = (&world, world.at_node(&ana, node), session.clone());
        async move {
            // Nodes know the time to milliseconds; nobody sends two heartbeats within them.
            world.advance_s(1).await;
            client.beat_idle(&session, idle_ms).await.expect(200)
        }
    };
    assert_eq!(beat(0, 299_999).await["status"]["status"], "online");
    let away = beat(1, 300_000).await;
    assert_eq!(away["status"]["status"], "away");
    let idle = instant(&away["status"]["last_seen"]) - instant(&away["status"]["last_activity"]);
    assert_eq!(idle.num_milliseconds(), 300_000);
    assert_eq!(beat(0, 900_000).await["status"]["status"], "away");
    assert_eq!(beat(1, 0).await["status"]["status"], "online");
    assert_eq!(world.count("ana", "activity_changed").await, 2);
    world.finish().await;
}

#[tokio::test]
async fn one_active_device_keeps_its_user_online() {
    let world = World::start().await;
    let ana = world.user("ana");
    let (phone, desk) = (ana.login().await, ana.login().await);
    ana.beat_idle(&phone, 400_000).await.expect(200);
    assert_eq!(ana.status_word("ana").await, "online");
    ana.beat_idle(&desk, 400_000).await.expect(200);
    assert_eq!(ana.status_word("ana").await, "away");
    ana.beat_idle(&phone, 10).await.expect(200);
    assert_eq!(ana.status_word("ana").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn many_heartbeats_are_taken_as_an_array_or_as_lines_with_the_rejected_by_index() {
    let world = World::with_nodes(2).await;
    let mut live = Vec::new();
    for n in 0..20 {
        live.push(world.at_node(&world.user(&format!("u{n}")), n % 2).login().await);
    }
    let closed = world.user("u0").login().await;
    world.user("u0").logout(&closed).await.expect(200);
    let unknown = Uuid::now_v7().to_string();
    let mut beats: Vec<Value> = live.iter().map(|id| json!({ "session_id": id })).collect();
    beats.insert(3, json!({ "session_id": unknown }));
    beats.push(json!({ "session_id": closed, "idle_ms": 5 }));
    let lines: Vec<String> = beats.iter().map(Value::to_string).collect();
    let service = world.service();
    let array = service.post("/v1/heartbeats", json!(beats)).await;
    let other = world.at_node(&service, 1);
    let lines = other.post_raw("/v1/heartbeats", NDJSON, lines.join("\n")).await;
    for answer in [array, lines] {
        let body = answer.expect(200);
        assert_eq!(body["accepted"], 20);
        let expected = json!([
            { "index": 3, "session_id": unknown, "code": "session_not_found" },
            { "index": 21, "session_id": closed, "code": "session_closed" },
        ]);
        assert_eq!(body["rejected"], expected);
        assert!(body["position"].as_i64() > Some(0));
    }
    for n in 0..20 {
        assert_eq!(world.count(&format!("u{n}"), "heartbeat").await, 2, "u{n}");
    }
    world.finish().await;
}

#[tokio::test]
async fn one_session_several_times_in_one_request_is_several_heartbeats_in_order() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let beat = |idle_ms: u32| json!({ "session_id": session, "idle_ms": idle_ms });
    let beats = json!([beat(1), beat(400_000), beat(2), beat(400_000)]);
    let body = world.service().post("/v1/heartbeats", beats).await.expect(200);
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(4), &json!([])));
    assert_eq!(world.count("ana", "heartbeat").await, 4);
    world.finish().await;
}

#[tokio::test]
async fn many_heartbeats_flip_the_activity_of_those_who_turned_idle() {
    let world = World::start().await;
    let mut beats = Vec::new();
    for n in 0..10_u32 {
        let session = world.user(&format!("u{n}")).login().await;
        beats.push(json!({ "session_id": session, "idle_ms": (n % 2) * 500_000 }));
    }
    let body = world.service().post("/v1/heartbeats", json!(beats)).await.expect(200);
    assert_eq!(body["accepted"], 10);
    let counts = world.service().get("/v1/status/summary").await.expect(200)["counts"].clone();
    assert_eq!((&counts["online"], &counts["away"]), (&json!(5), &json!(5)));
    world.finish().await;
}

#[tokio::test]
async fn ten_thousand_heartbeats_are_taken_and_one_more_is_refused() {
    let world = World::start().await;
    let beats = |count: usize| {
        let line = |n: usize| format!("{{\"session_id\":\"{}\"}}", Uuid::from_u128(n as u128 + 1));
        (0..count).map(line).collect::<Vec<_>>().join("\n")
    };
    let service = world.service();
    let events = world.events().await;
    let refused = service.post_raw("/v1/heartbeats", NDJSON, beats(10_001)).await;
    refused.problem(422, "too_many_heartbeats");
    let taken = service.post_raw("/v1/heartbeats", NDJSON, beats(10_000)).await.expect(200);
    assert_eq!(taken["accepted"], 0);
    assert_eq!(taken["rejected"].as_array().unwrap().len(), 10_000);
    let empty = service.post("/v1/heartbeats", json!([])).await.expect(200);
    assert_eq!(empty["accepted"], 0);
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn many_heartbeats_are_for_services_and_must_be_well_formed() {
    let world = World::start().await;
    let session = world.user("ana").login().await;
    let events = world.events().await;
    let beats = json!([{ "session_id": session }]);
    for client in [world.user("ana"), world.admin(), world.auditor()] {
        client.post("/v1/heartbeats", beats.clone()).await.problem(403, "forbidden");
    }
    let service = world.service();
    let post = |kind: &'static str, body: &str| {
        let (service, body) = (service.clone(), body.to_owned());
        async move { service.post_raw("/v1/heartbeats", kind, body).await }
    };
    let line = format!("{{\"session_id\":\"{session}\"}}");
    post("application/json", &line).await.problem(400, "invalid_field");
    post("application/json", "[{").await.problem(400, "malformed_json");
    post(NDJSON, &format!("{line}\n{{")).await.problem(400, "malformed_json");
    post("application/json", "[{}]").await.problem(400, "missing_field");
    let unknown = format!("[{{\"session_id\":\"{session}\",\"x\":1}}]");
    post("application/json", &unknown).await.problem(400, "unknown_field");
    post("text/csv", &line).await.problem(415, "unsupported_media_type");
    let long = " ".repeat(1024 * 1024 + 1);
    post(NDJSON, &long).await.problem(413, "payload_too_large");
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_session_that_is_repeated_too_often_in_one_request_is_refused_line_by_line() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana").login().await, world.user("ben").login().await);
    let mut lines = vec![json!({ "session_id": ana }); 10];
    lines.push(json!({ "session_id": ben }));
    let answer = world.service().post("/v1/heartbeats", json!(lines)).await.expect(200);
    assert_eq!(answer["accepted"], 9);
    let refused = |index| json!({ "index": index, "session_id": ana, "code": "too_many_repeats" });
    assert_eq!(answer["rejected"], json!([refused(8), refused(9)]));
    assert_eq!(world.count("ana", "heartbeat").await, 8);
    world.finish().await;
}
