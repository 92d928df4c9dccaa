//! What cannot be understood or breaks a rule: the right problem, and nothing written.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;
use tests::{Client, World};
use uuid::Uuid;

const JSON: &str = "application/json";

/// Every call that takes a JSON body, by somebody who may make it.
fn calls(world: &World, session: &str) -> Vec<(Client, Method, String)> {
    let path = |path: &str| path.replace("SESSION", session);
    vec![
        (world.user("ana"), Method::POST, path("/v1/sessions")),
        (world.user("ana"), Method::POST, path("/v1/sessions/SESSION/heartbeat")),
        (world.service(), Method::POST, path("/v1/heartbeats")),
        (world.user("ana"), Method::POST, path("/v1/status/query")),
        (world.user("ana"), Method::PUT, path("/v1/users/ana/claims/manual")),
        (world.user("ana"), Method::PUT, path("/v1/users/ana/visibility")),
        (world.service(), Method::POST, path("/v1/users/ana/guard")),
        (world.service(), Method::POST, path("/v1/guards")),
        (world.admin(), Method::PUT, path("/v1/policy")),
    ]
}

#[tokio::test]
async fn bodies_that_are_no_json_are_malformed_wherever_they_are_sent() {
    let world = World::start().await;
    let session = world.user("ana").login().await;
    let events = world.events().await;
    let deep = "[".repeat(50_000);
    for (client, method, path) in calls(&world, &session) {
        for body in [
            &b"{"[..],
            b"nonsense",
            b"{\"a\":}",
            b"{\"status\":\"busy\"} trailing",
            b"\xff\xfe\x00",
            b"{\"text\":\"\xff\"}",
            deep.as_bytes(),
        ] {
            let request = client.request(method.clone(), &path).header(CONTENT_TYPE, JSON);
            let refused = client.send(request.body(body.to_vec())).await;
            let known = ["malformed_json", "invalid_field", "unknown_field", "missing_field"];
            let code = refused.body["code"].as_str().unwrap_or_default().to_owned();
            assert!(known.contains(&code.as_str()), "{method} {path}: {}", refused.text);
            refused.problem(400, &code);
        }
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn unknown_fields_wrong_types_and_wrong_kinds_of_body_are_refused() {
    let world = World::start().await;
    let session = world.user("ana").login().await;
    let events = world.events().await;
    for (client, method, path) in calls(&world, &session) {
        let many = path == "/v1/heartbeats";
        let unknown = json!({ "nonsense": 1 });
        let unknown = if many { json!([unknown]) } else { unknown };
        let request = client.request(method.clone(), &path).json(&unknown);
        client.send(request).await.problem(400, "unknown_field");
        let request = client.request(method.clone(), &path).json(&json!("text"));
        client.send(request).await.problem(400, "invalid_field");
        for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
            let request = client.request(method.clone(), &path).header(CONTENT_TYPE, kind);
            let refused = client.send(request.body("{\"a\":1}")).await;
            refused.problem(415, "unsupported_media_type");
        }
        let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(1_100_000));
        let request = client.request(method.clone(), &path).header(CONTENT_TYPE, JSON);
        let refused = client.send(request.body(huge)).await;
        refused.problem(413, "payload_too_large");
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn a_body_of_64_kib_is_taken_and_one_byte_more_is_not() {
    let world = World::start().await;
    let padded = |length: usize| {
        let body = "{\"device\":{\"kind\":\"web\"}}";
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    let ana = world.user("ana");
    ana.post_raw("/v1/sessions", JSON, padded(64 * 1024)).await.expect(201);
    let refused = ana.post_raw("/v1/sessions", JSON, padded(64 * 1024 + 1)).await;
    assert_eq!(refused.problem(413, "payload_too_large")["limit_bytes"], 65_536);
    world.finish().await;
}

#[tokio::test]
async fn the_character_nul_is_refused_wherever_text_is_taken() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let events = world.events().await;
    let device = json!({ "device": { "id": "a\u{0}b" } });
    ana.post("/v1/sessions", device).await.problem(422, "nul_character");
    let label = json!({ "device": { "label": "\u{0}" } });
    ana.post("/v1/sessions", label).await.problem(422, "nul_character");
    let text = json!({ "status": "busy", "text": "a\u{0}b" });
    ana.put("/v1/users/ana/claims/manual", text).await.problem(422, "nul_character");
    let reason = json!({ "status": "busy", "reason": "\u{0}" });
    world.admin().put("/v1/users/ana/claims/admin", reason).await.problem(422, "nul_character");
    for path in ["/v1/users/a%00b/status", "/v1/users/ana/claims/system:%00"] {
        let refused = ana.get(path).await;
        assert!([404, 405, 422].contains(&refused.status), "{}", refused.text);
    }
    ana.get("/v1/status?users=a%00b").await.problem(422, "nul_character");
    ana.get("/v1/status?cursor=%00").await.problem(422, "nul_character");
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn wrong_names_of_users_and_sessions_are_refused() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    let events = world.events().await;
    let long = "a".repeat(129);
    for name in ["a%20b", "%C3%A4", "a%2Fb", "a%25", long.as_str()] {
        for path in ["status", "sessions", "explain", "transitions"] {
            let refused = admin.get(&format!("/v1/users/{name}/{path}")).await;
            refused.problem(422, "invalid_user_id");
        }
    }
    for name in ["", "a b", "\u{e4}", "a/b", long.as_str()] {
        let refused = admin.post("/v1/sessions", json!({ "user_id": name })).await;
        refused.problem(422, "invalid_user_id");
    }
    let refused = admin.post("/v1/sessions", json!({ "user_id": 7 })).await;
    refused.problem(400, "invalid_field");
    for name in ["nonsense", "00000000-0000-0000-0000", "1"] {
        let refused = ana.beat(name).await;
        assert!([400, 404, 422].contains(&refused.status), "{}", refused.text);
        let refused = ana.post("/v1/sessions", json!({ "session_id": name })).await;
        assert!([400, 422].contains(&refused.status), "{}", refused.text);
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn wrong_values_of_fields_are_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let events = world.events().await;
    for (body, status, code) in [
        (json!({ "idle_ms": -1 }), 422, "invalid_value"),
        (json!({ "idle_ms": 1.5 }), 400, "invalid_field"),
        (json!({ "idle_ms": "1" }), 400, "invalid_field"),
        (json!({ "idle_ms": 4_294_967_296_u64 }), 422, "invalid_value"),
    ] {
        let path = format!("/v1/sessions/{session}/heartbeat");
        ana.post(&path, body.clone()).await.problem(status, code);
        ana.post("/v1/sessions", body).await.problem(status, code);
    }
    let kind = json!({ "device": { "kind": "toaster" } });
    ana.post("/v1/sessions", kind).await.problem(422, "invalid_value");
    let long = json!({ "device": { "label": "x".repeat(257) } });
    ana.post("/v1/sessions", long).await.problem(422, "invalid_text");
    let field = json!({ "device": { "x": 1 } });
    ana.post("/v1/sessions", field).await.problem(400, "unknown_field");
    assert_eq!(world.events().await, events);
    // As idle as a number can say is idle, no overflow.
    let beaten = ana.beat_idle(&session, 4_294_967_295).await.expect(200);
    assert_eq!(beaten["status"]["status"], "away");
    world.finish().await;
}

#[tokio::test]
async fn wrong_instants_and_parameters_are_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    for query in ["at=yesterday", "at=2026-02-30T00:00:00Z", "min_position=x", "at="] {
        let refused = ana.get(&format!("/v1/users/ana/status?{query}")).await;
        refused.problem(400, "invalid_parameter");
    }
    for at in ["-262143-01-01T00:00:00Z", "-9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        let refused = ana.get(&format!("/v1/users/ana/status?at={at}")).await;
        assert!([400, 404, 422].contains(&refused.status), "{at}: {}", refused.text);
    }
    for at in ["%2B262142-12-31T23:59:59Z", "9999-12-31T23:59:59Z"] {
        let answer = ana.get(&format!("/v1/users/ana/status?at={at}")).await;
        assert!([200, 400, 422].contains(&answer.status), "{at}: {}", answer.text);
    }
    ana.get("/v1/users/ana/status?x=1").await.problem(400, "unknown_parameter");
    ana.get("/v1/users/ana/status?consistency=weak").await.problem(422, "invalid_value");
    let path = format!("/v1/sessions/{session}?revoke_token=maybe");
    ana.delete(&path).await.problem(400, "invalid_parameter");
    ana.get("/v1/users/ana/transitions?limit=0").await.problem(422, "invalid_limit");
    ana.get("/v1/users/ana/transitions?cursor=x").await.problem(400, "invalid_parameter");
    world.finish().await;
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let world = World::start().await;
    let ana = world.user("ana");
    for path in ["/v1", "/v1/", "/v1/nowhere", "/v1/users/ana", "/%00", "/v1/sessions/"] {
        ana.get(path).await.problem(404, "not_found");
    }
    let unknown = Uuid::now_v7();
    for (method, path, allowed) in [
        (Method::GET, "/v1/sessions".to_owned(), "POST"),
        (Method::PATCH, "/v1/policy".to_owned(), "PUT"),
        (Method::POST, "/v1/status/summary".to_owned(), "GET"),
        (Method::GET, format!("/v1/sessions/{unknown}/heartbeat"), "POST"),
        (Method::DELETE, "/healthz".to_owned(), "GET"),
    ] {
        let refused = ana.send(ana.request(method, &path)).await;
        assert!(refused.header("allow").contains(allowed), "{path}: {}", refused.header("allow"));
        refused.problem(405, "method_not_allowed");
    }
    world.finish().await;
}

#[tokio::test]
async fn every_call_but_the_open_ones_needs_a_token() {
    let world = World::start().await;
    let session = world.user("ana").login().await;
    let events = world.events().await;
    let nobody = world.nobody();
    let mut all: Vec<(Method, String)> =
        calls(&world, &session).into_iter().map(|(_, method, path)| (method, path)).collect();
    for path in [
        "/v1/users/ana/status",
        "/v1/status",
        "/v1/status/summary",
        "/v1/users/ana/sessions",
        "/v1/users/ana/explain",
        "/v1/users/ana/transitions",
        "/v1/log",
        "/v1/policy",
        "/v1/health",
        "/v1/changes",
        "/v1/stream",
    ] {
        all.push((Method::GET, path.to_owned()));
    }
    all.push((Method::DELETE, format!("/v1/sessions/{session}")));
    all.push((Method::DELETE, "/v1/users/ana/sessions".to_owned()));
    all.push((Method::POST, "/v1/import".to_owned()));
    all.push((Method::POST, "/v1/ws/ticket".to_owned()));
    for (method, path) in all {
        let request = nobody.request(method, &path).json(&json!({}));
        nobody.send(request).await.problem(401, "unauthenticated");
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn an_array_is_no_object_though_its_members_would_fit() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let events = world.events().await;
    ana.post("/v1/sessions", json!(["ana", null, null, 0])).await.problem(400, "invalid_field");
    let beat = format!("/v1/sessions/{session}/heartbeat");
    ana.post(&beat, json!([5])).await.problem(400, "invalid_field");
    assert_eq!(world.events().await, events);
    world.finish().await;
}
