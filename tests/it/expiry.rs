//! What time does by itself, with a clock that the tests move.

use std::time::Duration;

use chrono::TimeDelta;
use domain::Policy;
use serde_json::json;
use tests::{Options, World, eventually, instant};

#[tokio::test]
async fn a_session_without_heartbeats_reads_offline_at_once_when_its_lease_is_over() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
    let deadline = instant(&opened["status"]["last_seen"]) + TimeDelta::seconds(120);
    world.advance_s(115).await;
    assert_eq!(ana.status_word("ana").await, "online");
    world.advance_s(5).await;
    for node in 0..2 {
        // No waiting: the sweeper may not have come yet.
        let status = world.at_node(&ana, node).status("ana").await;
        assert_eq!(status["status"], "offline");
        assert_eq!(instant(&status["since"]), deadline);
        let summary = world.at_node(&ana, node).get("/v1/status/summary").await.expect(200);
        assert_eq!(summary["counts"]["online"], 0);
        let listed = world.at_node(&ana, node).get("/v1/status?status=online").await.expect(200);
        assert_eq!(listed["items"], json!([]));
    }
    eventually("the end is recorded", async || world.count("ana", "session_expired").await == 1)
        .await;
    let end = world.transitions("ana").await.pop().unwrap();
    assert_eq!(end["type"], "session_expired");
    assert_eq!(end["reason"], "lost_carrier");
    assert_eq!((&end["from_status"], &end["to_status"]), (&json!("online"), &json!("offline")));
    assert_eq!(instant(&end["occurred_at"]), deadline);
    assert!(instant(&end["recorded_at"]) - deadline <= TimeDelta::seconds(10));
    assert!(end["actor"].is_null(), "time has no actor");
    world.finish().await;
}

#[tokio::test]
async fn the_end_of_a_lease_is_recorded_once_however_many_nodes_sweep() {
    let world = World::with_nodes(3).await;
    for n in 0..40 {
        let user = world.user(&format!("u{n}"));
        world.at_node(&user, n % 3).login().await;
    }
    world.advance_s(121).await;
    eventually("all are recorded", async || world.logged("session_expired").await.len() >= 40)
        .await;
    assert_eq!(world.logged("session_expired").await.len(), 40);
    let summary = world.user("ana").get("/v1/status/summary").await.expect(200);
    assert_eq!(summary["counts"]["offline"], 40);
    assert_eq!(summary["live_sessions"], 0);
    world.finish().await;
}

#[tokio::test]
async fn a_late_login_does_not_hide_an_earlier_time_out() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    world.advance_s(125).await;
    ana.login().await;
    let events = world.transitions("ana").await;
    let names: Vec<_> = events.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(names, ["session_opened", "session_expired", "session_opened"]);
    let deadline = instant(&events[0]["occurred_at"]) + TimeDelta::seconds(120);
    assert_eq!(instant(&events[1]["occurred_at"]), deadline);
    assert!(instant(&events[2]["occurred_at"]) > deadline);
    world.finish().await;
}

#[tokio::test]
async fn the_other_devices_session_lives_on_when_one_expires() {
    let world = World::start().await;
    let ana = world.user("ana");
    let (_phone, desk) = (ana.login().await, ana.login().await);
    world.advance_s(70).await;
    ana.beat(&desk).await.expect(200);
    world.advance_s(60).await;
    eventually("the phone's end is recorded", async || {
        world.count("ana", "session_expired").await == 1
    })
    .await;
    let status = ana.status("ana").await;
    assert_eq!((&status["status"], &status["sessions"]), (&json!("online"), &json!(1)));
    world.finish().await;
}

