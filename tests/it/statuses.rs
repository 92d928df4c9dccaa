//! Statuses: one, many, counted; now and in the past; of the visible and the invisible.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::{Client, World, instant};

const PRIVATE: [&str; 6] =
    ["last_activity", "sessions", "sequence", "position", "invisible", "claims"];

#[tokio::test]
async fn the_user_and_those_entitled_see_more_than_others() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    for client in [ana.clone(), world.service(), world.auditor(), world.admin()] {
        let status = client.status("ana").await;
        assert_eq!(status["user_id"], "ana");
        for member in PRIVATE {
            assert!(!status[member].is_null(), "{member} is missing: {status}");
        }
        assert_eq!((&status["sessions"], &status["sequence"]), (&json!(1), &json!(1)));
    }
    let status = world.user("ben").status("ana").await;
    assert_eq!(members(&status), ["last_seen", "since", "status", "user_id"]);
    world.finish().await;
}

#[tokio::test]
async fn a_user_never_seen_is_not_found_even_one_who_has_asked() {
    let world = World::start().await;
    let ben = world.user("ben");
    ben.get("/v1/users/nobody/status").await.problem(404, "user_not_found");
    ben.get("/v1/users/ben/status").await.problem(404, "user_not_found");
    let status = "/v1/users/nobody/status";
    world
        .admin()
        .get(&format!("{status}?at=2020-01-01T00:00:00Z"))
        .await
        .problem(404, "user_not_found");
    world.finish().await;
}

#[tokio::test]
async fn statuses_may_not_be_stored_by_caches() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    for path in ["/v1/users/ana/status", "/v1/status?status=online", "/v1/status/summary"] {
        assert_eq!(ana.get(path).await.header("cache-control"), "no-store", "{path}");
    }
    let many = ana.get("/v1/status?users=ana").await;
    assert_eq!(many.header("cache-control"), "private, no-cache");
    world.finish().await;
}

#[tokio::test]
async fn every_allowed_character_of_a_user_id_works_in_paths_and_queries() {
    let world = World::start().await;
    let name = "A.b_9@x:y+z|w-v";
    world.user(name).login().await;
    let ben = world.user("ben");
    assert_eq!(ben.status(name).await["user_id"], name);
    let many = ben.get("/v1/status?users=A.b_9@x:y%2Bz%7Cw-v").await.expect(200);
    assert_eq!(many["items"][0]["user_id"], name);
    world.finish().await;
}

#[tokio::test]
async fn an_invisible_user_leaks_nothing_to_others() {
    let world = World::with_nodes(2).await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    world.user("ben").login().await;
    let session = ana.login().await;
    let before = ben.status("ana").await;
    world.advance_s(10).await;
    let hidden = ana.put("/v1/users/ana/visibility", json!({ "invisible": true })).await;
    let hidden = hidden.expect(200);
    assert_eq!((&hidden["status"], &hidden["invisible"]), (&json!("online"), &json!(true)));
    let position = hidden["position"].as_i64().unwrap();
    let shown = ben.get(&format!("/v1/users/ana/status?min_position={position}")).await.expect(200);
    assert_eq!(shown["status"], "offline");
    let frozen = views_of(&world, &ben, position).await;
    // Everything that she does now must stay unseen.
    world.advance_s(30).await;
    ana.beat(&session).await.expect(200);
    let second = ana.login().await;
    let body = json!({ "status": "busy", "text": "secret" });
    let claimed = ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    assert_eq!(claimed["text"], "secret");
    ana.beat_idle(&session, 600_000).await.expect(200);
    ana.logout(&second).await.expect(200);
    let position = ana.status("ana").await["position"].as_i64().unwrap();
    assert_eq!(views_of(&world, &ben, position).await, frozen);
    // Those entitled see the truth.
    for client in [ana.clone(), world.service(), world.auditor(), world.admin()] {
        let status = client.status("ana").await;
        assert_eq!((&status["status"], &status["text"]), (&json!("busy"), &json!("secret")));
    }
    ana.delete("/v1/users/ana/claims/manual").await.expect(200);
    ana.beat(&session).await.expect(200);
    let back = ana.put("/v1/users/ana/visibility", json!({ "invisible": false })).await;
    let back = back.expect(200);
    let seen = ben.status("ana").await;
    assert_eq!(seen["status"], "online");
    assert!(instant(&seen["since"]) > instant(&before["since"]), "online since the return");
    assert!(instant(&seen["since"]) <= instant(&back["last_seen"]) + TimeDelta::seconds(60));
    world.finish().await;
}

/// All that somebody else is told, less what moves for everybody.
async fn views_of(world: &World, other: &Client, position: i64) -> Vec<Value> {
    let mut views = Vec::new();
    for node in 0..world.nodes.len() {
        let other = world.at_node(other, node);
        let path = format!("/v1/users/ana/status?min_position={position}");
        views.push(other.get(&path).await.expect(200));
        views.push(other.get("/v1/users/ana/status?consistency=strong").await.expect(200));
        let many = other.get("/v1/status?users=ana").await;
        views.push(json!(many.header("etag")));
        views.push(many.expect(200)["items"].clone());
        let query = other.post("/v1/status/query", json!({ "users": ["ana"] })).await;
        views.push(query.expect(200)["items"].clone());
        for status in ["online", "away", "busy", "dnd", "offline"] {
            let path = format!("/v1/status?status={status}");
            views.push(other.get(&path).await.expect(200)["items"].clone());
        }
        let summary = other.get("/v1/status/summary").await.expect(200);
        views.push(json!([summary["counts"], summary["live_sessions"]]));
    }
    // Ben's own last_seen and those of his lists move with nothing here: he sends no heartbeat.
    views
}

