//! Rules of the policy: they act once, when a status has lasted, and in nobody else's name.

use serde_json::{Value, json};
use tests::{World, eventually, instant};

const POLICY: &str = "/v1/policy";

fn clearing(status: &str, for_ms: u64) -> Value {
    json!([{ "name": "tidy", "when": { "status": status, "for_ms": for_ms },
        "then": { "clear_claims": "system:*" } }])
}

async fn claim(world: &World, user: &str, source: &str) {
    let body = json!({ "status": "busy" });
    let client = if source == "manual" { world.user(user) } else { world.service() };
    client.put(&format!("/v1/users/{user}/claims/{source}"), body).await.expect(200);
}

/// Changes the rules, and waits until they hold.
pub(crate) async fn in_force(world: &World, rules: Value) {
    world.admin().put(POLICY, json!({ "rules": rules })).await.expect(200);
    // Every node acts by them; the log's reader stands on them from its next look on.
    eventually("the rules are in force", async || {
        let stood: Value = sqlx::query_scalar("select rules from rule_cursor")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        stood == rules
    })
    .await;
}

async fn cleared(world: &World, user: &str) -> i64 {
    world.count(user, "claim_cleared").await
}

#[tokio::test]
async fn a_user_long_offline_loses_the_systems_claims_once_by_the_rule() {
    let world = World::with_nodes(2).await;
    in_force(&world, clearing("offline", 60_000)).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    for source in ["system:timer:1", "system:call", "manual"] {
        claim(&world, "ana", source).await;
    }
    ana.logout(&session).await.expect(200);
    world.advance_s(50).await;
    assert_eq!(cleared(&world, "ana").await, 0);
    world.advance_s(12).await;
    eventually("both are cleared", async || cleared(&world, "ana").await == 2).await;
    let events = world.transitions("ana").await;
    let closed = events.iter().find(|event| event["type"] == "session_closed").unwrap();
    for event in events.iter().filter(|event| event["type"] == "claim_cleared") {
        assert_eq!(event["actor"], "rule:tidy");
        let waited = instant(&event["occurred_at"]) - instant(&closed["occurred_at"]);
        assert!(waited.num_milliseconds() >= 60_000, "{waited}");
    }
    // What is claimed later in the same stretch is not the rule's business any more.
    claim(&world, "ana", "system:late").await;
    world.advance_s(70).await;
    let status = world.service().get("/v1/users/ana/status").await.expect(200);
    let sources: Vec<&Value> =
        status["claims"].as_array().unwrap().iter().map(|claim| &claim["source"]).collect();
    assert_eq!(sources, ["manual", "system:late"]);
    world.finish().await;
}

#[tokio::test]
async fn who_comes_back_in_time_keeps_them_and_the_next_stretch_counts_anew() {
    let world = World::start().await;
    in_force(&world, clearing("offline", 60_000)).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    claim(&world, "ana", "system:timer").await;
    ana.logout(&session).await.expect(200);
    world.advance_s(45).await;
    let session = ana.login().await;
    world.advance_s(45).await;
    ana.logout(&session).await.expect(200);
    world.advance_s(45).await;
    assert_eq!(cleared(&world, "ana").await, 0);
    world.advance_s(20).await;
    eventually("it is cleared", async || cleared(&world, "ana").await == 1).await;
    world.finish().await;
}

#[tokio::test]
async fn rules_outlive_restarts_and_take_in_what_happened_meanwhile() {
    let mut world = World::start().await;
    in_force(&world, clearing("offline", 60_000)).await;
    let sessions = [world.user("ana").login().await, world.user("ben").login().await];
    for (user, session) in ["ana", "ben"].into_iter().zip(&sessions) {
        claim(&world, user, "system:timer").await;
        world.user(user).logout(session).await.expect(200);
    }
    world.stop_node(0).await;
    tests::clock::shift(&world.pool, std::time::Duration::from_secs(90)).await;
    world.add_node().await;
    eventually("both are cleared", async || {
        cleared(&world, "ana").await == 1 && cleared(&world, "ben").await == 1
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn a_new_rule_holds_for_what_lasts_and_not_for_what_was_over_before() {
    let world = World::start().await;
    for user in ["old", "young"] {
        let session = world.user(user).login().await;
        claim(&world, user, "system:timer").await;
        if user == "young" {
            world.advance_s(60).await;
        }
        world.user(user).logout(&session).await.expect(200);
    }
    in_force(&world, clearing("offline", 30_000)).await;
    world.advance_s(40).await;
    eventually("the young one's is cleared", async || cleared(&world, "young").await == 1).await;
    assert_eq!(cleared(&world, "old").await, 0);
    // Without rules nothing waits.
    in_force(&world, json!([])).await;
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from rule_due").fetch_one(&world.pool).await.unwrap();
    assert_eq!(waiting, 0);
    world.finish().await;
}

#[tokio::test]
async fn rules_are_checked_and_part_of_the_policy() {
    let world = World::start().await;
    let admin = world.admin();
    let one = |name: &str, for_ms: u64, then: Value| {
        let when = json!({ "status": "away", "for_ms": for_ms });
        json!({ "name": name, "when": when, "then": then })
    };
    let clear = json!({ "clear_claims": "system:*" });
    for bad in [
        json!([one("a b", 1_000, clear.clone())]),
        json!([one("a", 10, clear.clone())]),
        json!([one("a", 1_000, json!({ "clear_claims": "*" }))]),
        json!([one("a", 1_000, clear.clone()), one("a", 1_000, clear.clone())]),
        Value::Array((0..33).map(|n| one(&n.to_string(), 1_000, clear.clone())).collect()),
    ] {
        admin.put(POLICY, json!({ "rules": bad })).await.problem(422, "policy_refused");
    }
    let unknown = json!([one("a", 1_000, json!({ "webhook": uuid::Uuid::now_v7() }))]);
    admin.put(POLICY, json!({ "rules": unknown })).await.problem(404, "webhook_not_found");
    let good = json!([one("a", 1_000, clear)]);
    let put = admin.put(POLICY, json!({ "rules": good })).await.expect(200);
    assert_eq!(put["rules"], good);
    let kept = admin.put(POLICY, json!({ "lease_ms": 200_000 })).await.expect(200);
    assert_eq!(kept["rules"], good);
    let logged = world.logged("policy_changed").await;
    assert_eq!(logged.last().unwrap()["data"]["policy"]["rules"], good);
    world.finish().await;
}
