//! Login, logout, and the sessions of a user.

use api::auth::Role;
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Client, World, instant};
use uuid::Uuid;

#[tokio::test]
async fn a_login_makes_its_user_online_and_a_logout_offline() {
    let world = World::start().await;
    let ana = world.user("ana");
    let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
    assert_eq!(opened["status"]["status"], "online");
    assert_eq!(opened["user_id"], "ana");
    assert_eq!(opened["heartbeat_interval_ms"], 30_000);
    assert_eq!(opened["lease_ms"], 120_000);
    assert!(opened["position"].as_i64() > Some(0));
    assert!(instant(&opened["server_time"]) >= instant(&opened["status"]["since"]));
    let session = opened["session_id"].as_str().unwrap();
    let closed = ana.logout(session).await.expect(200);
    assert_eq!(closed["status"]["status"], "offline");
    assert_eq!(closed["reason"], "user_request");
    assert!(closed["position"].as_i64() > opened["position"].as_i64());
    world.finish().await;
}

#[tokio::test]
async fn a_login_without_a_body_is_a_login() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.send(ana.request(reqwest::Method::POST, "/v1/sessions")).await.expect(201);
    world.finish().await;
}

#[tokio::test]
async fn the_same_session_id_again_answers_the_same_without_a_second_event() {
    let world = World::start().await;
    let ana = world.user("ana");
    let body = json!({ "session_id": Uuid::now_v7(), "device": { "id": "d", "kind": "web" } });
    let first = ana.post("/v1/sessions", body.clone()).await.expect(201);
    let again = ana.post("/v1/sessions", body.clone()).await.expect(200);
    assert_eq!(without(&first, "server_time"), without(&again, "server_time"));
    // Another session in between changes the status, not the receipt of the first.
    ana.login().await;
    let later = ana.post("/v1/sessions", body).await.expect(200);
    assert_eq!(later["position"], first["position"]);
    assert_eq!(world.count("ana", "session_opened").await, 2);
    world.finish().await;
}