#[tokio::test]
async fn going_invisible_shows_others_a_logout_with_the_last_seen_of_before() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let session = ana.login().await;
    world.advance_s(20).await;
    ana.beat(&session).await.expect(200);
    let before = ben.status("ana").await;
    world.advance_s(5).await;
    ana.put("/v1/users/ana/visibility", json!({ "invisible": true })).await.expect(200);
    ana.beat(&session).await.expect(200);
    let shown = ben.status("ana").await;
    assert_eq!(shown["last_seen"], before["last_seen"]);
    assert!(instant(&shown["since"]) - instant(&before["last_seen"]) >= TimeDelta::seconds(5));
    // A logout while invisible is nobody's news.
    ana.logout(&session).await.expect(200);
    assert_eq!(ben.status("ana").await, shown);
    ana.put("/v1/users/ana/visibility", json!({ "invisible": false })).await.expect(200);
    assert_eq!(ben.status("ana").await, shown);
    world.finish().await;
}

#[tokio::test]
async fn a_reader_who_names_a_position_sees_it_on_any_node() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let there = world.at_node(&world.user("ben"), 1);
    for _ in 0..10 {
        let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
        let position = &opened["position"];
        let path = format!("/v1/users/ana/status?min_position={position}");
        assert_eq!(there.get(&path).await.expect(200)["status"], "online");
        let session = opened["session_id"].as_str().unwrap();
        let position = ana.logout(session).await.expect(200)["position"].clone();
        let path = format!("/v1/status?users=ana&min_position={position}");
        assert_eq!(there.get(&path).await.expect(200)["items"][0]["status"], "offline");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_position_beyond_the_head_is_waited_for_and_then_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let beyond = world.head().await + 1_000;
    let began = Instant::now();
    let refused = ana.get(&format!("/v1/users/ana/status?min_position={beyond}")).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "position_not_reached");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    world.finish().await;
}

#[tokio::test]
async fn a_reader_who_waits_is_answered_as_soon_as_the_position_comes() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let next = world.head().await + 1;
    let path = format!("/v1/users/ana/status?min_position={next}");
    let (read, _) = tokio::join!(ana.get(&path), ana.login());
    assert_eq!(read.expect(200)["sessions"], 2);
    world.finish().await;
}

#[tokio::test]
async fn a_strong_read_knows_the_heartbeats_of_every_node() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(30).await;
    let beaten = ana.beat(&session).await.expect(200);
    let there = world.at_node(&world.user("ben"), 1);
    let strong = there.get("/v1/users/ana/status?consistency=strong").await.expect(200);
    assert_eq!(strong["last_seen"], beaten["status"]["last_seen"]);
    let position = &beaten["position"];
    let path = format!("/v1/users/ana/status?min_position={position}");
    let named = there.get(&path).await.expect(200);
    assert_eq!(named["last_seen"], beaten["status"]["last_seen"]);
    world.finish().await;
}

#[tokio::test]
async fn heartbeats_of_one_node_keep_a_session_alive_for_readers_of_another() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let there = world.at_node(&world.user("ben"), 1);
    for _ in 0..3 {
        world.advance_s(60).await;
        ana.beat(&session).await.expect(200);
        assert_eq!(there.status_word("ana").await, "online");
        let counts = there.get("/v1/status/summary").await.expect(200)["counts"].clone();
        assert_eq!(counts["online"], 1);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_past_status_is_what_the_log_says_of_that_instant() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(10).await;
    let online_at = world.now().await;
    world.advance_s(10).await;
    let body = json!({ "status": "busy", "ttl_ms": 20_000 });
    ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    let busy_at = world.now().await;
    world.advance_s(30).await;
    ana.beat(&session).await.expect(200);
    let again_at = world.now().await;
    world.advance_s(10).await;
    ana.logout(&session).await.expect(200);
    let after = world.now().await;
    world.advance_s(10).await;
    for (at, status) in
        [(online_at, "online"), (busy_at, "busy"), (again_at, "online"), (after, "offline")]
    {
        let at = at.format("%Y-%m-%dT%H:%M:%S%.6fZ");
        let path = format!("/v1/users/ana/status?at={at}");
        for client in [ana.clone(), world.auditor(), world.admin()] {
            let past = client.get(&path).await.expect(200);
            assert_eq!((&past["status"], &past["settled"]), (&json!(status), &json!(true)));
            assert_eq!(past["at"], at.to_string());
            assert!(instant(&past["since"]) <= instant(&past["at"]));
        }
        world.user("ben").get(&path).await.problem(403, "forbidden");
        world.service().get(&path).await.problem(403, "forbidden");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_question_later_than_now_is_answered_by_the_leases_and_marked_unsettled() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let now = world.now().await;
    let ask = |seconds: i64| {
        let at = (now + TimeDelta::seconds(seconds)).format("%Y-%m-%dT%H:%M:%S%.6fZ");
        let (ana, path) = (ana.clone(), format!("/v1/users/ana/status?at={at}"));
        async move { ana.get(&path).await.expect(200) }
    };
    let soon = ask(60).await;
    assert_eq!((&soon["status"], &soon["settled"]), (&json!("online"), &json!(false)));
    let later = ask(200).await;
    assert_eq!((&later["status"], &later["settled"]), (&json!("offline"), &json!(false)));
    let opened = world.transitions("ana").await[0]["occurred_at"].clone();
    assert_eq!(instant(&later["since"]) - instant(&opened), TimeDelta::seconds(120));
    world.finish().await;
}

#[tokio::test]
async fn an_instant_before_the_first_event_is_not_found() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let path = "/v1/users/ana/status?at=2001-01-01T00:00:00Z";
    ana.get(path).await.problem(404, "user_not_found");
    world.finish().await;
}

fn members(status: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = status.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}
