//! Claims, visibility, and the explanation of a status.

use api::auth::Role;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::{Client, World, instant};

const MANUAL: &str = "/v1/users/ana/claims/manual";
const ADMIN: &str = "/v1/users/ana/claims/admin";
const TIMER: &str = "/v1/users/ana/claims/system:timer:7";
const CALL: &str = "/v1/users/ana/claims/system:call";

#[tokio::test]
async fn every_source_has_those_who_may_claim_by_it() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let events = world.events().await;
    let (ben, service, admin) = (world.user("ben"), world.service(), world.admin());
    let auditor = world.auditor();
    let body = || json!({ "status": "busy", "reason": "because" });
    for (path, code, refused) in [
        (MANUAL, "not_yours", [&ben, &service, &admin, &auditor]),
        (ADMIN, "forbidden", [&ana, &ben, &service, &auditor]),
        (TIMER, "forbidden", [&ana, &ben, &admin, &auditor]),
    ] {
        for client in refused {
            client.put(path, body()).await.problem(403, code);
            client.delete(path).await.problem(403, code);
        }
    }
    assert_eq!(world.events().await, events);
    for (client, path, sources) in [(&ana, MANUAL, 1), (&service, TIMER, 2), (&admin, ADMIN, 3)] {
        let status = client.put(path, body()).await.expect(200);
        assert_eq!(status["claims"].as_array().unwrap().len(), sources);
    }
    for (client, path, sources) in [(&ana, MANUAL, 2), (&service, TIMER, 1), (&admin, ADMIN, 0)] {
        let status = client.delete(path).await.expect(200);
        assert_eq!(status["claims"].as_array().unwrap().len(), sources);
        let events = world.events().await;
        client.delete(path).await.expect(200);
        assert_eq!(world.events().await, events, "taking back is repeatable");
    }
    world.finish().await;
}

#[tokio::test]
async fn the_highest_rule_that_applies_wins() {
    let world = World::start().await;
    let (ana, service, admin) = (world.user("ana"), world.service(), world.admin());
    let session = ana.login().await;
    let mut claims: Vec<(&Client, &str, &str)> = Vec::new();
    for claim in [
        (&service, CALL, "away"),
        (&service, TIMER, "busy"),
        (&ana, MANUAL, "online"),
        (&admin, ADMIN, "dnd"),
    ] {
        let (client, path, status) = claim;
        claims.push(claim);
        let body = json!({ "status": status, "reason": "r" });
        assert_eq!(client.put(path, body).await.expect(200)["status"], status);
        assert_eq!(world.user("ben").status_word("ana").await, status);
    }
    // Among systems the heaviest wins, not the latest.
    service.put(CALL, json!({ "status": "dnd" })).await.expect(200);
    for (path, then) in [(ADMIN, "online"), (MANUAL, "dnd"), (CALL, "busy"), (TIMER, "online")] {
        let (client, ..) = claims.iter().find(|claim| claim.1 == path).unwrap();
        assert_eq!(client.delete(path).await.expect(200)["status"], then);
    }
    // No claim makes somebody without a session anything but offline.
    admin.put(ADMIN, json!({ "status": "busy", "reason": "r" })).await.expect(200);
    assert_eq!(ana.logout(&session).await.expect(200)["status"]["status"], "offline");
    ana.login().await;
    assert_eq!(ana.status_word("ana").await, "busy");
    world.finish().await;
}

#[tokio::test]
async fn a_claims_text_is_shown_while_it_decides() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let body = json!({ "status": "busy", "text": "in a meeting \u{1F642}" });
    ana.put(MANUAL, body).await.expect(200);
    assert_eq!(world.user("ben").status("ana").await["text"], "in a meeting \u{1F642}");
    world.admin().put(ADMIN, json!({ "status": "dnd", "reason": "r" })).await.expect(200);
    assert_eq!(world.user("ben").status("ana").await["text"], Value::Null);
    world.finish().await;
}

#[tokio::test]
async fn wrong_claims_break_a_rule_and_write_nothing() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    ana.login().await;
    let events = world.events().await;
    let past = json!({ "status": "busy", "expires_at": "2020-01-01T00:00:00Z" });
    let both = json!({ "status": "busy", "expires_at": "2090-01-01T00:00:00Z", "ttl_ms": 1_000 });
    let long = json!({ "status": "busy", "text": "x".repeat(501) });
    for (body, code) in [
        (json!({ "status": "offline" }), "claim_offline"),
        (json!({ "status": "sleepy" }), "invalid_value"),
        (past, "claim_expiry_out_of_range"),
        (json!({ "status": "busy", "ttl_ms": 0 }), "claim_expiry_out_of_range"),
        (json!({ "status": "busy", "ttl_ms": u64::MAX }), "claim_expiry_out_of_range"),
        (both, "two_ends"),
        (long, "invalid_text"),
    ] {
        ana.put(MANUAL, body).await.problem(422, code);
    }
    admin.put(ADMIN, json!({ "status": "busy" })).await.problem(422, "reason_required");
    let blank = json!({ "status": "busy", "reason": "  " });
    admin.put(ADMIN, blank).await.problem(422, "reason_required");
    for source in ["nonsense", "system:", "system:a%20b", "Manual"] {
        let path = format!("/v1/users/ana/claims/{source}");
        ana.put(&path, json!({ "status": "busy" })).await.problem(422, "invalid_source");
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_claim_ends_at_the_instant_that_it_names() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let ends = world.now().await + TimeDelta::seconds(20);
    let text = ends.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    // Finer than the log's clock ticks.
    let finer = text.replace('Z', "789Z");
    let body = json!({ "status": "dnd", "expires_at": finer });
    let claimed = ana.put(MANUAL, body).await.expect(200);
    assert_eq!(claimed["claims"][0]["expires_at"], text);
    world.advance_s(15).await;
    assert_eq!(ana.status_word("ana").await, "dnd");
    world.advance_s(5).await;
    let status = ana.status("ana").await;
    assert_eq!((&status["status"], instant(&status["since"])), (&json!("online"), ends));
    world.finish().await;
}

