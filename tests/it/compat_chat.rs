//! The chat's clients and its administration.

use api::auth::Role;
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, Client, World, eventually, instant};

const LOGIN: &str = "/api/users/login/";
const LOGOUT: &str = "/api/users/logout/";
const HEARTBEAT: &str = "/api/users/heartbeat/";
const USERS: &str = "/api/users/admin/users/";
const FORM: &str = "application/x-www-form-urlencoded";

async fn post(client: &Client, path: &str) -> Value {
    client.post(path, json!({})).await.expect(200)
}

async fn online_status(admin: &Client, user: &str) -> String {
    let body = admin.get(&format!("{USERS}{user}/online-status/")).await.expect(200);
    body["online_status"].as_str().unwrap().to_owned()
}

async fn set(admin: &Client, user: &str, status: &str) -> Value {
    let path = format!("{USERS}{user}/set-online-status/");
    admin.post(&path, json!({ "status": status })).await.expect(200)
}

fn ids(list: &Value) -> Vec<Value> {
    list["users"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect()
}

#[tokio::test]
async fn a_login_with_our_token_opens_a_session_and_a_logout_ends_it_and_the_token() {
    let world = World::with_nodes(2).await;
    let (ana, admin) = (world.user("ana"), world.admin());
    let body = ana.post(LOGIN, json!({ "username": "ana", "password": "x" })).await.expect(200);
    assert_eq!(body["token"].as_str(), ana.token.as_deref());
    assert_eq!((&body["user"]["id"], &body["user"]["username"]), (&json!("ana"), &json!("ana")));
    assert_eq!(body["user"]["online_status"], "online");
    instant(&body["user"]["last_seen"]);
    post(&ana, LOGIN).await;
    assert_eq!(world.count("ana", "session_opened").await, 1, "a session belongs to the token");
    assert_eq!(online_status(&admin, "ana").await, "online");
    assert_eq!(post(&ana, LOGOUT).await["online_status"], "offline");
    assert_eq!(online_status(&admin, "ana").await, "offline");
    for path in [LOGOUT, HEARTBEAT, LOGIN] {
        let answer = ana.post(path, json!({})).await.expect(401);
        assert_eq!(answer["code"], "token_revoked");
    }
    // On every node, as soon as it has heard of the logout; nothing is opened before.
    let elsewhere = world.at_node(&ana, 1);
    eventually("the other node refuses", async || {
        elsewhere.post(HEARTBEAT, json!({})).await.status == 401
    })
    .await;
    assert_eq!(world.count("ana", "session_opened").await, 1);
    // Another token of the same person is none of its business.
    post(&world.user("ana"), "/api/users/heartbeat").await;
    assert_eq!(online_status(&admin, "ana").await, "online");
    world.nobody().post(LOGIN, json!({})).await.expect(401);
    world.finish().await;
}

#[tokio::test]
async fn requests_beside_a_logout_leave_no_session_behind() {
    let world = World::with_nodes(2).await;
    for round in 0..20 {
        let ana = world.user("ana");
        let elsewhere = world.at_node(&ana, 1);
        if round % 2 == 0 {
            post(&ana, LOGIN).await;
        }
        let beats = join_all((0..6).map(|n| {
            let client = if n % 2 == 0 { &ana } else { &elsewhere };
            client.post(HEARTBEAT, json!({}))
        }));
        let (out, beats) = tokio::join!(ana.post(LOGOUT, json!({})), beats);
        out.expect(200);
        for beat in beats {
            assert!([200, 401].contains(&beat.status), "{}", beat.text);
        }
        let sessions = world.admin().get("/v1/users/ana/sessions").await.expect(200);
        assert_eq!(sessions["count"], 0, "round {round}: {sessions}");
    }
    world.finish().await;
}

#[tokio::test]
async fn any_request_with_a_token_is_activity_and_silence_ends_it() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    // Also one that is refused.
    let refused = ana.get("/api/users/all-users/").await.expect(403);
    assert_eq!(
        (refused["code"].as_str(), refused["detail"].is_string()),
        (Some("forbidden"), true)
    );
    assert_eq!(online_status(&admin, "ana").await, "online");
    for _ in 0..3 {
        world.advance_s(100).await;
        ana.get("/api/users/all-users").await.expect(403);
    }
    assert_eq!(online_status(&admin, "ana").await, "online");
    assert_eq!(world.count("ana", "heartbeat").await, 3);
    world.advance_s(121).await;
    assert_eq!(online_status(&admin, "ana").await, "offline");
    // The administrator came back now and then, too.
    assert_eq!(online_status(&admin, "root").await, "online");
    post(&ana, HEARTBEAT).await;
    assert_eq!(online_status(&admin, "ana").await, "online");
    assert_eq!(world.count("ana", "session_opened").await, 2);
    world.finish().await;
}

