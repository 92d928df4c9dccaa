//! Guards: "is the status one of these? then record that the action was allowed", atomically.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, Client, World};
use uuid::Uuid;

const GUARD: &str = "/v1/users/ana/guard";

async fn ask(client: &Client, body: Value) -> Answer {
    client.post(GUARD, body).await
}

#[tokio::test]
async fn a_guard_allows_by_the_status_of_now_and_the_log_says_so() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let service = world.service();
    let body = || json!({ "action": "start", "require": ["online", "away"] });
    let allowed = ask(&service, body()).await.expect(200);
    assert_eq!((&allowed["allowed"], &allowed["status"]), (&json!(true), &json!("online")));
    assert_eq!(allowed["sequence"], 2);
    let closed = ana.logout(&session).await.expect(200);
    let refused = ask(&service, body()).await.problem(409, "status_refused");
    assert_eq!((&refused["current"], &refused["allowed"]), (&json!("offline"), &json!(false)));
    assert!(refused["position"].as_i64() > closed["position"].as_i64());
    let events = world.transitions("ana").await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["session_opened", "action_allowed", "session_closed", "action_refused"]);
    assert_eq!(
        (&events[1]["actor"], &events[1]["data"]["action"]),
        (&json!("backend"), &json!("start"))
    );
    assert_eq!(events[3]["data"]["code"], "status_refused");
    world.finish().await;
}

#[tokio::test]
async fn a_guard_sees_a_lease_that_is_over() {
    let world = World::start().await;
    world.user("ana").login().await;
    world.advance_s(120).await;
    let body = json!({ "action": "start", "require": ["online"] });
    let refused = ask(&world.service(), body).await.problem(409, "status_refused");
    assert_eq!(refused["current"], "offline");
    world.finish().await;
}

#[tokio::test]
async fn a_key_makes_a_guard_repeatable_on_every_node() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let claim = json!({ "source": "system:timer:1", "status": "busy" });
    let body = json!({ "action": "start", "require": ["online"], "key": "k1", "claim": claim });
    let first = ask(&world.service(), body.clone()).await.expect(200);
    assert_eq!(world.user("ben").status_word("ana").await, "busy");
    ana.logout(&session).await.expect(200);
    let events = world.events().await;
    for node in 0..2 {
        let again = ask(&world.at_node(&world.service(), node), body.clone()).await.expect(200);
        assert_eq!(again, first);
    }
    let refused = json!({ "action": "stop", "require": ["online"], "key": "k2" });
    let first = ask(&world.service(), refused.clone()).await.problem(409, "status_refused");
    ana.login().await;
    let other = world.at_node(&world.service(), 1);
    let again = ask(&other, refused).await.problem(409, "status_refused");
    assert_eq!(again, first);
    let other_action = json!({ "action": "other", "require": ["online"], "key": "k1" });
    ask(&world.service(), other_action).await.problem(422, "key_reused");
    let other_question = json!({ "action": "start", "require": ["dnd"], "key": "k1" });
    ask(&world.service(), other_question).await.problem(422, "key_reused");
    assert_eq!(world.events().await, events + 2);
    world.finish().await;
}