#[tokio::test]
async fn people_may_claim_before_their_first_login_and_others_not_for_them() {
    let world = World::start().await;
    let ana = world.user("ana");
    let events = world.events().await;
    let body = || json!({ "status": "busy", "reason": "r" });
    world.admin().put(ADMIN, body()).await.problem(404, "user_not_found");
    world.service().put(TIMER, body()).await.problem(404, "user_not_found");
    let hide = json!({ "invisible": true });
    world.admin().put("/v1/users/ana/visibility", hide).await.problem(404, "user_not_found");
    assert_eq!(world.events().await, events);
    let status = ana.put(MANUAL, body()).await.expect(200);
    assert_eq!(status["status"], "offline");
    ana.login().await;
    assert_eq!(ana.status_word("ana").await, "busy");
    world.finish().await;
}

#[tokio::test]
async fn visibility_is_changed_by_the_user_and_admins_and_is_repeatable() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let path = "/v1/users/ana/visibility";
    for client in [world.user("ben"), world.service(), world.auditor()] {
        client.put(path, json!({ "invisible": true })).await.problem(403, "forbidden");
    }
    for client in [ana.clone(), world.admin()] {
        for invisible in [true, true, false, false] {
            let status = client.put(path, json!({ "invisible": invisible })).await.expect(200);
            assert_eq!(
                (&status["invisible"], &status["status"]),
                (&json!(invisible), &json!("online"))
            );
        }
    }
    assert_eq!(world.count("ana", "visibility_changed").await, 4);
    ana.put(path, json!({})).await.problem(400, "missing_field");
    ana.put(path, json!({ "invisible": "yes" })).await.problem(400, "invalid_field");
    world.finish().await;
}

#[tokio::test]
async fn every_status_is_explained_by_its_rule_and_the_events_it_rests_on() {
    let world = World::start().await;
    let ana = world.user("ana");
    let explain = async || ana.get("/v1/users/ana/explain").await.expect(200);
    let session = ana.login().await;
    let mut rules = vec![explain().await["rule"].clone()];
    ana.beat_idle(&session, 600_000).await.expect(200);
    rules.push(explain().await["rule"].clone());
    world.service().put(TIMER, json!({ "status": "busy" })).await.expect(200);
    rules.push(explain().await["rule"].clone());
    ana.put(MANUAL, json!({ "status": "dnd", "text": "quiet" })).await.expect(200);
    rules.push(explain().await["rule"].clone());
    world.admin().put(ADMIN, json!({ "status": "away", "reason": "r" })).await.expect(200);
    let by_admin = explain().await;
    rules.push(by_admin["rule"].clone());
    assert_eq!((&by_admin["status"], &by_admin["user_id"]), (&json!("away"), &json!("ana")));
    assert_eq!(by_admin["claims"].as_array().unwrap().len(), 3);
    assert_eq!(by_admin["sessions"][0]["session_id"], session);
    let events = by_admin["events"].as_array().unwrap();
    let positions: Vec<i64> = events.iter().map(|e| e["position"].as_i64().unwrap()).collect();
    assert!(positions.is_sorted());
    assert_eq!(events.last().unwrap()["data"]["source"], "admin");
    ana.logout(&session).await.expect(200);
    rules.push(explain().await["rule"].clone());
    let expected = [
        "session_active",
        "all_sessions_idle",
        "system_claim",
        "manual_claim",
        "admin_claim",
        "no_live_session",
    ];
    assert_eq!(rules, expected);
    world.finish().await;
}

#[tokio::test]
async fn an_explanation_is_for_the_user_services_auditors_and_admins() {
    let world = World::start().await;
    world.user("ana").login().await;
    for client in [world.user("ana"), world.service(), world.auditor(), world.admin()] {
        client.get("/v1/users/ana/explain").await.expect(200);
    }
    world.service().get("/v1/users/nobody/explain").await.problem(404, "user_not_found");
    for client in [world.user("ben"), world.client("x", &[Role::Analyst])] {
        client.get("/v1/users/ana/explain").await.problem(403, "forbidden");
    }
    world.finish().await;
}