#[tokio::test]
async fn heartbeats_are_appended_every_15_s_at_most() {
    let world = World::start().await;
    let ana = world.user("ana");
    join_all((0..30).map(|_| post(&ana, HEARTBEAT))).await;
    assert_eq!(world.count("ana", "session_opened").await, 1, "at once, and one session");
    assert_eq!(world.count("ana", "heartbeat").await, 0);
    for beats in 1..4 {
        world.advance_s(15).await;
        join_all((0..30).map(|_| post(&ana, HEARTBEAT))).await;
        assert_eq!(world.count("ana", "heartbeat").await, beats);
    }
    world.finish().await;
}

#[tokio::test]
async fn the_lists_say_who_is_how_in_the_chats_words() {
    let world = World::start().await;
    let admin = world.admin();
    for (user, status) in [("b", "busy"), ("d", "dnd"), ("a", "away")] {
        let client = world.user(user);
        client.login().await;
        let path = format!("/v1/users/{user}/claims/manual");
        client.put(&path, json!({ "status": status })).await.expect(200);
    }
    for number in ["10", "9", "007"] {
        world.client(number, &[Role::User]).login().await;
    }
    let gone = world.user("gone");
    let session = gone.login().await;
    gone.logout(&session).await.expect(200);
    let veiled = world.user("veiled");
    veiled.login().await;
    veiled.put("/v1/users/veiled/visibility", json!({ "invisible": true })).await.expect(200);
    let everybody = [json!(9), json!(10), json!("007"), json!("a"), json!("b"), json!("d")];
    let everybody: Vec<Value> =
        everybody.into_iter().chain([json!("gone"), json!("root"), json!("veiled")]).collect();
    for path in ["/api/users/all-users/", "/api/users/all-users", USERS] {
        let list = admin.get(path).await.expect(200);
        assert_eq!((ids(&list), &list["count"]), (everybody.clone(), &json!(9)), "{path}");
    }
    let list = admin.get("/api/users/all-users/").await.expect(200);
    assert!(list.get("page").is_none() && list.get("per_page").is_none());
    let mut here = everybody.clone();
    here.retain(|id| *id != json!("gone") && *id != json!("a"));
    let list = admin.get(&format!("{USERS}online/")).await.expect(200);
    assert_eq!((ids(&list), &list["count"]), (here, &json!(7)));
    for (user, word) in [("b", "online"), ("d", "online"), ("a", "away"), ("gone", "offline")] {
        assert_eq!(online_status(&admin, user).await, word);
    }
    assert_eq!(online_status(&admin, "veiled").await, "online", "administrators hear the truth");
    admin.get(&format!("{USERS}nobody/online-status/")).await.expect(404);
    world.finish().await;
}

#[tokio::test]
async fn pages_are_counted_from_one_and_bounded() {
    let world = World::start().await;
    let admin = world.admin();
    for n in 0..25 {
        world.user(&format!("u{n:02}")).login().await;
    }
    let page = async |query: &str| admin.get(&format!("{USERS}?{query}")).await.expect(200);
    let first = page("utm_source=x").await;
    assert_eq!((&first["page"], &first["per_page"]), (&json!(1), &json!(20)));
    assert_eq!((ids(&first).len(), &first["count"]), (20, &json!(26)));
    let third = page("per_page=10&page=3").await;
    assert_eq!((ids(&third).len(), ids(&third)[0].clone()), (6, json!("u19")));
    assert_eq!(ids(&page("per_page=10&page=4").await), [] as [Value; 0]);
    assert_eq!(ids(&page("page=18446744073709551615").await), [] as [Value; 0]);
    assert_eq!(page("per_page=1000000").await["per_page"], 1000);
    for wrong in ["page=0", "per_page=0", "page=x", "per_page=-1", "page=1&page=2"] {
        let told = admin.get(&format!("{USERS}?{wrong}")).await.expect(400);
        assert!(told["detail"].is_string(), "{wrong}: {told}");
    }
    world.finish().await;
}

