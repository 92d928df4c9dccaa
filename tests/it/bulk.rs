//! Many statuses: by name, by status, counted.

use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Value, json};
use tests::{World, instant};

#[tokio::test]
async fn many_are_asked_for_by_name_and_the_unknown_are_named() {
    let world = World::start().await;
    for user in ["ana", "ben"] {
        world.user(user).login().await;
    }
    let query = json!({ "users": ["ben", "nobody", "ana", "ben"] });
    let posted = world.user("x").post("/v1/status/query", query).await.expect(200);
    let got = world.user("x").get("/v1/status?users=ben,nobody,ana,ben").await.expect(200);
    assert_eq!((&posted["items"], &posted["unknown"]), (&got["items"], &got["unknown"]));
    let names: Vec<_> = got["items"].as_array().unwrap().iter().map(|s| &s["user_id"]).collect();
    assert_eq!(names, ["ben", "ana"]);
    assert_eq!(got["unknown"], json!(["nobody"]));
    assert_eq!(got["position"].as_i64().unwrap(), world.head().await);
    instant(&got["server_time"]);
    let none = world.user("x").post("/v1/status/query", json!({ "users": [] })).await.expect(200);
    assert_eq!((&none["items"], &none["unknown"]), (&json!([]), &json!([])));
    world.finish().await;
}

#[tokio::test]
async fn a_thousand_users_are_answered_and_one_more_is_refused() {
    let world = World::start().await;
    let users = |count: usize| (0..count).map(|n| format!("user{n:04}")).collect::<Vec<_>>();
    let ana = world.user("ana");
    let answer = ana.post("/v1/status/query", json!({ "users": users(1_000) })).await.expect(200);
    assert_eq!(answer["unknown"].as_array().unwrap().len(), 1_000);
    let refused = ana.post("/v1/status/query", json!({ "users": users(1_001) })).await;
    refused.problem(422, "too_many_users");
    let refused = ana.get(&format!("/v1/status?users={}", users(1_001).join(","))).await;
    refused.problem(422, "too_many_users");
    let long = json!({ "users": vec!["a".repeat(128); 2_100] });
    ana.post("/v1/status/query", long).await.problem(413, "payload_too_large");
    world.finish().await;
}

#[tokio::test]
async fn nothing_new_is_not_modified_and_heartbeats_are_nothing_new() {
    let world = World::with_nodes(2).await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let session = ana.login().await;
    let position = ana.status("ana").await["position"].clone();
    let ask = |node: usize, tag: String| {
        let ben = world.at_node(&ben, node);
        let path = format!("/v1/status?users=ana,nobody&min_position={position}");
        async move {
            let request = ben.request(Method::GET, &path).header(IF_NONE_MATCH, tag);
            ben.send(request).await
        }
    };
    let first = ask(0, String::new()).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    first.expect(200);
    for node in 0..2 {
        let same = ask(node, tag.clone()).await;
        assert_eq!((same.status, same.text.as_str()), (304, ""));
        assert_eq!(same.header("etag"), tag);
    }
    assert_eq!(ask(0, format!("\"other\", {tag}")).await.status, 304);
    assert_eq!(ask(0, "*".to_owned()).await.status, 304);
    world.advance_s(10).await;
    ana.beat(&session).await.expect(200);
    assert_eq!(ask(0, tag.clone()).await.status, 304);
    let body = json!({ "status": "busy" });
    ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    let changed = ask(0, tag.clone()).await;
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(changed.expect(200)["items"][0]["status"], "busy");
    world.finish().await;
}

#[tokio::test]
async fn a_list_by_status_is_paged_without_a_gap_or_a_double() {
    let world = World::start().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        let user = format!("u{n:02}");
        let client = world.user(&user);
        let session = client.login().await;
        if n % 5 == 0 {
            client.logout(&session).await.expect(200);
        } else {
            expected.push(user);
        }
    }
    let ana = world.user("ana");
    let mut found = Vec::new();
    let mut path = "/v1/status?status=online&limit=7".to_owned();
    loop {
        let page = ana.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 7 && items.iter().all(|status| status["status"] == "online"));
        found.extend(items.iter().map(|status| status["user_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/status?status=online&limit=7&cursor={cursor}");
    }
    assert_eq!(found, expected);
    let all = ana.get("/v1/status").await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 25);
    let exact = ana.get("/v1/status?status=offline&limit=5").await.expect(200);
    assert_eq!(
        (exact["items"].as_array().unwrap().len(), &exact["next_cursor"]),
        (5, &Value::Null)
    );
    world.finish().await;
}

#[tokio::test]
async fn wrong_limits_cursors_and_mixtures_are_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    for limit in ["0", "1001", "4294967295"] {
        ana.get(&format!("/v1/status?limit={limit}")).await.problem(422, "invalid_limit");
    }
    for query in ["limit=-1", "limit=x", "limit=99999999999", "cursor=%20", "min_position=x"] {
        let refused = ana.get(&format!("/v1/status?{query}")).await;
        refused.problem(400, "invalid_parameter");
    }
    ana.get("/v1/status?users=ana&status=online").await.problem(400, "invalid_parameter");
    ana.get("/v1/status?nonsense=1").await.problem(400, "unknown_parameter");
    ana.get("/v1/status?status=sleepy").await.problem(422, "invalid_value");
    ana.get("/v1/status?users=a%20b").await.problem(422, "invalid_user_id");
    world.finish().await;
}

#[tokio::test]
async fn the_summary_counts_each_user_once_and_all_their_sessions() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    ana.login().await;
    ana.login().await;
    world.user("ben").login_idle(900_000).await;
    let cid = world.user("cid");
    cid.login().await;
    cid.put("/v1/users/cid/claims/manual", json!({ "status": "dnd" })).await.expect(200);
    let dan = world.user("dan");
    let session = dan.login().await;
    let position = dan.logout(&session).await.expect(200)["position"].clone();
    for node in 0..2 {
        let reader = world.at_node(&world.user("x"), node);
        let path = format!("/v1/status?users=dan&min_position={position}");
        reader.get(&path).await.expect(200);
        let summary = reader.get("/v1/status/summary").await.expect(200);
        let expected = json!({ "online": 1, "away": 1, "busy": 0, "dnd": 1, "offline": 1 });
        assert_eq!(summary["counts"], expected);
        assert_eq!(summary["live_sessions"], 4);
    }
    world.finish().await;
}
