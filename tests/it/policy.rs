//! The policy: who may change it, what is refused, that it holds everywhere.

use std::time::Duration;

use serde_json::json;
use tests::{World, instant, within};

const POLICY: &str = "/v1/policy";
/// Within this a change holds on every node.
const EVERYWHERE_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn anybody_with_a_token_may_read_the_policy_and_admins_change_it() {
    let world = World::start().await;
    let policy = world.user("ana").get(POLICY).await.expect(200);
    assert_eq!(policy["heartbeat_ms"], 30_000);
    assert_eq!(policy["lease_ms"], 120_000);
    assert_eq!(policy["away_after_ms"], 300_000);
    assert_eq!(policy["visibility"], "all");
    world.nobody().get(POLICY).await.problem(401, "unauthenticated");
    let events = world.events().await;
    for client in [world.user("ana"), world.service(), world.auditor()] {
        client.put(POLICY, json!({ "lease_ms": 200_000 })).await.problem(403, "forbidden");
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_change_is_an_event_with_who_did_it_and_holds_for_new_sessions() {
    let world = World::start().await;
    let before = world.user("ana").post("/v1/sessions", json!({})).await.expect(201);
    let body = json!({ "lease_ms": 200_000, "heartbeat_ms": 60_000 });
    let changed = world.admin().put(POLICY, body.clone()).await.expect(200);
    assert_eq!(
        (&changed["lease_ms"], &changed["away_after_ms"]),
        (&json!(200_000), &json!(300_000))
    );
    let events = world.logged("policy_changed").await;
    let event = events.last().unwrap();
    assert_eq!(event["actor"], "root");
    assert_eq!(event["position"], changed["position"]);
    assert!(event["user_id"].is_null() && event["to_status"].is_null());
    assert_eq!(event["data"]["policy"]["lease_ms"], 200_000, "{event}");
    // The same again is no event.
    world.admin().put(POLICY, body).await.expect(200);
    assert_eq!(world.logged("policy_changed").await.len(), events.len());
    let opened = world.user("ben").post("/v1/sessions", json!({})).await.expect(201);
    assert_eq!(
        (&opened["lease_ms"], &opened["heartbeat_interval_ms"]),
        (&json!(200_000), &json!(60_000))
    );
    // A session keeps the lease that its client was told until it hears of the other.
    let listed = world.user("ana").get("/v1/users/ana/sessions").await.expect(200);
    let session = &listed["items"][0];
    let lease = instant(&session["expires_at"]) - instant(&session["last_seen"]);
    assert_eq!(lease.num_seconds(), 120);
    let beaten = world.user("ana").beat(before["session_id"].as_str().unwrap()).await.expect(200);
    let lease = instant(&beaten["expires_at"]) - instant(&beaten["status"]["last_seen"]);
    assert_eq!(lease.num_seconds(), 200);
    world.finish().await;
}

#[tokio::test]
async fn policies_under_which_honest_clients_time_out_are_refused() {
    let world = World::start().await;
    let events = world.events().await;
    for body in [
        json!({ "lease_ms": 64_999 }),
        json!({ "heartbeat_ms": 60_000 }),
        json!({ "heartbeat_ms": 0 }),
        json!({ "away_after_ms": 0 }),
        json!({ "interaction_lease_ms": 100_000 }),
        json!({ "heartbeat_retention_days": 0 }),
    ] {
        world.admin().put(POLICY, body).await.problem(422, "policy_refused");
    }
    world.admin().put(POLICY, json!({ "nonsense": 1 })).await.problem(400, "unknown_field");
    world.admin().put(POLICY, json!({ "lease_ms": -1 })).await.problem(422, "invalid_value");
    world.admin().put(POLICY, json!({ "lease_ms": "1" })).await.problem(400, "invalid_field");
    world.admin().put(POLICY, json!({ "visibility": "none" })).await.problem(422, "invalid_value");
    assert_eq!(world.events().await, events);
    world.admin().put(POLICY, json!({ "lease_ms": 65_000 })).await.expect(200);
    world.finish().await;
}

#[tokio::test]
async fn a_change_holds_on_every_node_within_a_second() {
    let world = World::with_nodes(2).await;
    let there = world.at_node(&world.user("ana"), 1);
    world.admin().put(POLICY, json!({ "lease_ms": 240_000 })).await.expect(200);
    within(EVERYWHERE_MAX, "the other node has the new lease", async || {
        there.get(POLICY).await.expect(200)["lease_ms"] == 240_000
    })
    .await;
    let opened = there.post("/v1/sessions", json!({})).await.expect(201);
    assert_eq!(opened["lease_ms"], 240_000);
    world.finish().await;
}

#[tokio::test]
async fn changes_on_two_nodes_at_once_are_all_in_the_trail() {
    let world = World::with_nodes(2).await;
    let admin = world.admin();
    let other = world.at_node(&admin, 1);
    let (one, two) = tokio::join!(
        admin.put(POLICY, json!({ "grace_ms": 20_000 })),
        other.put(POLICY, json!({ "away_after_ms": 400_000 })),
    );
    let accepted = [one.status, two.status].iter().filter(|status| **status == 200).count();
    assert!(accepted >= 1, "{one:?} {two:?}");
    // The seed, and every change that was accepted.
    assert_eq!(world.logged("policy_changed").await.len(), 1 + accepted);
    world.finish().await;
}

#[tokio::test]
async fn a_shorter_idle_threshold_makes_the_next_heartbeat_away() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    ana.beat_idle(&session, 60_000).await.expect(200);
    assert_eq!(ana.status_word("ana").await, "online");
    world.admin().put(POLICY, json!({ "away_after_ms": 60_000 })).await.expect(200);
    ana.beat_idle(&session, 60_000).await.expect(200);
    assert_eq!(ana.status_word("ana").await, "away");
    world.finish().await;
}

#[tokio::test]
async fn a_stored_policy_outlives_the_nodes() {
    let mut world = World::start().await;
    world.admin().put(POLICY, json!({ "lease_ms": 90_000 })).await.expect(200);
    world.stop_node(0).await;
    world.add_node().await;
    assert_eq!(world.user("ana").get(POLICY).await.expect(200)["lease_ms"], 90_000);
    assert_eq!(world.logged("policy_changed").await.len(), 2);
    world.finish().await;
}
