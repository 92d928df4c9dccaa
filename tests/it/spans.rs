//! History as spans, and the past by both clocks.

use serde_json::{Value, json};
use tests::{World, eventually, fold, instant};
use uuid::Uuid;

async fn history(world: &World, user: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/users/{user}/history?{query}");
    world.auditor().get(&path).await.expect(200)["items"].as_array().unwrap().clone()
}

fn words(spans: &[Value]) -> Vec<&str> {
    spans.iter().map(|span| span["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_history_tells_every_status_with_what_began_and_what_ended_it() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    world.advance_s(10).await;
    ana.put("/v1/users/ana/claims/manual", json!({ "status": "dnd" })).await.expect(200);
    world.advance_s(10).await;
    ana.delete("/v1/users/ana/claims/manual").await.expect(200);
    world.advance_s(130).await;
    eventually("she is timed out", async || world.count("ana", "session_expired").await == 1).await;
    let spans = history(&world, "ana", "").await;
    assert_eq!(words(&spans), ["online", "dnd", "online", "offline"]);
    let events = world.transitions("ana").await;
    for (span, next) in spans.iter().zip(&spans[1..]) {
        assert_eq!(span["to"], next["from"], "no hole and no overlap");
        assert_eq!(span["end"], next["cause"]);
    }
    let expired = &events[3];
    let last = spans.last().unwrap();
    assert_eq!((&last["to"], &last["from"]), (&Value::Null, &expired["occurred_at"]));
    let cause = json!({ "type": "session_expired", "reason": "lost_carrier",
        "position": expired["position"] });
    assert_eq!(last["cause"], cause);
    assert_eq!(spans[0]["cause"]["position"], events[0]["position"]);
    assert_eq!(ana.get("/v1/users/ana/history").await.expect(200)["items"], json!(spans));
    ana.beat(&session).await.problem(410, "session_closed");
    world.finish().await;
}

#[tokio::test]
async fn a_history_is_never_behind_what_was_acknowledged() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    for round in 1..=20 {
        let session = ana.login().await;
        assert_eq!(history(&world, "ana", "").await.len(), 2 * round - 1);
        let there = world.at_node(&ana, 1);
        let position = there.logout(&session).await.expect(200)["position"].clone();
        let spans = history(&world, "ana", &format!("min_position={position}")).await;
        assert_eq!(words(&spans).last(), Some(&"offline"));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_window_clips_and_pages_follow_each_other() {
    let world = World::start().await;
    let ana = world.user("ana");
    for _ in 0..5 {
        let session = ana.login().await;
        world.advance_s(60).await;
        ana.logout(&session).await.expect(200);
        world.advance_s(60).await;
    }
    let all = history(&world, "ana", "").await;
    assert_eq!(all.len(), 10);
    let middle = |span: &Value| {
        let (from, to) = (instant(&span["from"]), instant(&span["to"]));
        (from + (to - from) / 2).format("%FT%T%.6fZ").to_string()
    };
    let (from, to) = (middle(&all[2]), middle(&all[5]));
    let clipped = history(&world, "ana", &format!("from={from}&to={to}")).await;
    assert_eq!(
        (clipped.len(), &clipped[0]["from"], &clipped[3]["to"]),
        (4, &json!(from), &json!(to))
    );
    assert_eq!(clipped[1], all[3]);
    let mut paged = Vec::new();
    let mut query = "limit=3".to_owned();
    loop {
        let page = world.auditor().get(&format!("/v1/users/ana/history?{query}")).await.expect(200);
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=3&cursor={cursor}");
    }
    assert_eq!(paged, all);
    assert!(history(&world, "ana", "to=2000-01-01T00:00:00Z").await.is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_history_is_for_its_user_auditors_and_admins() {
    let world = World::start().await;
    world.user("ana").login().await;
    let path = "/v1/users/ana/history";
    world.user("ben").get(path).await.problem(403, "forbidden");
    world.service().get(path).await.problem(403, "forbidden");
    world.nobody().get(path).await.problem(401, "unauthenticated");
    world.admin().get(path).await.expect(200);
    let auditor = world.auditor();
    auditor.get("/v1/users/nobody/history").await.problem(404, "user_not_found");
    let empty = "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    auditor.get(&format!("{path}{empty}")).await.problem(422, "empty_window");
    auditor.get(&format!("{path}?limit=1001")).await.problem(422, "invalid_limit");
    auditor.get(&format!("{path}?cursor=x")).await.problem(400, "invalid_parameter");
    auditor.get(&format!("{path}?until=x")).await.problem(400, "unknown_parameter");
    world.finish().await;
}

#[tokio::test]
async fn what_happened_and_what_was_known_are_two_questions() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    world.advance_s(60).await;
    // Her lease ends while nobody sweeps: known only afterwards. What was taken over from elsewhere
    // happened years ago and is known only now.
    let before_import = world.now().await.format("%FT%T%.6fZ").to_string();
    world.advance_s(1).await;
    let line = |name: &str, at: &str| {
        json!({ "type": name, "user_id": "ben", "session_id": Uuid::from_u128(7),
            "occurred_at": at })
        .to_string()
    };
    let lines = [
        line("session_opened", "2020-01-01T08:00:00Z"),
        line("session_closed", "2020-01-01T09:00:00Z"),
    ];
    let (admin, kind) = (world.admin(), "application/x-ndjson");
    let report = admin.post_raw("/v1/import", kind, lines.join("\n")).await.expect(200);
    assert_eq!(report["imported"], 2);
    let at = "2020-01-01T08:30:00Z";
    let auditor = world.auditor();
    let status = async |query: &str| {
        let path = format!("/v1/users/ben/status?at={at}{query}");
        auditor.get(&path).await
    };
    assert_eq!(status("").await.expect(200)["status"], "online");
    let known = format!("&known_at={before_import}");
    status(&known).await.problem(404, "user_not_found");
    let history = format!("/v1/users/ben/history?known_at={before_import}");
    assert_eq!(auditor.get(&history).await.expect(200)["items"], json!([]));
    let everybody = async |query: String| {
        let page = auditor.get(&format!("/v1/status?{query}")).await.expect(200);
        let items = page["items"].as_array().unwrap().clone();
        let pair = |item: &Value| {
            format!("{} {}", item["user_id"].as_str().unwrap(), item["status"].as_str().unwrap())
        };
        items.iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(everybody(format!("at={at}")).await, ["ben online"]);
    assert!(everybody(format!("at={at}{known}")).await.is_empty());
    assert_eq!(everybody(format!("at={before_import}")).await, ["ana online", "ben offline"]);
    assert_eq!(everybody(format!("at={before_import}{known}")).await, ["ana online"]);
    world.finish().await;
}

#[tokio::test]
async fn a_time_out_is_known_only_when_it_was_written_down() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let opened = instant(&world.transitions("ana").await[0]["occurred_at"]);
    world.advance_s(125).await;
    eventually("she is timed out", async || world.count("ana", "session_expired").await == 1).await;
    let expired = world.transitions("ana").await[1].clone();
    let (occurred, recorded) = (instant(&expired["occurred_at"]), instant(&expired["recorded_at"]));
    assert_eq!((occurred - opened).num_seconds(), 120);
    assert!(recorded > occurred);
    // Between the two it had happened, and nobody had written it down.
    let text = |at: chrono::DateTime<chrono::Utc>| at.format("%FT%T%.6fZ").to_string();
    let between = occurred + (recorded - occurred) / 2;
    let at = text(between);
    let auditor = world.auditor();
    let happened = format!("/v1/users/ana/status?at={at}");
    let known = format!("{happened}&known_at={at}");
    assert_eq!(auditor.get(&happened).await.expect(200)["status"], "offline");
    let known = auditor.get(&known).await.expect(200);
    assert_eq!((&known["status"], &known["settled"]), (&json!("online"), &json!(false)));
    world.finish().await;
}

#[tokio::test]
async fn everybody_at_an_instant_is_for_auditors_and_comes_in_pages() {
    let world = World::start().await;
    for n in 0..7 {
        world.user(&format!("u{n}")).login().await;
    }
    let at = world.now().await.format("%FT%T%.6fZ").to_string();
    let path = format!("/v1/status?at={at}");
    world.user("u1").get(&path).await.problem(403, "forbidden");
    world.auditor().get(&format!("{path}&users=u1")).await.problem(400, "invalid_parameter");
    world
        .auditor()
        .get("/v1/status?known_at=2026-01-01T00:00:00Z")
        .await
        .problem(400, "invalid_parameter");
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = world.auditor().get(&format!("{path}&limit=3{cursor}")).await.expect(200);
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["status"], "online");
            seen.push(item["user_id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    seen.sort();
    assert_eq!(seen, (0..7).map(|n| format!("u{n}")).collect::<Vec<_>>());
    world.finish().await;
}

#[tokio::test]
async fn everybody_at_an_instant_is_the_same_before_and_after_the_view_has_followed() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    ana.login().await;
    let session = Uuid::now_v7();
    let lines = [("session_opened", "08"), ("session_closed", "09")].map(|(name, hour)| {
        json!({ "type": name, "user_id": "eve", "session_id": session,
                "occurred_at": format!("2020-01-01T{hour}:00:00Z") })
        .to_string()
    });
    let kind = "application/x-ndjson";
    let report = world.admin().post_raw("/v1/import", kind, lines.join("\n")).await.expect(200);
    assert_eq!(report["imported"], 2);
    fold::caught_up(&world.pool).await;
    let hold = "select 1 from view_version where view = 'status_span' for update";
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query(hold).fetch_one(&mut *holder).await.unwrap();
    world.advance_s(10).await;
    let busy = json!({ "status": "busy" });
    ana.put("/v1/users/ana/claims/manual", busy).await.expect(200);
    ben.login().await;
    let at = world.now().await.format("%FT%T%.6fZ").to_string();
    let path = format!("/v1/status?at={at}");
    let behind = world.auditor().get(&path).await.expect(200);
    holder.rollback().await.unwrap();
    fold::caught_up(&world.pool).await;
    let caught_up = world.auditor().get(&path).await.expect(200);
    assert_eq!(behind["items"], caught_up["items"]);
    let items = behind["items"].as_array().unwrap().iter();
    let pairs: Vec<_> = items.map(|item| (&item["user_id"], &item["status"])).collect();
    let expected = [("ana", "busy"), ("eve", "offline"), ("ben", "online")]
        .map(|(user, status)| (json!(user), json!(status)));
    assert_eq!(pairs, expected.each_ref().map(|(user, status)| (user, status)));
    world.finish().await;
}

/// Imported sessions of eve, each by the hours of its ends.
async fn visits(world: &World, hours: &[(u32, u32)]) {
    let mut lines = Vec::new();
    for (opened, closed) in hours {
        let session = Uuid::now_v7();
        for (name, hour) in [("session_opened", opened), ("session_closed", closed)] {
            let line = json!({ "type": name, "user_id": "eve", "session_id": session,
                               "occurred_at": format!("2020-01-01T{hour:02}:00:00Z") });
            lines.push(line.to_string());
        }
    }
    let kind = "application/x-ndjson";
    let report = world.admin().post_raw("/v1/import", kind, lines.join("\n")).await.expect(200);
    assert_eq!(report["imported"], lines.len());
}

#[tokio::test]
async fn what_was_at_an_instant_does_not_change_with_what_came_later() {
    let world = World::start().await;
    // Logged in and out within one instant: of that no span is made.
    visits(&world, &[(8, 9), (12, 12)]).await;
    let at = async || {
        let path = "/v1/users/eve/status?at=2020-01-01T13:00:00Z";
        world.auditor().get(path).await.expect(200)
    };
    let before = at().await;
    assert_eq!(
        (&before["status"], &before["since"], &before["settled"]),
        (&json!("offline"), &json!("2020-01-01T09:00:00.000000Z"), &json!(true))
    );
    let everybody = world.auditor().get("/v1/status?at=2020-01-01T13:00:00Z").await.expect(200);
    assert_eq!(everybody["items"][0]["since"], before["since"]);
    visits(&world, &[(14, 15)]).await;
    assert_eq!(at().await, before);
    world.finish().await;
}
