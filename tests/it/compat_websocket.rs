//! The replaced system's WebSocket: how clients come in, whom they hear of, what they share.

use std::time::Duration;

use api::auth::Role;
use api::compat::{CompatSettings, WebsocketSettings};
use serde_json::{Value, json};
use tests::process::Serve;
use tests::process::scratch::Scratch;
use tests::{Client, Options, Socket, World, eventually};

/// So long nothing comes, where nothing may come.
const NOTHING: Duration = Duration::from_millis(600);

fn token(client: &Client) -> &str {
    client.token.as_deref().unwrap()
}

/// Connects as the clients do, with the token in the URL; what was said first.
async fn connect(client: &Client, path: &str) -> Socket {
    let path = format!("{path}?token={}", token(client));
    let mut socket = Socket::knock_at(client, &path, &[]).await.unwrap();
    socket.hello = socket.expect("hello").await;
    socket
}

fn presence(user: impl Into<Value>, online: bool) -> Value {
    json!({ "type": "status_changed", "data": { "user_id": user.into(), "is_online": online } })
}

async fn refusal(client: &Client, path: &str, headers: &[(&'static str, &str)]) -> (u16, Value) {
    let response = Socket::knock_at(client, path, headers).await.unwrap_err();
    let body = response.body().clone().unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (response.status().as_u16(), body["error"].clone())
}

async fn join(world: &World, group: &str, user: &str) {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().put(&path, json!({})).await.expect(200);
}

#[tokio::test]
async fn one_hears_of_oneself_and_of_group_mates_and_of_nobody_else() {
    let world = World::with_nodes(2).await;
    for user in ["5", "ben"] {
        join(&world, "team", user).await;
    }
    let (five, ben) = (world.user("5"), world.at_node(&world.user("ben"), 1));
    let mut socket = connect(&five, "/ws/user/").await;
    assert_eq!(socket.next().await.unwrap(), presence(json!(5), true));
    world.user("eve").login().await;
    let mut bens = connect(&ben, "/ws/user").await;
    assert_eq!(bens.next().await.unwrap(), presence(json!(5), true));
    assert_eq!(bens.next().await.unwrap(), presence(json!("ben"), true));
    assert_eq!(socket.next().await.unwrap(), presence(json!("ben"), true));
    // Another tab and another status are no news; the last tab's end is.
    let tab = connect(&ben, "/ws/user/").await;
    let sessions = ben.get("/v1/users/ben/sessions").await.expect(200);
    assert_eq!(sessions["count"], 2);
    tab.close(1000).await;
    let busy = json!({ "status": "busy" });
    world.user("ben").put("/v1/users/ben/claims/manual", busy).await.expect(200);
    assert_eq!(socket.until_pong().await.0, Vec::<Value>::new());
    bens.close(1000).await;
    assert_eq!(socket.next().await.unwrap(), presence(json!("ben"), false));
    // Frames may have fields of their own, and ids are numbers both ways.
    let mut again = connect(&ben, "/ws/user/").await;
    let to_five = json!({ "type": "send", "to": 5, "body": "hi", "room": 1 });
    assert_eq!(again.ask(to_five).await.0["type"], "ack");
    let message = socket.find("message").await;
    assert_eq!((&message["from"], &message["body"]), (&json!("ben"), &json!("hi")));
    socket.ask(json!({ "type": "send", "to": "ben", "body": "\"from\":\"5\"" })).await;
    let message = again.find("message").await;
    assert_eq!((&message["from"], &message["body"]), (&json!(5), &json!("\"from\":\"5\"")));
    socket.ask(json!({ "type": "heartbeat", "idle_ms": 0, "visible": true })).await;
    socket.say(json!({ "type": "watch", "users": [5, "eve"] })).await;
    assert_eq!(socket.find("snapshot").await["items"][0]["user_id"], 5);
    assert_eq!(socket.next().await.unwrap(), presence(json!("eve"), true));
    world.finish().await;
}

#[tokio::test]
async fn those_in_a_consultation_hear_each_other_for_as_long_as_they_are_there() {
    let world = World::with_nodes(2).await;
    let (ana, ben) = (world.user("ana"), world.at_node(&world.user("ben"), 1));
    let path = "/ws/consultation/42/";
    let mut anas = connect(&ana, path).await;
    assert_eq!(anas.next().await.unwrap(), presence(json!("ana"), true));
    let mut bens = connect(&ben, path).await;
    for user in ["ana", "ben"] {
        assert_eq!(bens.next().await.unwrap(), presence(json!(user), true));
    }
    assert_eq!(anas.next().await.unwrap(), presence(json!("ben"), true));
    let group = "/v1/groups/consultation:42/status";
    assert_eq!(world.service().get(group).await.expect(200)["counts"]["online"], 2);
    world.user("eve").get(group).await.problem(403, "forbidden");
    let hi = json!({ "type": "send", "group": "consultation:42", "body": "hi" });
    assert_eq!(anas.ask(hi.clone()).await.0["type"], "ack");
    let frame = bens.find("group").await;
    assert_eq!((&frame["group"], &frame["from"]), (&json!("consultation:42"), &json!("ana")));
    let mut eve = connect(&world.user("eve"), "/ws/user/").await;
    assert_eq!(eve.ask(hi.clone()).await.0["code"], "not_a_member");
    // Ben goes home, and stays online elsewhere: here he is gone.
    let elsewhere = connect(&ben, "/ws/user/").await;
    bens.close(1000).await;
    assert_eq!(anas.find("status_changed").await, presence(json!("ben"), false));
    eventually("he has left", async || world.service().get(group).await.expect(200)["total"] == 1)
        .await;
    assert_eq!(ana.status_word("ben").await, "online");
    elsewhere.close(1000).await;
    anas.close(1000).await;
    eventually("it is empty", async || world.service().get(group).await.expect(200)["total"] == 0)
        .await;
    world.finish().await;
}

#[tokio::test]
async fn who_is_greeted_in_a_consultation_is_in_it() {
    let world = World::start().await;
    let ana = world.user("ana");
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("lock table group_visit in share mode").execute(&mut *holder).await.unwrap();
    let path = format!("/ws/consultation/7/?token={}", token(&ana));
    let mut socket = Socket::knock_at(&ana, &path, &[]).await.unwrap();
    assert_eq!(socket.next_within(NOTHING).await, None, "she is not in it yet");
    holder.rollback().await.unwrap();
    socket.expect("hello").await;
    let group = ana.get("/v1/groups/consultation:7/status").await.expect(200);
    assert_eq!(group["total"], 1);
    world.finish().await;
}

#[tokio::test]
async fn an_invisible_visitor_is_in_a_consultation_for_the_entitled_alone() {
    let options = Options { nodes: 2, ..Options::default() };
    let world = World::with(options).await;
    let (bob, ivan) = (world.user("bob"), world.user("ivan"));
    world.admin().put("/v1/policy", json!({ "visibility": "groups" })).await.expect(200);
    let hide = async |invisible: bool| {
        let body = json!({ "invisible": invisible });
        ivan.put("/v1/users/ivan/visibility", body).await.expect(200);
    };
    hide(true).await;
    let path = "/ws/consultation/77/";
    let _bobs = connect(&bob, path).await;
    let mut watching = Socket::open(&bob).await;
    let watch = json!({ "type": "watch", "groups": ["consultation:77"] });
    let (_, frames) = watching.ask(watch).await;
    assert_eq!(frames[0]["items"].as_array().unwrap().len(), 1, "bob");
    let group = "/v1/groups/consultation:77/status";
    let total = async |client: &Client| client.get(group).await.expect(200)["total"].clone();
    let ivans = connect(&world.at_node(&ivan, 1), path).await;
    eventually("this node knows of him", async || ivan.get(group).await.status == 200).await;
    assert_eq!(total(&world.service()).await, 2);
    assert_eq!(total(&ivan).await, 2, "he himself knows");
    // Somebody else comes, and is told of; by then he would have been.
    let cleos = connect(&world.user("cleo"), path).await;
    loop {
        let frame = watching.next().await.unwrap();
        assert!(!frame.to_string().contains("ivan"), "{frame}");
        if frame.to_string().contains("cleo") {
            break;
        }
    }
    let seen = bob.get(group).await.expect(200);
    assert_eq!((&seen["total"], seen.to_string().contains("ivan")), (&json!(2), false), "{seen}");
    let changes = bob.get("/v1/changes?groups=consultation:77").await.expect(200);
    assert!(!changes.to_string().contains("ivan"), "{changes}");
    let status = "/v1/users/ivan/status";
    bob.get(status).await.problem(404, "user_not_found");
    watching.say(json!({ "type": "send", "to": "ivan", "body": "there?", "ref": 1 })).await;
    assert_eq!(watching.find("error").await["code"], "user_not_found");
    // He shows himself; then he hides again.
    hide(false).await;
    eventually("bob may know", async || total(&bob).await == 3).await;
    assert_eq!(bob.get(status).await.expect(200)["status"], "online");
    assert_eq!(watching.find("status_changed").await["user_id"], "ivan");
    hide(true).await;
    let gone = watching.find("status_changed").await;
    assert_eq!((&gone["user_id"], &gone["status"]), (&json!("ivan"), &json!("offline")));
    assert_eq!(total(&bob).await, 2);
    bob.get(status).await.problem(404, "user_not_found");
    cleos.close(1000).await;
    ivans.close(1000).await;
    world.finish().await;
}

#[tokio::test]
async fn a_broken_connection_is_in_its_consultation_until_its_session_is_over() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let grace = json!({ "grace_ms": 1_000 });
    world.admin().put("/v1/policy", grace).await.expect(200);
    let path = "/ws/consultation/7/";
    let mut anas = connect(&ana, path).await;
    let bens = connect(&ben, path).await;
    assert_eq!(anas.next().await.unwrap(), presence(json!("ana"), true));
    assert_eq!(anas.next().await.unwrap(), presence(json!("ben"), true));
    bens.cut();
    assert_eq!(anas.next().await.unwrap(), presence(json!("ben"), false));
    eventually("he has left", async || {
        let group = world.service().get("/v1/groups/consultation:7/status").await.expect(200);
        group["total"] == 1
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn a_consultation_that_a_service_has_filled_is_for_its_members() {
    let world = World::start().await;
    join(&world, "consultation:9", "ana").await;
    let path = "/ws/consultation/9/";
    connect(&world.user("ana"), path).await;
    connect(&world.admin(), path).await;
    let eve = world.user("eve");
    let url = format!("{path}?token={}", token(&eve));
    assert_eq!(refusal(&eve, &url, &[]).await, (403, json!("not_a_member")));
    for id in ["a%20b", ""] {
        let url = format!("/ws/consultation/{id}/?token={}", token(&eve));
        assert_eq!(refusal(&eve, &url, &[]).await, (400, json!("invalid_group")), "{id}");
    }
    assert_eq!(world.user("ana").get("/v1/users/eve/status").await.status, 404);
    world.finish().await;
}

#[tokio::test]
async fn under_visibility_groups_and_for_everybody() {
    let websocket = WebsocketSettings { everybody: true, ..WebsocketSettings::default() };
    let compat = CompatSettings { websocket, ..CompatSettings::default() };
    let world = World::with(Options { compat, ..Options::default() }).await;
    let ana = world.user("ana");
    world.user("eve").login().await;
    let mut socket = connect(&ana, "/ws/user/").await;
    assert_eq!(socket.next().await.unwrap(), presence(json!("ana"), true));
    assert_eq!(socket.next().await.unwrap(), presence(json!("eve"), true));
    // Who may not be seen any longer is as good as gone.
    world.admin().put("/v1/policy", json!({ "visibility": "groups" })).await.expect(200);
    assert_eq!(socket.next().await.unwrap(), presence(json!("eve"), false));
    world.user("frank").login().await;
    assert_eq!(socket.next_within(NOTHING).await, None);
    for user in ["ana", "frank"] {
        join(&world, "team", user).await;
    }
    assert_eq!(socket.next().await.unwrap(), presence(json!("frank"), true));
    let path = "/v1/users/frank/visibility";
    world.user("frank").put(path, json!({ "invisible": true })).await.expect(200);
    assert_eq!(socket.next().await.unwrap(), presence(json!("frank"), false));
    world.finish().await;
}

#[tokio::test]
async fn a_token_comes_in_the_url_or_as_ever_and_the_url_can_be_closed() {
    let websocket = WebsocketSettings { url_token: false, ..WebsocketSettings::default() };
    let compat = CompatSettings { websocket, ..CompatSettings::default() };
    let closed = World::with(Options { compat, ..Options::default() }).await;
    let ana = closed.user("ana");
    let url = format!("/ws/user/?token={}", token(&ana));
    assert_eq!(refusal(&ana, &url, &[]).await, (401, json!("unauthenticated")));
    let bearer = format!("Bearer {}", token(&ana));
    let authorized = [("authorization", bearer.as_str())];
    assert!(Socket::knock_at(&ana, "/ws/user/", &authorized).await.is_ok());
    closed.finish().await;
    let world = World::start().await;
    let made = ana.at(&world.nodes[0].base_url).post("/v1/ws/ticket", json!(null)).await;
    let offer = format!("rollcall.v1, ticket.{}", made.expect(201)["ticket"].as_str().unwrap());
    let ana = world.user("ana");
    let offered = [("sec-websocket-protocol", offer.as_str())];
    assert!(Socket::knock_at(&ana, "/ws/consultation/1/", &offered).await.is_ok());
    for url in ["/ws/user/", "/ws/user/?token="] {
        let (status, _) = refusal(&ana, url, &[]).await;
        assert_eq!(status, 401, "{url}");
    }
    assert_eq!(refusal(&ana, "/ws/user/?token=x.y.z", &[]).await, (401, json!("invalid_token")));
    let auditor = world.client("eve", &[Role::Auditor]);
    let url = format!("/ws/user/?token={}", token(&auditor));
    assert_eq!(refusal(&ana, &url, &[]).await, (403, json!("forbidden")));
    let evil = [("origin", "https://evil.example")];
    let url = format!("/ws/user/?token={}", token(&ana));
    assert_eq!(refusal(&ana, &url, &evil).await, (403, json!("origin_refused")));
    let plain = ana.get("/ws/user/").await;
    assert_eq!((plain.status, &plain.body["error"]), (400, &json!("websocket_expected")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_in_the_url_stands_in_no_log() {
    let scratch = Scratch::new();
    let serve = Serve::new(&scratch.join("data")).under(["env", "RUST_LOG=trace"]);
    let server = serve.start().await;
    let mint = |user: &str| tests::client::token(user, &[Role::User]);
    let client = |token: &str| {
        let url = format!("http://{}", server.address);
        Client::new(tests::client::http(), &url, Some(token.to_owned()))
    };
    let (good, auditors) = (mint("ana"), tests::client::token("eve", &[Role::Auditor]));
    let mut socket = connect(&client(&good), "/ws/consultation/1/").await;
    socket.until_pong().await;
    socket.close(1000).await;
    let forged = format!("{}x", mint("ben"));
    for (token, status) in [(&auditors, 403), (&forged, 401)] {
        let url = format!("/ws/user/?token={token}");
        assert_eq!(refusal(&client(token), &url, &[]).await.0, status);
    }
    // No upgrade at all, and a path that there is not.
    for path in ["/ws/user/", "/ws/nothing/"] {
        client(&good).get(&format!("{path}?token={good}")).await;
    }
    assert!(server.said.count("answered") > 0, "{}", server.said.tail());
    for token in [&good, &auditors, &forged] {
        let signature = token.rsplit('.').next().unwrap();
        assert_eq!(server.said.find(signature), None);
    }
    assert_eq!(server.said.count("token="), 0);
    assert_eq!(server.stop().await.code(), Some(0));
}