#[tokio::test]
async fn logins_under_one_name_on_two_nodes_at_once_make_one_session() {
    let world = World::with_nodes(2).await;
    let body = json!({ "session_id": Uuid::now_v7() });
    let clients = [world.user("ana"), world.at_node(&world.user("ana"), 1)];
    let logins = (0..16).map(|n| clients[n % 2].post("/v1/sessions", body.clone()));
    let answers = join_all(logins).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(answers.iter().all(|answer| [200, 201].contains(&answer.status)), "{answers:?}");
    assert_eq!(created, 1);
    assert_eq!(world.count("ana", "session_opened").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn the_name_of_a_closed_session_is_gone() {
    let world = World::start().await;
    let ana = world.user("ana");
    let session = ana.login().await;
    ana.logout(&session).await.expect(200);
    let events = world.events().await;
    let gone = ana.post("/v1/sessions", json!({ "session_id": session })).await;
    let gone = gone.problem(410, "session_closed");
    assert_eq!(gone["reason"], "user_request");
    instant(&gone["closed_at"]);
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn the_name_of_another_users_session_is_taken() {
    let world = World::with_nodes(2).await;
    let session = world.user("ana").login().await;
    let events = world.events().await;
    for node in 0..2 {
        let ben = world.at_node(&world.user("ben"), node);
        let body = json!({ "session_id": session });
        ben.post("/v1/sessions", body).await.problem(409, "session_taken");
    }
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn the_sixty_fifth_session_is_refused_however_they_race() {
    let world = World::with_nodes(2).await;
    let nodes = [world.user("ana"), world.at_node(&world.user("ana"), 1)];
    let answers = join_all((0..80).map(|n| nodes[n % 2].post("/v1/sessions", json!({})))).await;
    let opened = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(opened, 64);
    let events = world.events().await;
    let refused = nodes[0].post("/v1/sessions", json!({})).await;
    refused.problem(422, "too_many_sessions");
    assert_eq!(world.events().await, events);
    let listed = nodes[1].get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(listed["count"], 64);
    world.finish().await;
}

#[tokio::test]
async fn a_logout_is_repeatable_with_the_same_answer_and_one_event() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let first = ana.logout(&session).await.expect(200);
    let again = ana.logout(&session).await.expect(200);
    assert_eq!(without(&first, "server_time"), without(&again, "server_time"));
    let elsewhere = world.at_node(&ana, 1).logout(&session).await.expect(200);
    assert_eq!(elsewhere["position"], first["position"]);
    assert_eq!(world.count("ana", "session_closed").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn of_two_devices_the_last_one_out_turns_the_light_off() {
    let world = World::with_nodes(2).await;
    let (phone, desk) = (world.user("ana"), world.at_node(&world.user("ana"), 1));
    let on_phone = phone.login().await;
    let on_desk = desk.login().await;
    let first = phone.logout(&on_phone).await.expect(200);
    assert_eq!(first["status"]["status"], "online");
    assert_eq!(first["status"]["sessions"], 1);
    let last = desk.logout(&on_desk).await.expect(200);
    assert_eq!(last["status"]["status"], "offline");
    assert_eq!(last["status"]["sessions"], 0);
    let words: Vec<_> =
        world.transitions("ana").await.iter().map(|e| e["to_status"].clone()).collect();
    assert_eq!(words, ["online", "online", "online", "offline"]);
    world.finish().await;
}

#[tokio::test]
async fn both_devices_logging_out_at_once_on_two_nodes_end_offline() {
    let world = World::with_nodes(2).await;
    for round in 0..8 {
        let user = format!("ana{round}");
        let (one, other) = (world.user(&user), world.at_node(&world.user(&user), 1));
        let (first, second) = (one.login().await, other.login().await);
        let (a, b) = tokio::join!(one.logout(&first), other.logout(&second));
        a.expect(200);
        b.expect(200);
        let strong = one.get(&format!("/v1/users/{user}/status?consistency=strong")).await;
        assert_eq!(strong.expect(200)["status"], "offline");
    }
    world.finish().await;
}

#[tokio::test]
async fn three_tabs_with_one_device_id_are_three_sessions() {
    let world = World::start().await;
    let ana = world.user("ana");
    let device = json!({ "id": "laptop", "kind": "desktop", "label": "Ana's laptop" });
    for _ in 0..3 {
        ana.post("/v1/sessions", json!({ "device": device })).await.expect(201);
    }
    let listed = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(listed["count"], 3);
    for item in listed["items"].as_array().unwrap() {
        assert_eq!(item["device"], device);
        assert_eq!(item["user_id"], "ana");
        let lease = instant(&item["expires_at"]) - instant(&item["last_seen"]);
        assert_eq!(lease.num_milliseconds(), 120_000);
        assert_eq!(item["opened_at"], item["last_seen"]);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_login_of_somebody_long_idle_is_away() {
    let world = World::start().await;
    let body = json!({ "idle_ms": 300_000 });
    let opened = world.user("ana").post("/v1/sessions", body).await.expect(201);
    assert_eq!(opened["status"]["status"], "away");
    let body = json!({ "idle_ms": 299_999 });
    let opened = world.user("ben").post("/v1/sessions", body).await.expect(201);
    assert_eq!(opened["status"]["status"], "online");
    world.finish().await;
}

#[tokio::test]
async fn only_services_and_admins_log_others_in() {
    let world = World::start().await;
    let body = json!({ "user_id": "ben" });
    let events = world.events().await;
    world.user("ana").post("/v1/sessions", body.clone()).await.problem(403, "forbidden");
    world.auditor().post("/v1/sessions", body.clone()).await.problem(403, "forbidden");
    world.auditor().post("/v1/sessions", json!({})).await.problem(403, "forbidden");
    assert_eq!(world.events().await, events);
    for client in [world.service(), world.admin(), world.user("ben")] {
        let opened = client.post("/v1/sessions", body.clone()).await.expect(201);
        assert_eq!(opened["user_id"], "ben");
    }
    let actors: Vec<Value> =
        world.transitions("ben").await.iter().map(|event| event["actor"].clone()).collect();
    assert_eq!(actors, ["backend", "root", "ben"]);
    world.finish().await;
}

#[tokio::test]
async fn another_persons_session_is_not_yours_and_an_unknown_one_is_not_found() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let session = ana.login().await;
    let events = world.events().await;
    for node in 0..2 {
        let at = |client: &Client| world.at_node(client, node);
        at(&world.user("ben")).logout(&session).await.problem(403, "not_yours");
        at(&world.auditor()).logout(&session).await.problem(403, "not_yours");
        let unknown = Uuid::now_v7().to_string();
        at(&ana).logout(&unknown).await.problem(404, "session_not_found");
    }
    assert_eq!(world.events().await, events);
    assert_eq!(ana.status_word("ana").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn services_and_admins_end_sessions_and_the_log_says_who_and_why() {
    let world = World::start().await;
    let ana = world.user("ana");
    let (first, second) = (ana.login().await, ana.login().await);
    let closed = world.service().logout(&first).await.expect(200);
    assert_eq!(closed["reason"], "user_request");
    let closed = world.admin().logout(&second).await.expect(200);
    assert_eq!(closed["reason"], "admin_reset");
    let events = world.transitions("ana").await;
    let ends: Vec<_> = events[2..].iter().map(|e| (&e["reason"], &e["actor"])).collect();
    let expected =
        [(json!("user_request"), json!("backend")), (json!("admin_reset"), json!("root"))];
    assert_eq!(ends, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    let beat = ana.beat(&second).await.problem(410, "session_closed");
    assert_eq!(beat["reason"], "admin_reset");
    world.finish().await;
}

#[tokio::test]
async fn sessions_are_listed_and_ended_for_the_user_services_and_admins() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let sessions = [ana.login().await, ana.login().await];
    let path = "/v1/users/ana/sessions";
    for client in [ana.clone(), world.service(), world.admin()] {
        let listed = world.at_node(&client, 1).get(path).await.expect(200);
        let ids: Vec<_> =
            listed["items"].as_array().unwrap().iter().map(|s| s["session_id"].clone()).collect();
        assert_eq!(ids, sessions);
    }
    for client in [world.user("ben"), world.auditor(), world.client("x", &[Role::Analyst])] {
        client.get(path).await.problem(403, "forbidden");
        client.delete(path).await.problem(403, "forbidden");
    }
    let nobody = "/v1/users/nobody/sessions";
    world.admin().get(nobody).await.problem(404, "user_not_found");
    world.admin().delete(nobody).await.problem(404, "user_not_found");
    let ended = world.at_node(&world.admin(), 1).delete(path).await.expect(200);
    assert_eq!((&ended["closed"], &ended["status"]["status"]), (&json!(2), &json!("offline")));
    let again = ana.delete(path).await.expect(200);
    assert_eq!(again["closed"], 0);
    assert_eq!(world.count("ana", "session_closed").await, 2);
    world.finish().await;
}

fn without(body: &Value, member: &str) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove(member);
    body
}
