//! The WebSocket: who may open one, what is said over it, and what ends it.

use std::time::Duration;

use api::auth::Role;
use api::live::LiveSettings;
use domain::Policy;
use serde_json::{Value, json};
use tests::client::token_until;
use tests::node::ORIGIN;
use tests::socket::PROTOCOL;
use tests::{Client, EventStream, Options, Socket, World};
use tokio_tungstenite::tungstenite::Message;

/// The status and code with which a connection is refused.
async fn refusal(client: &Client, headers: &[(&'static str, &str)]) -> (u16, String) {
    let response = Socket::knock(client, headers).await.unwrap_err();
    let body = response.body().clone().unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (response.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_connection_is_a_session_from_hello_to_the_closing_handshake() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let socket = Socket::open(&ana).await;
    assert_eq!(ana.status_word("ana").await, "online");
    let hello = &socket.hello;
    assert_eq!(
        (&hello["heartbeat_interval_ms"], &hello["resumed"]),
        (&json!(30_000), &json!(false))
    );
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["items"][0]["session_id"], hello["session_id"]);
    socket.close(1000).await;
    assert_eq!(bob.status_word("ana").await, "offline");
    assert_eq!(world.transitions("ana").await[1]["reason"], "user_request");
    // Whoever says nothing gets a session as well; a page that goes away leaves with 1001.
    let open = json!({ "type": "open", "idle_ms": 400_000,
        "device": { "kind": "mobile", "label": "Ana's" } });
    let mut mobile = Socket::connect(&ana, open).await;
    mobile.expect("hello").await;
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["items"][0]["device"]["label"], "Ana's");
    assert_eq!(ana.status_word("ana").await, "away");
    let bearer = format!("Bearer {}", ana.token.as_deref().unwrap());
    let mut silent = Socket::knock(&ana, &[("authorization", &bearer)]).await.unwrap();
    silent.expect("hello").await;
    assert_eq!(ana.status_word("ana").await, "online");
    silent.close(1001).await;
    mobile.close(1005).await;
    tests::eventually("both are out", async || ana.status_word("ana").await == "offline").await;
    world.finish().await;
}

#[tokio::test]
async fn a_ticket_is_good_once_on_any_node_and_for_half_a_minute() {
    let world = World::with_nodes(2).await;
    let ana = world.user("ana");
    let elsewhere = world.at_node(&ana, 1);
    let ticket = async || {
        let made = ana.post("/v1/ws/ticket", json!(null)).await;
        let made = if made.status == 201 { made.body } else { made.expect(201) };
        format!("{PROTOCOL}, ticket.{}", made["ticket"].as_str().unwrap())
    };
    let offer = ticket().await;
    let mut socket =
        Socket::knock(&elsewhere, &[("sec-websocket-protocol", &offer)]).await.unwrap();
    socket.say(json!({ "type": "open" })).await;
    socket.expect("hello").await;
    assert_eq!(world.user("bob").status_word("ana").await, "online");
    let again = refusal(&ana, &[("sec-websocket-protocol", &offer)]).await;
    assert_eq!(again, (401, "invalid_token".to_owned()));
    let offer = ticket().await;
    let twice = futures::future::join_all((0..8).map(|n| {
        let node = world.at_node(&ana, n % 2);
        let offer = offer.clone();
        async move { Socket::knock(&node, &[("sec-websocket-protocol", &offer)]).await.is_ok() }
    }));
    assert_eq!(twice.await.into_iter().filter(|taken| *taken).count(), 1);
    let late = ticket().await;
    world.advance_s(31).await;
    let late = refusal(&ana, &[("sec-websocket-protocol", &late)]).await;
    assert_eq!(late, (401, "invalid_token".to_owned()));
    world.nobody().post("/v1/ws/ticket", json!({})).await.problem(401, "unauthenticated");
    world.finish().await;
}

#[tokio::test]
async fn who_may_not_connect_hears_why() {
    let world = World::start().await;
    let ana = world.user("ana");
    let bearer = format!("Bearer {}", ana.token.as_deref().unwrap());
    let bearer = ("authorization", bearer.as_str());
    let protocol = ("sec-websocket-protocol", PROTOCOL);
    for origin in ["https://evil.example", "null"] {
        let refused = refusal(&ana, &[bearer, protocol, ("origin", origin)]).await;
        assert_eq!(refused, (403, "origin_refused".to_owned()));
    }
    for origin in [ORIGIN, ana.base_url.as_str()] {
        assert!(Socket::knock(&ana, &[bearer, protocol, ("origin", origin)]).await.is_ok());
    }
    let refused = refusal(&ana, &[protocol]).await;
    assert_eq!(refused, (401, "unauthenticated".to_owned()));
    let refused = refusal(&ana, &[protocol, ("authorization", "Bearer nonsense")]).await;
    assert_eq!(refused, (401, "invalid_token".to_owned()));
    for offer in ["graphql-ws", "ticket.nonsense"] {
        let refused = refusal(&ana, &[bearer, ("sec-websocket-protocol", offer)]).await;
        assert_eq!(refused, (400, "unknown_subprotocol".to_owned()));
    }
    let auditor = world.client("eve", &[Role::Auditor]);
    let token = format!("Bearer {}", auditor.token.as_deref().unwrap());
    let refused = refusal(&ana, &[protocol, ("authorization", &token)]).await;
    assert_eq!(refused, (403, "forbidden".to_owned()));
    ana.get("/v1/ws").await.problem(400, "websocket_expected");
    world.finish().await;
}

#[tokio::test]
async fn watching_tells_of_now_and_then_of_every_change() {
    let world = World::with_nodes(2).await;
    let (ana, bob) = (world.user("ana"), world.at_node(&world.user("bob"), 1));
    let phone = ana.login().await;
    let mut socket = Socket::open(&bob).await;
    let position = socket.hello["position"].as_i64().unwrap();
    assert!(world.nodes[1].realm().reached(world.head().await).await);
    let snapshot = socket.watch(&["ana", "eve"]).await;
    assert_eq!(snapshot["items"], json!([bob.status("ana").await]));
    assert!(snapshot["position"].as_i64().unwrap() >= position);
    let body = json!({ "status": "busy", "text": "lunch" });
    ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
    let frame = socket.expect("status_changed").await;
    let now = bob.status("ana").await;
    for member in ["user_id", "status", "since", "last_seen", "text"] {
        assert_eq!(frame[member], now[member], "{member}");
    }
    // Somebody who was never seen before can be watched, too.
    let eve = world.user("eve").login().await;
    assert_eq!(socket.expect("status_changed").await["user_id"], "eve");
    socket.say(json!({ "type": "unwatch", "users": ["eve"], "ref": 7 })).await;
    assert_eq!(socket.expect("ack").await["ref"], 7);
    world.user("eve").logout(&eve).await.expect(200);
    ana.logout(&phone).await.expect(200);
    let frame = socket.expect("status_changed").await;
    assert_eq!((&frame["user_id"], &frame["status"]), (&json!("ana"), &json!("offline")));
    // Everybody, then nobody.
    socket.say(json!({ "type": "watch" })).await;
    let all = socket.expect("snapshot").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    world.user("eve").login().await;
    assert_eq!(socket.expect("status_changed").await["user_id"], "eve");
    socket.say(json!({ "type": "unwatch", "ref": "all" })).await;
    assert_eq!(socket.expect("ack").await["ref"], "all");
    ana.login().await;
    assert_eq!(socket.until_pong().await.0, Vec::<Value>::new());
    world.finish().await;
}

#[tokio::test]
async fn garbage_is_answered_and_what_is_too_long_or_too_fast_ends_the_connection() {
    let world = World::start().await;
    let ana = world.user("ana");
    let mut socket = Socket::open(&ana).await;
    for (frame, code) in [
        ("{", "malformed_json"),
        ("[]", "invalid_field"),
        ("7", "invalid_field"),
        (r#"{"type":"nonsense","ref":"a"}"#, "unknown_type"),
        (r#"{"type":"heartbeat","idle_ms":-1}"#, "invalid_value"),
        (r#"{"type":"heartbeat","idle":1}"#, "unknown_field"),
        (r#"{"type":"watch","users":["a b"]}"#, "invalid_user_id"),
        (r#"{"type":"watch","users":["a\u0000"]}"#, "nul_character"),
        (r#"{"type":"watch","groups":["team"]}"#, "forbidden"),
        (r#"{"type":"open"}"#, "not_first"),
    ] {
        socket.say_raw(Message::text(frame)).await;
        let refused = socket.expect("error").await;
        assert_eq!(refused["code"], code, "{frame}: {refused}");
    }
    socket.say_raw(Message::binary(vec![0_u8; 16])).await;
    assert_eq!(socket.expect("error").await["code"], "text_expected");
    let users: Vec<String> = (0..1_001).map(|n| format!("u{n}")).collect();
    socket.say(json!({ "type": "watch", "users": users })).await;
    assert_eq!(socket.expect("error").await["code"], "too_many_users");
    let padded = format!("{{\"type\":\"ping\"{}}}", " ".repeat(64 * 1024 - 15));
    assert_eq!(padded.len(), 64 * 1024);
    socket.say_raw(Message::text(padded.clone())).await;
    socket.expect("pong").await;
    socket.say_raw(Message::text(format!("{padded} "))).await;
    assert_eq!(socket.close_code().await, 1009);
    let mut socket = Socket::open(&ana).await;
    for _ in 0..1_000 {
        socket.say(json!({ "type": "ping" })).await;
    }
    assert_eq!(socket.close_code().await, 1008);
    let mut socket = Socket::open(&ana).await;
    socket
        .say_raw(Message::Close(Some(tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 4000.into(),
            reason: "".into(),
        })))
        .await;
    socket.close_code().await;
    assert_eq!(ana.status_word("ana").await, "online", "none of them was a logout");
    world.finish().await;
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_others_go_on() {
    let live = LiveSettings { listener_queue_max: 16, ..LiveSettings::default() };
    let world = World::with(Options { live, ..Options::default() }).await;
    let (ana, bob, eve) = (world.user("ana"), world.user("bob"), world.user("eve"));
    ana.login().await;
    let text = "x".repeat(400);
    let mut slow = Socket::open(&eve).await;
    slow.watch(&["ana"]).await;
    let mut quick = Socket::open(&bob).await;
    quick.watch(&["ana"]).await;
    // Nobody reads `slow`: sooner or later the system's buffers are full, then its queue.
    let mut rounds = 0_u32;
    while world.nodes[0].live().hub.listeners() == 2 {
        for _ in 0..50 {
            rounds += 1;
            let status = if rounds.is_multiple_of(2) { "busy" } else { "dnd" };
            let body = json!({ "status": status, "text": format!("{rounds}{text}") });
            ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
            let frame = quick.expect("status_changed").await;
            assert_eq!(frame["status"], status);
        }
        assert!(rounds < 40_000, "the system's buffers have an end");
    }
    let mut heard = Vec::new();
    while let Some(frame) = slow.next().await {
        heard.push(frame);
    }
    assert!(heard.len() < rounds as usize, "it was not waited for");
    let mut positions = heard.iter().filter_map(|frame| frame["position"].as_i64());
    assert!(positions.clone().is_sorted() && positions.next().is_some());
    assert!(world.nobody().get("/metrics").await.text.contains("rollcall_live_too_slow_total"));
    world.finish().await;
}

#[tokio::test]
async fn a_token_that_ends_ends_its_connections_on_every_node() {
    let mut world = World::with_nodes(2).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let mut here = Socket::open(&ana).await;
    let mut there = Socket::open(&world.at_node(&ana, 1)).await;
    let mut bobs = Socket::open(&world.at_node(&bob, 1)).await;
    let path = format!("/v1/sessions/{}?revoke_token=true", here.session());
    ana.delete(&path).await.expect(200);
    let code = here.close_code().await;
    assert!([4401, 4410].contains(&code), "{code}: the session is over as well");
    let began = tokio::time::Instant::now();
    assert_eq!(there.close_code().await, 4401);
    assert!(began.elapsed() < Duration::from_secs(2));
    tests::eventually("nothing stands on a revoked token", async || {
        bob.status_word("ana").await == "offline"
    })
    .await;
    bobs.until_pong().await;
    world.stop_node(1).await;
    assert_eq!(bobs.close_code().await, 1001);
    assert_eq!(bob.status_word("bob").await, "online", "its client comes back to another node");
    world.finish().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_its_connections_and_with_another_one_the_session_goes_on() {
    let policy = Policy { grace_ms: 20_000, ..Policy::default() };
    let world = World::with(Options { nodes: 2, policy, ..Options::default() }).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    bob.login().await;
    // Past its end already, and taken for what is left of the leeway.
    let short = ana.with_token(Some(token_until("ana", &[], -2)));
    let mut socket = Socket::open(&short).await;
    let mut stream = EventStream::open(&short, "/v1/stream", None).await;
    stream.expect("snapshot").await;
    let position = socket.watch(&["bob"]).await["position"].as_i64();
    let hello = socket.hello.clone();
    let mut bobs = Socket::open(&bob).await;
    assert_eq!(socket.close_code().await, 4401);
    while let Some(event) = stream.next().await {
        assert_ne!(event.event, "snapshot", "it ends as well");
    }
    short.get("/v1/users/bob/status").await.problem(401, "token_expired");
    // What happened before the client has another token is told when it has.
    bob.put("/v1/users/bob/claims/manual", json!({ "status": "busy" })).await.expect(200);
    assert_eq!(bob.status_word("ana").await, "online", "a grace begins, as for a lost line");
    let mut again = Socket::resume(&world.at_node(&ana, 1), &hello, position).await;
    again.say(json!({ "type": "watch", "users": ["bob"] })).await;
    assert_eq!(again.expect("status_changed").await["status"], "busy");
    bobs.until_pong().await;
    world.finish().await;
}

#[tokio::test]
async fn a_session_whose_token_expired_ends_after_the_grace_if_nobody_comes_back() {
    let policy = Policy { grace_ms: 300, ..Policy::default() };
    let world = World::with(Options { policy, ..Options::default() }).await;
    let bob = world.user("bob");
    let short = bob.with_token(Some(token_until("ana", &[], -3)));
    let mut socket = Socket::open(&short).await;
    assert_eq!(socket.close_code().await, 4401);
    tests::eventually("the grace is over", async || bob.status_word("ana").await == "offline")
        .await;
    assert_eq!(world.transitions("ana").await[1]["reason"], "session_timeout");
    world.finish().await;
}