#[tokio::test]
async fn one_key_at_once_on_two_nodes_is_one_action() {
    let world = World::with_nodes(2).await;
    world.user("ana").login().await;
    let nodes = [world.service(), world.at_node(&world.service(), 1)];
    let body = json!({ "action": "start", "require": ["online"], "key": "only once" });
    let answers = join_all((0..20).map(|n| ask(&nodes[n % 2], body.clone()))).await;
    let answers: Vec<Value> = answers.into_iter().map(|answer| answer.expect(200)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(world.count("ana", "action_allowed").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn of_many_who_expect_a_claim_to_be_absent_one_gets_it() {
    let world = World::with_nodes(2).await;
    world.user("ana").login().await;
    let nodes = [world.service(), world.at_node(&world.service(), 1)];
    let claim = json!({ "source": "system:timer:7", "status": "busy", "expect": "absent" });
    let body = json!({ "action": "start", "require": ["online", "busy"], "claim": claim });
    let answers = join_all((0..20).map(|n| ask(&nodes[n % 2], body.clone()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for refused in answers.into_iter().filter(|answer| answer.status != 200) {
        refused.problem(409, "claim_conflict");
    }
    // And it is taken back by one who expects it.
    let claim = json!({ "source": "system:timer:7", "status": null, "expect": "present" });
    let body = json!({ "action": "stop", "require": ["online", "busy"], "claim": claim });
    ask(&nodes[0], body.clone()).await.expect(200);
    ask(&nodes[1], body).await.problem(409, "claim_conflict");
    assert_eq!(world.user("ben").status_word("ana").await, "online");
    assert_eq!(world.count("ana", "claim_set").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn a_guard_with_a_sequence_holds_only_while_nothing_happened() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let sequence = ana.status("ana").await["sequence"].clone();
    let body =
        |sequence: &Value| json!({ "action": "a", "require": ["online"], "if_sequence": sequence });
    let allowed = ask(&world.service(), body(&sequence)).await.expect(200);
    let changed = ask(&world.service(), body(&sequence)).await.problem(409, "sequence_changed");
    assert_eq!(changed["current"], "online");
    assert!(changed["sequence"].as_i64() > allowed["sequence"].as_i64());
    world.finish().await;
}

#[tokio::test]
async fn a_guard_on_an_unknown_user_writes_nothing() {
    let world = World::start().await;
    let events = world.events().await;
    let body = json!({ "action": "a", "require": ["offline"], "key": "k" });
    ask(&world.service(), body).await.problem(404, "user_not_found");
    assert_eq!(world.events().await, events);
    world.admin().get("/v1/users/ana/status").await.problem(404, "user_not_found");
    world.finish().await;
}

#[tokio::test]
async fn wrong_guards_are_refused_and_write_nothing() {
    let world = World::start().await;
    world.user("ana").login().await;
    let events = world.events().await;
    let body = || json!({ "action": "a", "require": ["online"] });
    for client in [world.user("ana"), world.admin(), world.auditor()] {
        ask(&client, body()).await.problem(403, "forbidden");
        let many = client.post("/v1/guards", json!({ "guards": [] })).await;
        many.problem(403, "forbidden");
    }
    let with = |member: &str, value: Value| {
        let mut body = body();
        body[member] = value;
        body
    };
    for (body, status, code) in [
        (with("action", json!("")), 422, "invalid_action"),
        (with("action", json!("a b")), 422, "invalid_action"),
        (with("require", json!([])), 422, "invalid_require"),
        (with("require", json!(["sleepy"])), 422, "invalid_value"),
        (with("require", json!("online")), 400, "invalid_field"),
        (with("key", json!("")), 422, "invalid_key"),
        (with("key", json!("k".repeat(201))), 422, "invalid_key"),
        (with("key", json!("a\u{0}b")), 422, "nul_character"),
        (with("nonsense", json!(1)), 400, "unknown_field"),
        (with("claim", json!({ "source": "admin", "status": "busy" })), 403, "forbidden"),
        (with("claim", json!({ "source": "system:x" })), 400, "missing_field"),
        (with("claim", json!({ "source": "system:x", "status": "offline" })), 422, "claim_offline"),
        (json!({ "action": "a" }), 400, "missing_field"),
    ] {
        ask(&world.service(), body).await.problem(status, code);
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn many_guards_are_each_decided_on_their_own() {
    let world = World::start().await;
    world.user("ana").login().await;
    let ben = world.user("ben");
    let session = ben.login().await;
    ben.logout(&session).await.expect(200);
    let guard = |user: &str| json!({ "user_id": user, "action": "a", "require": ["online"] });
    let guards = json!([guard("ana"), guard("ben"), guard("nobody"), guard("a b"), guard("ana")]);
    let body = world.service().post("/v1/guards", json!({ "guards": guards })).await.expect(200);
    let items = body["items"].as_array().unwrap();
    let codes: Vec<_> = items.iter().map(|item| item["code"].as_str()).collect();
    let expected =
        [None, Some("status_refused"), Some("user_not_found"), Some("invalid_user_id"), None];
    assert_eq!(codes, expected);
    let users: Vec<_> = items.iter().map(|item| item["user_id"].as_str().unwrap()).collect();
    assert_eq!(users, ["ana", "ben", "nobody", "a b", "ana"]);
    assert_eq!(world.count("ana", "action_allowed").await, 2);
    let many = vec![guard("ana"); 501];
    let refused = world.service().post("/v1/guards", json!({ "guards": many })).await;
    refused.problem(422, "too_many_guards");
    let mut wrong = guard("ana");
    wrong["nonsense"] = json!(1);
    let refused = world.service().post("/v1/guards", json!({ "guards": [wrong] })).await;
    refused.problem(400, "unknown_field");
    world.finish().await;
}

#[tokio::test]
async fn guards_race_with_logouts_and_none_is_allowed_after_one() {
    let world = World::with_nodes(2).await;
    let service = world.at_node(&world.service(), 1);
    for round in 0..8 {
        let ana = world.user("ana");
        let session = ana.login().await;
        let key = Uuid::now_v7().to_string();
        let body = json!({ "action": "a", "require": ["online"], "key": key });
        let (out, answer) = tokio::join!(ana.logout(&session), ask(&service, body));
        let out = out.expect(200)["position"].as_i64().unwrap();
        let allowed = answer.status == 200;
        let at = answer.body["position"].as_i64().unwrap();
        assert_eq!(allowed, at < out, "round {round}: {}", answer.text);
    }
    world.finish().await;
}