#[tokio::test]
async fn away_holds_until_it_is_set_again_or_the_user_logs_out() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    post(&ana, LOGIN).await;
    let answer = set(&admin, "ana", "away").await;
    assert_eq!((&answer["id"], &answer["online_status"]), (&json!("ana"), &json!("away")));
    post(&ana, HEARTBEAT).await;
    assert_eq!(online_status(&admin, "ana").await, "away");
    set(&admin, "ana", "online").await;
    assert_eq!(online_status(&admin, "ana").await, "online");
    assert_eq!(world.count("ana", "session_opened").await, 1, "one was live");
    let form = format!("{USERS}ana/set-online-status");
    admin.post_raw(&form, FORM, "status=Away").await.expect(200);
    post(&ana, LOGOUT).await;
    let again = world.user("ana");
    post(&again, LOGIN).await;
    assert_eq!(online_status(&admin, "ana").await, "online");
    // What an administrator claims by other means, with a reason, is not the chat's to take back.
    let claim = json!({ "status": "dnd", "reason": "an exam" });
    admin.put("/v1/users/ana/claims/admin", claim).await.expect(200);
    post(&again, LOGOUT).await;
    let truth = admin.status("ana").await;
    assert_eq!(truth["claims"][0]["source"], "admin");
    world.finish().await;
}

#[tokio::test]
async fn online_opens_a_session_that_times_out_where_none_is_live() {
    let world = World::with_nodes(2).await;
    let (ana, admin) = (world.user("ana"), world.admin());
    post(&ana, LOGIN).await;
    post(&ana, LOGOUT).await;
    let nodes = [admin.clone(), world.at_node(&admin, 1)];
    join_all((0..6).map(|n| set(&nodes[n % 2], "ana", "online"))).await;
    assert_eq!(online_status(&admin, "ana").await, "online");
    let sessions = admin.get("/v1/users/ana/sessions").await.expect(200);
    let items = sessions["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["device"]["kind"]), (1, &json!("other")));
    world.advance_s(121).await;
    assert_eq!(online_status(&admin, "ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn offline_ends_all_sessions_and_the_next_heartbeat_opens_one_again() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    post(&ana, LOGIN).await;
    ana.login().await;
    set(&admin, "ana", "away").await;
    assert_eq!(set(&admin, "ana", "offline").await["online_status"], "offline");
    let ends = world.transitions("ana").await;
    let ends = ends.iter().filter(|event| event["type"] == "session_closed");
    assert_eq!(ends.filter(|event| event["reason"] == "admin_reset").count(), 2);
    assert_eq!(post(&ana, HEARTBEAT).await["online_status"], "online");
    assert_eq!(admin.status("ana").await["sessions"], 1);
    world.finish().await;
}

#[tokio::test]
async fn only_administrators_set_and_look_and_what_is_wrong_is_told_in_the_chats_shape() {
    let world = World::start().await;
    let (ana, admin) = (world.user("ana"), world.admin());
    post(&ana, LOGIN).await;
    let told = |answer: Answer, status: u16, code: &str| {
        assert_eq!(answer.header("content-type"), "application/json");
        let body = answer.expect(status);
        assert_eq!((body["code"].as_str(), body["detail"].is_string()), (Some(code), true));
    };
    let path = format!("{USERS}ana/set-online-status/");
    for client in [&ana, &world.service()] {
        told(client.post(&path, json!({ "status": "away" })).await, 403, "forbidden");
    }
    for path in [USERS.to_owned(), format!("{USERS}online/"), format!("{USERS}ana/online-status/")]
    {
        told(ana.get(&path).await, 403, "forbidden");
        world.service().get(&path).await.expect(200);
        told(world.nobody().get(&path).await, 401, "unauthenticated");
    }
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({ "status": null }), "missing_field"),
        (json!({ "status": "busy" }), "invalid_status"),
        (json!({ "status": ["away"] }), "invalid_field"),
    ] {
        told(admin.post(&path, body).await, 400, code);
    }
    let unknown = format!("{USERS}nobody/set-online-status/");
    told(admin.post(&unknown, json!({ "status": "online" })).await, 404, "user_not_found");
    told(admin.get(HEARTBEAT).await, 405, "method_not_allowed");
    let auditor = world.client("ann", &[Role::Auditor]);
    told(auditor.post(HEARTBEAT, json!({})).await, 403, "forbidden");
    world.finish().await;
}

#[tokio::test]
async fn an_end_recorded_behind_its_deadline_does_not_hide_a_new_beginning() {
    let world = World::with_nodes(2).await;
    let (ana, admin) = (world.user("ana"), world.admin());
    for round in 1..4 {
        let clients = [ana.clone(), world.at_node(&ana, 1)];
        join_all(clients.iter().map(|client| post(client, HEARTBEAT))).await;
        assert_eq!(world.count("ana", "session_opened").await, round);
        world.advance_s(121).await;
    }
    let ended = async || world.count("ana", "session_expired").await == 3;
    eventually("all ends are recorded", ended).await;
    assert_eq!(online_status(&admin, "ana").await, "offline");
    world.finish().await;
}
