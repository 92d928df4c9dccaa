//! The log, filtered, waited for, and in other forms.

use std::time::{Duration, Instant};

use domain::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, World, instant};

/// Something of every kind: logins, ends, claims, guards, imports, heartbeats.
async fn busy(world: &World) {
    let line = |name: &str, at: &str| {
        json!({ "type": name, "user_id": "old", "occurred_at": at,
            "session_id": "00000000-0000-0000-0000-000000000001" })
        .to_string()
    };
    let lines = [
        line("session_opened", "2026-03-28T12:00:00Z"),
        line("heartbeat", "2026-03-28T12:01:00Z"),
        line("session_closed", "2026-03-28T12:02:00Z"),
    ];
    let admin = world.admin();
    admin.post_raw("/v1/import", "application/x-ndjson", lines.join("\n")).await.expect(200);
    for name in ["ana", "ben", "cem"] {
        let user = world.user(name);
        let (first, second) = (user.login().await, user.login_idle(900_000).await);
        user.beat(&first).await.expect(200);
        world.advance_s(20).await;
        user.beat_idle(&first, 900_000).await.expect(200);
        user.logout(&second).await.expect(200);
        let body = json!({ "status": "dnd", "ttl_ms": 5_000 });
        user.put(&format!("/v1/users/{name}/claims/manual"), body).await.expect(200);
    }
    admin.delete("/v1/users/ben/sessions").await.expect(200);
    world.advance_s(200).await;
    tests::eventually("the others time out", async || {
        world.count("ana", "session_expired").await + world.count("cem", "session_expired").await
            == 2
    })
    .await;
}

/// All that fits, page by page.
async fn all(auditor: &Client, query: &str, limit: usize) -> Vec<Value> {
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let path = format!("/v1/log?after={after}&limit={limit}&{query}");
        let page = auditor.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        found.extend(items.iter().cloned());
        let next = page["next"].as_i64().unwrap();
        assert!(next > after || next >= page["head"].as_i64().unwrap(), "{path}: {page}");
        after = next;
        if after >= page["head"].as_i64().unwrap() {
            return found;
        }
    }
}

fn text<'a>(event: &'a Value, member: &str) -> &'a str {
    event[member].as_str().unwrap_or_default()
}

/// Whether an event fits.
type Fits = Box<dyn Fn(&Value) -> bool>;

