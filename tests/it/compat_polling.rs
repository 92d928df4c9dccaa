//! The polling system's clients: a call at each interaction, and a look at others.

use api::auth::Role;
use chrono::TimeDelta;
use domain::Policy;
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, Client, Options, World, eventually, instant};

const PATH: &str = "/api/status";

async fn put(client: &Client, body: Value) -> Value {
    client.put(PATH, body).await.expect(200)
}

async fn look(client: &Client, user: &str) -> Value {
    client.get(&format!("{PATH}/{user}")).await.expect(200)
}

async fn word(client: &Client, user: &str) -> String {
    look(client, user).await["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_interaction_makes_online_then_time_makes_away_and_offline() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let own = put(&ana, json!({})).await;
    let device = own["devices"][0].clone();
    assert_eq!(own["devices"].as_array().unwrap().len(), 1);
    assert_eq!(own["last_seen"], device["last_seen"]);
    let last_seen = instant(&own["last_seen"]);
    let (own, others) = (own.as_object().unwrap(), look(&ben, "ana").await);
    assert_eq!((&own["status"], &own["manual_status"]), (&json!("online"), &Value::Null));
    assert_eq!((&own["invisible"], own.len()), (&json!(false), 6));
    assert_eq!((&others["status"], others.as_object().unwrap().len()), (&json!("online"), 3));
    world.advance_s(119).await;
    assert_eq!(word(&ben, "ana").await, "online");
    world.advance_s(3).await;
    assert_eq!(word(&ben, "ana").await, "away");
    world.advance_s(179).await;
    assert_eq!(word(&ben, "ana").await, "offline");
    // Looking is no interaction.
    assert_eq!(look(&ana, "ana").await["devices"], json!([]));
    eventually("it is recorded", async || world.count("ana", "session_expired").await == 1).await;
    let events = world.transitions("ana").await;
    let at = |index: usize| instant(&events[index]["occurred_at"]) - last_seen;
    assert_eq!((at(1), at(2)), (TimeDelta::seconds(120), TimeDelta::seconds(300)));
    assert_eq!(put(&ana, json!({})).await["status"], "online");
    world.finish().await;
}

#[tokio::test]
async fn both_intervals_are_the_policys() {
    let policy = Policy {
        interaction_away_after_ms: 20_000,
        interaction_lease_ms: 40_000,
        ..Policy::default()
    };
    let world = World::with(Options { policy, ..Options::default() }).await;
    let ana = world.user("ana");
    put(&ana, json!({})).await;
    for _ in 0..4 {
        // Far below 15 s, and yet each counts: a quarter of what they keep up.
        world.advance_s(10).await;
        assert_eq!(put(&ana, json!({})).await["status"], "online");
    }
    world.advance_s(20).await;
    assert_eq!(word(&world.user("ben"), "ana").await, "away");
    world.advance_s(20).await;
    assert_eq!(word(&world.user("ben"), "ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn what_is_set_yields_once_idle_but_dnd_stays() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let own = put(&ana, json!({ "manual_status": "busy" })).await;
    assert_eq!((&own["status"], &own["manual_status"]), (&json!("dnd"), &json!("busy")));
    assert_eq!(word(&ben, "ana").await, "dnd", "this system has no busy");
    assert_eq!(world.user("ben").status_word("ana").await, "busy");
    // Absent leaves it; null takes it back.
    assert_eq!(put(&ana, json!({ "other": 1 })).await["manual_status"], "busy");
    world.advance_s(121).await;
    assert_eq!(word(&ben, "ana").await, "away");
    assert_eq!(put(&ana, json!({})).await["status"], "dnd", "and is back with the person");
    let own = put(&ana, json!({ "manual_status": null })).await;
    assert_eq!((&own["status"], &own["manual_status"]), (&json!("online"), &Value::Null));
    put(&ana, json!({ "manual_status": "online" })).await;
    world.advance_s(121).await;
    assert_eq!(word(&ben, "ana").await, "away");
    put(&ana, json!({ "manual_status": "dnd" })).await;
    world.advance_s(121).await;
    assert_eq!(word(&ben, "ana").await, "dnd");
    world.advance_s(180).await;
    assert_eq!(word(&ben, "ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn what_is_set_again_and_again_is_written_once() {
    let world = World::start().await;
    let ana = world.user("ana");
    for _ in 0..5 {
        put(&ana, json!({ "manual_status": "away", "invisible": false })).await;
    }
    assert_eq!(world.count("ana", "claim_set").await, 1);
    assert_eq!(world.count("ana", "visibility_changed").await, 0);
    world.finish().await;
}

#[tokio::test]
async fn the_invisible_are_offline_to_others_from_the_first_moment() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let own = put(&ana, json!({ "invisible": true, "manual_status": "dnd" })).await;
    assert_eq!((&own["status"], &own["invisible"]), (&json!("dnd"), &json!(true)));
    assert_eq!(look(&ana, "ana").await["status"], "dnd");
    let seen = look(&ben, "ana").await;
    assert_eq!(seen, json!({ "user_id": "ana", "status": "offline", "last_seen": null }));
    let first = &world.transitions("ana").await[0];
    assert_eq!(first["type"], "visibility_changed", "before there was anything to see");
    assert_eq!(word(&world.service(), "ana").await, "dnd");
    put(&ana, json!({ "invisible": false })).await;
    assert_eq!(word(&ben, "ana").await, "dnd");
    world.finish().await;
}

#[tokio::test]
async fn devices_are_told_apart_by_their_ids_and_without_one_by_the_token() {
    let world = World::start().await;
    let ana = world.user("ana");
    put(&ana, json!({ "device_id": "phone" })).await;
    put(&ana, json!({ "device_id": 7 })).await;
    put(&ana, json!({ "device_id": 7 })).await;
    let own = put(&ana, json!({ "device_id": "" })).await;
    let ids: Vec<_> = own["devices"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids.len(), 3, "{own}");
    assert!(ids.contains(&&json!(7)) && ids.contains(&&json!("phone")), "{own}");
    // The same phone with another token is the same phone.
    let again = world.user("ana");
    let own = put(&again, json!({ "device_id": "phone" })).await;
    assert_eq!(own["devices"].as_array().unwrap().len(), 3);
    assert_eq!(world.count("ana", "session_opened").await, 4);
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["count"], 4);
    world.finish().await;
}

#[tokio::test]
async fn at_most_one_heartbeat_in_15_s_is_appended_however_many_requests_there_are() {
    let world = World::with_nodes(2).await;
    let nodes = [world.user("ana"), world.user("ana")];
    let nodes = [nodes[0].clone(), world.at_node(&nodes[0], 1)];
    let burst = async || {
        join_all((0..20).map(|n| put(&nodes[n % 2], json!({})))).await;
    };
    burst().await;
    assert_eq!(world.count("ana", "session_opened").await, 1, "two nodes, one session");
    assert_eq!(world.count("ana", "heartbeat").await, 0);
    world.advance_s(14).await;
    put(&nodes[0], json!({})).await;
    world.advance_s(2).await;
    join_all((0..20).map(|_| put(&nodes[0], json!({})))).await;
    assert_eq!(world.count("ana", "heartbeat").await, 1);
    // The other node hears of it before it appends one of its own.
    join_all((0..20).map(|_| put(&nodes[1], json!({})))).await;
    assert_eq!(world.count("ana", "heartbeat").await, 1);
    // By the log's clock: on a busy machine real seconds pass besides, and 14 are sooner 15.
    let pause = "select extract(epoch from max(occurred_at) - min(occurred_at))::float8 from event
         where type in ('session_opened', 'heartbeat')";
    let pause: f64 = sqlx::query_scalar(pause).fetch_one(&world.pool).await.unwrap();
    assert!(pause >= 15.0, "{pause} s after the login");
    world.finish().await;
}

#[tokio::test]
async fn a_restart_and_many_ends_forget_nothing() {
    let mut world = World::start().await;
    let ana = world.user("ana");
    for _ in 0..5 {
        put(&ana, json!({})).await;
        let ended = world.admin().delete("/v1/users/ana/sessions").await.expect(200);
        assert_eq!(ended["closed"], 1);
    }
    put(&ana, json!({})).await;
    world.add_node().await;
    world.stop_node(0).await;
    let ana = world.at_node(&ana, 0);
    let own = put(&ana, json!({})).await;
    assert_eq!(own["devices"].as_array().unwrap().len(), 1);
    assert_eq!(world.count("ana", "session_opened").await, 6);
    ana.delete("/v1/users/ana/sessions").await.expect(200);
    world.add_node().await;
    world.stop_node(0).await;
    let ana = world.at_node(&ana, 0);
    join_all((0..8).map(|_| put(&ana, json!({})))).await;
    assert_eq!(world.count("ana", "session_opened").await, 7);
    world.finish().await;
}

#[tokio::test]
async fn one_never_seen_is_offline_and_numbers_are_numbers() {
    let world = World::start().await;
    let five = world.client("5", &[Role::User]);
    let never = json!({ "user_id": "ben", "status": "offline", "last_seen": null });
    assert_eq!(look(&five, "ben").await, never);
    let own = look(&five, "5").await;
    assert_eq!((&own["user_id"], &own["status"]), (&json!(5), &json!("offline")));
    assert_eq!((&own["last_seen"], &own["devices"]), (&Value::Null, &json!([])));
    let form = five.request(reqwest::Method::PUT, PATH);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let own = five.send(form.body("manual_status=away&invisible=0&device_id=12")).await.expect(200);
    assert_eq!((&own["status"], &own["devices"][0]["id"]), (&json!("away"), &json!(12)));
    let form = five.request(reqwest::Method::PUT, "/api/status/").body("manual_status=");
    assert_eq!(five.send(form).await.expect(200)["manual_status"], Value::Null);
    assert_eq!(look(&world.user("ben"), "5").await["user_id"], 5);
    assert_eq!(look(&world.user("ben"), "007").await["user_id"], "007");
    world.finish().await;
}

#[tokio::test]
async fn errors_have_this_systems_shape_and_write_nothing() {
    let world = World::start().await;
    let ana = world.user("ana");
    let events = world.events().await;
    let told = |answer: Answer, status: u16, error: &str| {
        let body = answer.expect(status);
        assert_eq!(body["error"], error, "{body}");
        assert!(body["message"].is_string());
    };
    for (body, error) in [
        (json!({ "manual_status": "offline" }), "invalid_manual_status"),
        (json!({ "manual_status": "asleep" }), "invalid_manual_status"),
        (json!({ "manual_status": ["busy"] }), "invalid_field"),
        (json!({ "manual_status": "busy", "invisible": "perhaps" }), "invalid_field"),
        (json!({ "invisible": true, "device_id": "d".repeat(257) }), "invalid_text"),
        (json!([]), "invalid_field"),
    ] {
        told(ana.put(PATH, body).await, 400, error);
    }
    told(ana.get("/api/status/a%20b").await, 400, "invalid_user_id");
    told(ana.delete("/api/status/ana").await, 405, "method_not_allowed");
    told(world.nobody().get("/api/status/ana").await, 401, "unauthenticated");
    let auditor = world.client("ann", &[Role::Auditor]);
    told(auditor.put(PATH, json!({})).await, 403, "forbidden");
    assert_eq!(world.events().await, events);
    world.finish().await;
}
