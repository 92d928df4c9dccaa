//! Health, metrics, the description, and what surrounds every route.

use serde_json::{Value, json};
use tests::{World, eventually, instant};

#[tokio::test]
async fn health_needs_no_token_and_says_little() {
    let world = World::start().await;
    let nobody = world.nobody();
    assert_eq!(nobody.get("/healthz").await.expect(200)["status"], "ok");
    eventually("the node follows the log", async || nobody.get("/readyz").await.status == 200)
        .await;
    nobody.get("/v1/health").await.problem(401, "unauthenticated");
    world.user("ana").login().await;
    let stranger = world.user("ben").get("/v1/health").await.expect(200);
    // Counts would tell of invisible users.
    assert_eq!((&stranger["users"], &stranger["live_sessions"]), (&Value::Null, &Value::Null));
    let health = world.service().get("/v1/health").await.expect(200);
    assert_eq!((&health["status"], &health["users"]), (&json!("ok"), &json!(1)));
    assert_eq!(health["position"], world.head().await);
    assert!(!health["version"].as_str().unwrap().is_empty());
    instant(&health["server_time"]);
    world.finish().await;
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_name_nobody() {
    let world = World::start().await;
    world.user("ana.secret.name").login().await;
    let metrics = world.nobody().get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for name in ["rollcall_http_requests_total", "rollcall_http_request_seconds_bucket"] {
        assert!(metrics.text.contains(name), "{name} is missing");
    }
    assert!(metrics.text.contains("/v1/sessions"), "routes go by their template");
    assert!(!metrics.text.contains("ana.secret.name"));
    world.finish().await;
}

#[tokio::test]
async fn noop_takes_a_token_and_a_body_and_writes_nothing() {
    let world = World::start().await;
    let events = world.events().await;
    let body = json!({ "idle_ms": 5 });
    let answer = world.user("ana").post("/noop", body.clone()).await.expect(200);
    assert_eq!(answer["status"], "ok");
    world.nobody().post("/noop", body).await.problem(401, "unauthenticated");
    world.user("ana").post("/noop", json!({ "x": 1 })).await.problem(400, "unknown_field");
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn the_description_names_every_call_and_the_pages_need_no_network() {
    let world = World::start().await;
    let nobody = world.nobody();
    let description = nobody.get("/openapi.json").await.expect(200);
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let paths = description["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/v1/sessions", &["post"][..]),
        ("/v1/sessions/{id}", &["delete"]),
        ("/v1/sessions/{id}/heartbeat", &["post"]),
        ("/v1/heartbeats", &["post"]),
        ("/v1/users/{id}/status", &["get"]),
        ("/v1/status", &["get"]),
        ("/v1/status/query", &["post"]),
        ("/v1/status/summary", &["get"]),
        ("/v1/users/{id}/sessions", &["get", "delete"]),
        ("/v1/users/{id}/claims/{source}", &["put", "delete"]),
        ("/v1/users/{id}/visibility", &["put"]),
        ("/v1/users/{id}/explain", &["get"]),
        ("/v1/users/{id}/guard", &["post"]),
        ("/v1/guards", &["post"]),
        ("/v1/policy", &["get", "put"]),
        ("/v1/import", &["post"]),
    ] {
        for method in methods {
            assert!(paths[path][method].is_object(), "{method} {path} is not described");
        }
    }
    unresolved(&description, &description);
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-initializer.js"] {
        let page = nobody.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let external = page.text.match_indices("://").map(|(at, _)| {
            page.text[at.saturating_sub(10)..(at + 40).min(page.text.len())].to_owned()
        });
        let external: Vec<String> = external.filter(|url| !url.contains("w3.org")).collect();
        assert!(external.is_empty(), "{path} names {external:?}");
    }
    let redirected = nobody.get("/docs").await;
    assert_eq!(redirected.status, 200, "{}", redirected.text);
    world.finish().await;
}

/// Every `$ref` leads somewhere.
fn unresolved(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let found = document.pointer(reference.trim_start_matches('#'));
                assert!(found.is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|member| unresolved(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| unresolved(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_a_usable_one_is_kept() {
    let world = World::start().await;
    let nobody = world.nobody();
    assert!(!nobody.get("/healthz").await.header("x-request-id").is_empty());
    let request = nobody.request(reqwest::Method::GET, "/nowhere").header("x-request-id", "abc-1");
    assert_eq!(nobody.send(request).await.header("x-request-id"), "abc-1");
    let long = "x".repeat(200);
    let request = nobody.request(reqwest::Method::GET, "/healthz").header("x-request-id", &long);
    assert_ne!(nobody.send(request).await.header("x-request-id"), long);
    world.finish().await;
}

#[tokio::test]
async fn the_log_is_read_in_position_order_page_by_page_by_auditors_and_admins() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    for _ in 0..5 {
        ana.beat(&session).await.expect(200);
    }
    ana.logout(&session).await.expect(200);
    for client in [ana.clone(), world.service()] {
        client.get("/v1/log").await.problem(403, "forbidden");
    }
    for client in [world.auditor(), world.admin()] {
        let mut after = 0;
        let mut positions = Vec::new();
        loop {
            let path = format!("/v1/log?after={after}&limit=3&heartbeats=true");
            let page = client.get(&path).await.expect(200);
            let items = page["items"].as_array().unwrap();
            positions.extend(items.iter().map(|event| event["position"].as_i64().unwrap()));
            after = page["next"].as_i64().unwrap();
            if items.len() < 3 {
                assert_eq!(page["head"], after);
                break;
            }
        }
        assert!(positions.is_sorted_by(|a, b| a < b));
        assert!(positions.len() >= 7);
    }
    world.finish().await;
}