#[tokio::test]
async fn an_outage_with_two_nodes_prolongs_by_its_length_and_is_recorded_once() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
    let session = opened["session_id"].as_str().unwrap();
    world.advance_s(100).await;
    world.outage(Duration::from_mins(1)).await;
    let resumed = world.logged("service_resumed").await;
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    let data = |member: &str| {
        resumed[0]["data"][member].as_str().unwrap().parse::<domain::Timestamp>().unwrap()
    };
    let silence = data("to") - data("from");
    assert!(silence >= TimeDelta::seconds(60) && silence < TimeDelta::seconds(64), "{silence}");
    // 160 s after the login, of which 60 do not count.
    for node in 0..2 {
        assert_eq!(world.at_node(&ana, node).status_word("ana").await, "online");
    }
    let deadline = instant(&opened["status"]["last_seen"]) + TimeDelta::seconds(120) + silence;
    let listed = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(instant(&listed["items"][0]["expires_at"]), deadline);
    world.advance_s(15).await;
    assert_eq!(ana.status_word("ana").await, "online");
    world.advance_s(6).await;
    for node in 0..2 {
        assert_eq!(world.at_node(&ana, node).status_word("ana").await, "offline");
    }
    ana.beat(session).await.problem(410, "session_closed");
    let end = world.transitions("ana").await.pop().unwrap();
    assert_eq!(instant(&end["occurred_at"]), deadline);
    assert_eq!(world.logged("service_resumed").await.len(), 1);
    world.finish().await;
}

#[tokio::test]
async fn after_an_outage_longer_than_any_lease_clients_come_back_to_their_sessions() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.outage(Duration::from_hours(3)).await;
    assert_eq!(ana.status_word("ana").await, "online");
    ana.beat(&session).await.expect(200);
    assert_eq!(world.count("ana", "session_expired").await, 0);
    world.finish().await;
}

#[tokio::test]
async fn a_restart_of_the_only_node_is_nobodys_time_out() {
    let mut world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(100).await;
    world.stop_node(0).await;
    tests::clock::shift(&world.pool, Duration::from_mins(10)).await;
    world.add_node().await;
    let ana = world.at_node(&ana, 0);
    assert_eq!(ana.status_word("ana").await, "online");
    ana.beat(&session).await.expect(200);
    assert_eq!(world.logged("service_resumed").await.len(), 1);
    world.finish().await;
}

#[tokio::test]
async fn a_claim_of_ten_seconds_ends_at_ten_seconds_for_readers() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let body = json!({ "status": "busy", "ttl_ms": 10_000 });
    let claimed = ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    assert_eq!(claimed["status"], "busy");
    let ends = instant(&claimed["claims"][0]["expires_at"]);
    // Reckoned from what the node takes for the instant of intake: it may lag a little.
    let length = ends - instant(&claimed["since"]);
    assert!(length <= TimeDelta::seconds(10) && length > TimeDelta::seconds(9), "{length}");
    world.advance_s(6).await;
    assert_eq!(ana.status_word("ana").await, "busy");
    world.advance_s(4).await;
    for node in 0..2 {
        let status = world.at_node(&ana, node).status("ana").await;
        assert_eq!((&status["status"], instant(&status["since"])), (&json!("online"), ends));
        assert_eq!(status["claims"], json!([]));
    }
    eventually("its end is recorded", async || world.count("ana", "claim_expired").await == 1)
        .await;
    let end = world.transitions("ana").await.pop().unwrap();
    assert_eq!(instant(&end["occurred_at"]), ends);
    assert_eq!((&end["from_status"], &end["to_status"]), (&json!("busy"), &json!("online")));
    ana.beat(&session).await.expect(200);
    world.finish().await;
}

#[tokio::test]
async fn claims_end_by_the_clock_even_in_an_outage() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let body = json!({ "status": "dnd", "ttl_ms": 30_000 });
    ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    world.outage(Duration::from_mins(1)).await;
    assert_eq!(ana.status_word("ana").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn short_leases_of_the_policy_hold_from_the_first_login_on() {
    let policy = Policy { heartbeat_ms: 1_000, lease_ms: 7_000, ..Policy::default() };
    let world = World::with(Options { policy, ..Options::default() }).await;
    let ana = world.user("ana");
    let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
    assert_eq!(
        (&opened["heartbeat_interval_ms"], &opened["lease_ms"]),
        (&json!(1000), &json!(7000))
    );
    world.advance_s(7).await;
    assert_eq!(ana.status_word("ana").await, "offline");
    world.finish().await;
}
