//! Messages over WebSockets: to every session of the receiver, to nobody else, until acknowledged.

use std::time::Duration;

use api::auth::Role;
use serde_json::{Value, json};
use tests::client::token_in;
use tests::process::Serve;
use tests::process::api::Api;
use tests::process::scratch::Scratch;
use tests::{Client, Socket, World};

/// So long nothing comes, where nothing may come.
const NOTHING: Duration = Duration::from_millis(600);

async fn send(socket: &mut Socket, to: &str, body: &str) -> Value {
    let (ack, _) = socket.ask(json!({ "type": "send", "to": to, "body": body })).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    ack["id"].clone()
}

async fn refused(socket: &mut Socket, frame: Value) -> String {
    let (answer, _) = socket.ask(frame).await;
    assert_eq!(answer["type"], "error", "{answer}");
    answer["code"].as_str().unwrap().to_owned()
}

async fn join(world: &World, group: &str, user: &str) {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().put(&path, json!({})).await.expect(200);
}

async fn waiting(client: &Client) -> usize {
    let page = client.get("/v1/messages").await.expect(200);
    page["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_message_comes_to_every_session_on_every_node_and_to_nobody_else() {
    let world = World::with_nodes(2).await;
    let (ana, ben, eve) = (world.user("ana"), world.user("ben"), world.user("eve"));
    let mut sessions = [
        Socket::open(&ana).await,
        Socket::open(&ana).await,
        Socket::open(&world.at_node(&ana, 1)).await,
    ];
    let mut others = [Socket::open(&eve).await, Socket::open(&world.at_node(&eve, 1)).await];
    let mut bens = Socket::open(&ben).await;
    let id = send(&mut bens, "ana", "hello").await;
    for session in &mut sessions {
        let frame = session.expect("message").await;
        assert_eq!((&frame["id"], &frame["from"]), (&id, &json!("ben")));
        assert_eq!(frame["body"], "hello");
        assert!(frame["created_at"].is_string() && frame["group"].is_null());
    }
    let note = json!({ "user_id": "ana", "title": "Lab", "message": "there" });
    world.service().post("/v1/notifications", note).await.expect(202);
    for session in &mut sessions {
        let frame = session.expect("notification").await;
        assert_eq!((&frame["title"], &frame["body"]), (&json!("Lab"), &json!("there")));
    }
    // Any session acknowledges for the user; another user does not.
    let (ack, _) = others[0].ask(json!({ "type": "ack", "id": id })).await;
    assert_eq!((ack["type"].clone(), waiting(&ana).await), (json!("ack"), 2));
    sessions[2].ask(json!({ "type": "ack", "id": id })).await;
    assert_eq!(waiting(&ana).await, 1);
    for other in &mut others {
        assert_eq!(other.next_within(NOTHING).await, None);
        assert_eq!(other.until_pong().await.0, Vec::<Value>::new());
    }
    assert_eq!(bens.until_pong().await.0, Vec::<Value>::new());
    world.finish().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_what_is_does_not() {
    let world = World::start().await;
    let ana = world.user("ana");
    let first = Socket::open(&ana).await;
    let hello = first.hello.clone();
    first.cut();
    let mut ids = Vec::new();
    for n in 0..300 {
        let body = json!({ "from": "ben", "to": "ana", "body": n.to_string() });
        ids.push(world.service().post("/v1/messages", body).await.expect(202)["id"].clone());
    }
    let mut again = Socket::resume(&ana, &hello, None).await;
    for id in &ids {
        assert_eq!(again.expect("message").await["id"], *id);
    }
    // However much waited, to acknowledge each is not too many frames.
    for id in &ids[..299] {
        again.say(json!({ "type": "ack", "id": id })).await;
    }
    assert_eq!(again.until_pong().await.0, Vec::<Value>::new());
    let mut third = Socket::open(&ana).await;
    assert_eq!(third.expect("message").await["id"], ids[299]);
    third.ask(json!({ "type": "ack", "id": ids[299] })).await;
    assert_eq!(waiting(&ana).await, 0);
    let mut fourth = Socket::open(&ana).await;
    assert_eq!(fourth.until_pong().await.0, Vec::<Value>::new());
    world.finish().await;
}

#[tokio::test]
async fn each_senders_order_holds_at_every_session() {
    const EACH: usize = 60;
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let mut sessions = [Socket::open(&ana).await, Socket::open(&world.at_node(&ana, 1)).await];
    let senders = (0..4).map(|n| {
        let client = world.at_node(&world.user(&format!("s{n}")), n % 2);
        async move {
            let mut socket = Socket::open(&client).await;
            for n in 0..EACH {
                socket.say(json!({ "type": "send", "to": "ana", "body": n.to_string() })).await;
            }
            assert_eq!(socket.until_pong().await.0, Vec::<Value>::new());
        }
    });
    futures::future::join_all(senders).await;
    for session in &mut sessions {
        let mut met = std::collections::HashMap::<String, Vec<usize>>::new();
        for _ in 0..4 * EACH {
            let frame = session.expect("message").await;
            let from = frame["from"].as_str().unwrap().to_owned();
            met.entry(from).or_default().push(frame["body"].as_str().unwrap().parse().unwrap());
        }
        for (from, bodies) in met {
            assert_eq!(bodies, (0..EACH).collect::<Vec<_>>(), "{from}");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn a_group_hears_what_its_members_send_and_nobody_adds_themselves() {
    let world = World::with_nodes(2).await;
    join(&world, "team", "ana").await;
    join(&world, "team", "ben").await;
    let eva = world.nobody().with_token(Some(token_in("eva", &["team"])));
    let mut ana = Socket::open(&world.user("ana")).await;
    let mut ben = Socket::open(&world.at_node(&world.user("ben"), 1)).await;
    let mut by_token = Socket::open(&world.at_node(&eva, 1)).await;
    let mut eve = Socket::open(&world.user("eve")).await;
    let to_team = |body: &str| json!({ "type": "send", "group": "team", "body": body });
    for frame in [to_team("hi"), json!({ "type": "join", "group": "team" })] {
        assert_eq!(refused(&mut eve, frame).await, "not_a_member");
    }
    let (ack, before) = ana.ask(to_team("one")).await;
    for socket in [&mut ben, &mut by_token] {
        let frame = socket.expect("group").await;
        assert_eq!((&frame["group"], &frame["from"]), (&json!("team"), &json!("ana")));
        assert_eq!((&frame["id"], &frame["body"]), (&ack["id"], &json!("one")));
    }
    if before.is_empty() {
        ana.expect("group").await; // For her other devices.
    }
    // Who belongs by the token alone may stop to listen, and begin again.
    let (left, _) = by_token.ask(json!({ "type": "leave", "group": "team" })).await;
    assert_eq!(left["type"], "ack");
    ana.ask(to_team("two")).await;
    assert_eq!(ben.expect("group").await["body"], "two");
    by_token.ask(json!({ "type": "join", "group": "team" })).await;
    let (ack, _) = by_token.ask(to_team("three")).await;
    assert_eq!(ack["type"], "ack");
    assert_eq!(by_token.expect("group").await["body"], "three");
    assert_eq!(ben.expect("group").await["body"], "three");
    assert_eq!(eve.until_pong().await.0, Vec::<Value>::new());
    // What is kept for members is what they have not acknowledged.
    assert_eq!((waiting(&world.user("ben")).await, waiting(&eva).await), (3, 0));
    world.finish().await;
}

#[tokio::test]
async fn an_admin_speaks_to_everybody_who_is_live_and_others_may_not() {
    let world = World::with_nodes(2).await;
    let mut ana = Socket::open(&world.user("ana")).await;
    let mut ben = Socket::open(&world.at_node(&world.user("ben"), 1)).await;
    let broadcast = json!({ "type": "broadcast", "body": "fire drill" });
    assert_eq!(refused(&mut ana, broadcast.clone()).await, "forbidden");
    let mut root = Socket::open(&world.client("root", &[Role::Admin])).await;
    assert_eq!(root.ask(broadcast).await.0["type"], "ack");
    for socket in [&mut ana, &mut ben] {
        let frame = socket.expect("broadcast").await;
        assert_eq!((&frame["body"], &frame["from"]), (&json!("fire drill"), &json!("root")));
    }
    assert_eq!(waiting(&world.user("ana")).await, 0);
    world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_hides_who_may_not_be_seen() {
    let world = World::start().await;
    for user in ["ana", "ben", "cleo"] {
        world.user(user).login().await;
    }
    join(&world, "team", "ana").await;
    join(&world, "team", "ben").await;
    world.admin().put("/v1/policy", json!({ "visibility": "groups" })).await.expect(200);
    let mut ana = Socket::open(&world.user("ana")).await;
    send(&mut ana, "ben", "hi").await;
    let to = |to: &str, body: &str| json!({ "type": "send", "to": to, "body": body });
    let both = json!({ "type": "send", "to": "ben", "group": "team", "body": "hi" });
    let long = "x".repeat(16 * 1024 + 1);
    for (frame, code) in [
        (to("cleo", "hi"), "user_not_found"),
        (to("nobody", "hi"), "user_not_found"),
        (to("a b", "hi"), "invalid_user_id"),
        (to("ben", ""), "invalid_text"),
        (to("ben", &long), "invalid_text"),
        (both, "invalid_receiver"),
        (json!({ "type": "send", "body": "hi" }), "invalid_receiver"),
        (json!({ "type": "send", "group": "a b", "body": "hi" }), "invalid_group"),
        (json!({ "type": "send", "to": "ben" }), "missing_field"),
        (json!({ "type": "ack", "id": "7" }), "invalid_field"),
    ] {
        assert_eq!(refused(&mut ana, frame.clone()).await, code, "{frame}");
    }
    let hidden = ana.ask(to("cleo", "hi")).await.0;
    assert_eq!(hidden, ana.ask(to("nobody", "hi")).await.0, "in the same words");
    assert_eq!(waiting(&world.user("cleo")).await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_server_is_killed() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let serve = Serve::new(&data_dir);
    let mut server = serve.start().await;
    let client = |address| {
        let token = tests::client::token("ana", &[Role::User]);
        Client::new(tests::client::http(), &format!("http://{address}"), Some(token))
    };
    let service = Api::at(&server, "backend", Role::Service);
    let mut socket = Socket::open(&client(server.address)).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let body = json!({ "from": "ben", "to": "ana", "body": n.to_string() });
        let path = "/v1/messages";
        let answer = service.send(reqwest::Method::POST, path, Some(body)).await.unwrap().ok();
        sent.push(answer["id"].clone());
        if n == 4 {
            let first = socket.expect("message").await;
            socket.ask(json!({ "type": "ack", "id": first["id"] })).await;
        }
    }
    server.kill().await;
    server = serve.start().await;
    let mut socket = Socket::open(&client(server.address)).await;
    for id in &sent[1..] {
        assert_eq!(socket.expect("message").await["id"], *id);
    }
    assert_eq!(socket.until_pong().await.0, Vec::<Value>::new());
    assert_eq!(server.stop().await.code(), Some(0));
}