#[tokio::test]
async fn filters_choose_what_they_say_whatever_the_page() {
    let world = World::start().await;
    busy(&world).await;
    let auditor = world.auditor();
    let everything = all(&auditor, "heartbeats=true", 1_000).await;
    let transitions = |event: &&Value| event["type"] != "heartbeat";
    let middle = everything[everything.len() / 2]["recorded_at"].as_str().unwrap().to_owned();
    let at: Timestamp = middle.parse().unwrap();
    let year: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let cases: Vec<(String, Fits)> = vec![
        (
            "types=claim_set,claim_expired".into(),
            Box::new(|e| text(e, "type").starts_with("claim_")),
        ),
        ("types=heartbeat".into(), Box::new(|e| e["type"] == "heartbeat")),
        (
            "types=heartbeat,session_opened".into(),
            Box::new(|e| ["heartbeat", "session_opened"].contains(&text(e, "type"))),
        ),
        (
            "types=session_opened&heartbeats=true".into(),
            Box::new(|e| e["type"] == "session_opened"),
        ),
        (
            "users=ana,old&heartbeats=true".into(),
            Box::new(|e| ["ana", "old"].contains(&text(e, "user_id"))),
        ),
        ("users=nobody.ever".into(), Box::new(|_| false)),
        (
            "users=nobody.ever,cem".into(),
            Box::new(|e| e["user_id"] == "cem" && e["type"] != "heartbeat"),
        ),
        ("reasons=lost_carrier".into(), Box::new(|e| e["reason"] == "lost_carrier")),
        (
            "reasons=admin_reset,user_request&users=ben".into(),
            Box::new(|e| e["user_id"] == "ben" && e["reason"].is_string()),
        ),
        ("actors=root".into(), Box::new(|e| e["actor"] == "root" && e["type"] != "heartbeat")),
        (
            format!("by=recorded&from={middle}&heartbeats=true"),
            Box::new(move |e| instant(&e["recorded_at"]) >= at),
        ),
        (
            format!("by=recorded&to={middle}&heartbeats=true"),
            Box::new(move |e| instant(&e["recorded_at"]) < at),
        ),
        (
            format!("by=occurred&from={middle}"),
            Box::new(move |e| e["type"] != "heartbeat" && instant(&e["occurred_at"]) >= at),
        ),
        (
            "to=2026-06-01T00:00:00Z&heartbeats=true".into(),
            Box::new(move |e| instant(&e["occurred_at"]) < year),
        ),
        ("by=recorded&to=2026-06-01T00:00:00Z".into(), Box::new(|_| false)),
    ];
    assert!(everything.iter().filter(transitions).count() > 20);
    for (query, fits) in cases {
        let expected: Vec<&Value> = everything.iter().filter(|event| fits(event)).collect();
        let nothing = query.contains("nobody.ever") || query.contains("recorded&to=2026-06");
        assert!(nothing || !expected.is_empty(), "{query} chooses nothing here");
        for limit in [1, 3, 1_000] {
            let found = all(&auditor, &query, limit).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query} by {limit}");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn a_page_looks_through_a_bounded_part_and_says_where_to_go_on() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    ana.login().await;
    let jump = "select setval('log_pos', 5000000)";
    sqlx::query(jump).execute(&world.pool).await.unwrap();
    ben.login().await;
    let first = world.auditor().get("/v1/log?users=ben").await.expect(200);
    assert_eq!(first["items"], json!([]));
    let next = first["next"].as_i64().unwrap();
    assert!(next > 0 && next < first["head"].as_i64().unwrap(), "{first}");
    let found = all(&world.auditor(), "users=ben", 10).await;
    assert_eq!(found.len(), 1);
    // What has no bound to look for is found at once, however far it is.
    let path = format!("/v1/log?after={next}");
    assert_eq!(world.auditor().get(&path).await.expect(200)["items"][0]["user_id"], "ben");
    world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let world = World::start().await;
    world.user("ana").login().await;
    let auditor = world.auditor();
    let beyond = world.head().await + 1;
    for (query, status, code) in [
        (format!("after={beyond}"), 410, "cursor_expired"),
        ("after=-1".into(), 400, "invalid_parameter"),
        ("types=claimed".into(), 422, "invalid_value"),
        ("types=".into(), 422, "invalid_value"),
        ("reasons=boredom".into(), 422, "invalid_value"),
        ("users=no%20name".into(), 422, "invalid_user_id"),
        ("actors=".into(), 422, "invalid_user_id"),
        ("by=clock".into(), 422, "invalid_value"),
        ("wait_ms=30001".into(), 422, "invalid_wait"),
        ("limit=0".into(), 422, "invalid_limit"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z".into(), 422, "empty_window"),
        ("from=yesterday".into(), 400, "invalid_parameter"),
        (format!("users={}", vec!["a"; 1_001].join(",")), 422, "too_many_users"),
    ] {
        auditor.get(&format!("/v1/log?{query}")).await.problem(status, code);
    }
    let request = auditor.request(Method::GET, "/v1/log").header("accept", "text/html");
    auditor.send(request).await.problem(406, "not_acceptable");
    for client in
        [world.user("ana"), world.service(), world.client("x", &[api::auth::Role::Analyst])]
    {
        client.get("/v1/log").await.problem(403, "forbidden");
    }
    let at_head = auditor.get(&format!("/v1/log?after={}", world.head().await)).await.expect(200);
    assert_eq!(at_head["items"], json!([]));
    world.finish().await;
}

#[tokio::test]
async fn whoever_waits_is_woken_by_what_fits_and_by_nothing_else() {
    let world = World::start().await;
    let (ana, auditor) = (world.user("ana"), world.auditor());
    let session = ana.login().await;
    assert!(world.nodes[0].realm().reached(world.head().await).await);
    let head = world.head().await;
    let path = format!("/v1/log?after={head}&wait_ms=20000&types=claim_set");
    let act = async {
        ana.beat(&session).await.expect(200);
        ana.login().await;
        let body = json!({ "status": "busy" });
        ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    };
    let began = Instant::now();
    let (page, ()) = tokio::join!(auditor.get(&path), act);
    let page = page.expect(200);
    assert_eq!(page["items"][0]["type"], "claim_set");
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let began = Instant::now();
    let path = format!("/v1/log?after={}&wait_ms=300", page["head"]);
    let nothing = auditor.get(&path).await.expect(200);
    assert_eq!(nothing["items"], json!([]));
    assert!(began.elapsed() >= Duration::from_millis(300));
    world.finish().await;
}

async fn in_form(client: &Client, path: &str, form: &str) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let request = client.request(Method::GET, path).header("accept", form);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{path} as {form}");
    let headers = response.headers().clone();
    assert!(headers["content-type"].to_str().unwrap().starts_with(form), "{headers:?}");
    (headers, response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn every_form_holds_the_same_events() {
    let world = World::start().await;
    busy(&world).await;
    let calls = [
        (world.auditor(), "/v1/log?heartbeats=true&limit=20"),
        (world.user("ana"), "/v1/users/ana/transitions?limit=5"),
    ];
    for (client, path) in calls {
        let page = client.get(path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        let (headers, lines) = in_form(&client, path, "application/x-ndjson").await;
        if path.starts_with("/v1/log") {
            assert_eq!(headers["rollcall-next"], page["next"].to_string());
            assert_eq!(headers["rollcall-head"], page["head"].to_string());
        } else {
            assert_eq!(headers["rollcall-next-cursor"], page["next_cursor"].as_str().unwrap());
        }
        let lines = String::from_utf8(lines).unwrap();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(&lines, items);
        let (_, batch) = in_form(&client, path, "application/cloudevents-batch+json").await;
        let batch: Vec<Value> = serde_json::from_slice(&batch).unwrap();
        assert_eq!(batch.len(), items.len());
        for (cloud, event) in batch.iter().zip(items) {
            assert_eq!(cloud["specversion"], "1.0");
            assert_eq!(cloud["id"], event["position"].to_string());
            assert_eq!(cloud["type"], format!("rollcall.{}", text(event, "type")));
            assert_eq!(cloud["source"], "/v1/log");
            assert_eq!(cloud["subject"], event["user_id"]);
            assert_eq!((&cloud["time"], &cloud["data"]), (&event["occurred_at"], event));
        }
        let (_, csv) = in_form(&client, path, "text/csv").await;
        let mut reader = csv::Reader::from_reader(&*csv);
        let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        for (row, event) in reader.records().map(Result::unwrap).zip(items) {
            for (name, cell) in names.iter().zip(&row) {
                let expected = match &event[name] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                assert_eq!(cell, expected, "{name} of {event}");
            }
        }
        let (_, parquet) = in_form(&client, path, "application/vnd.apache.parquet").await;
        assert_eq!((&parquet[..4], &parquet[parquet.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    }
    world.finish().await;
}
