//! A connection's session: kept by heartbeats, resumed within its grace, ended in every other way.

use std::time::Duration;

use api::live::LiveSettings;
use domain::Policy;
use serde_json::{Value, json};
use tests::socket::resume_frame;
use tests::{Options, Socket, World};

fn grace(grace_ms: u32) -> Options {
    let policy = Policy { grace_ms, ..Policy::default() };
    Options { policy, nodes: 2, ..Options::default() }
}

/// The names and reasons of a user's transitions.
async fn story(world: &World, user: &str) -> Vec<(String, Value)> {
    let events = world.transitions(user).await;
    events.iter().map(|e| (e["type"].as_str().unwrap().to_owned(), e["reason"].clone())).collect()
}

fn told(name: &str, reason: Option<&str>) -> (String, Value) {
    (name.to_owned(), reason.map_or(Value::Null, Value::from))
}

#[tokio::test]
async fn a_connection_that_broke_ends_its_session_after_the_grace() {
    let world = World::with(grace(300)).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let socket = Socket::open(&ana).await;
    socket.cut();
    assert_eq!(bob.status_word("ana").await, "online", "nobody sees a short break");
    tests::eventually("the grace is over", async || bob.status_word("ana").await == "offline")
        .await;
    let closed = told("session_closed", Some("lost_carrier"));
    assert_eq!(story(&world, "ana").await, [told("session_opened", None), closed]);
    world.finish().await;
}

#[tokio::test]
async fn a_connection_comes_back_within_the_grace_on_any_node_and_misses_nothing() {
    let world = World::with(grace(2_000)).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let bobs = bob.login().await;
    let mut socket = Socket::open(&ana).await;
    let hello = socket.hello.clone();
    let mut position = socket.watch(&["bob"]).await["position"].as_i64();
    for node in [1, 0, 1] {
        socket.cut();
        bob.beat_idle(&bobs, 400_000).await.expect(200);
        bob.beat_idle(&bobs, 0).await.expect(200);
        socket = Socket::resume(&world.at_node(&ana, node), &hello, position).await;
        assert_eq!(socket.hello["position"].as_i64(), position);
        socket.say(json!({ "type": "watch", "users": ["bob"] })).await;
        assert_eq!(socket.expect("status_changed").await["status"], "away");
        let frame = socket.expect("status_changed").await;
        assert_eq!(frame["status"], "online");
        position = frame["position"].as_i64();
        let (more, at) = socket.until_pong().await;
        assert_eq!((more, Some(at) >= position), (vec![], true), "each once");
    }
    // The graces of the broken connections end, and leave the session alone.
    let lost = tokio::time::Instant::now() + Duration::from_millis(2_500);
    while tokio::time::Instant::now() < lost {
        assert_eq!(bob.status_word("ana").await, "online");
        assert_eq!(socket.next_within(Duration::from_millis(50)).await, None);
    }
    socket.until_pong().await;
    let resumed = told("session_resumed", None);
    let opened = told("session_opened", None);
    assert_eq!(story(&world, "ana").await, [opened, resumed.clone(), resumed.clone(), resumed]);
    world.finish().await;
}

#[tokio::test]
async fn a_session_is_resumed_by_its_token_alone_and_only_while_it_lives() {
    let world = World::with(grace(300)).await;
    let (ana, eve) = (world.user("ana"), world.user("eve"));
    let socket = Socket::open(&ana).await;
    let hello = socket.hello.clone();
    let mut forged = hello.clone();
    forged["resume_token"] = json!("00".repeat(32));
    for (client, hello) in [(&ana, &forged), (&eve, &hello)] {
        let mut other = Socket::connect(client, resume_frame(hello, None)).await;
        assert_eq!(other.expect("error").await["code"], "resume_refused");
        let own = other.expect("hello").await;
        assert_ne!(own["session_id"], hello["session_id"], "it has one of its own");
        other.close(1000).await;
    }
    socket.cut();
    let closed = told("session_closed", Some("lost_carrier"));
    tests::eventually("the grace is over", async || story(&world, "ana").await.contains(&closed))
        .await;
    let mut late = Socket::connect(&ana, resume_frame(&hello, Some(1 << 40))).await;
    assert_eq!(late.expect("error").await["code"], "cursor_expired");
    assert_eq!(late.expect("error").await["code"], "session_closed");
    assert_eq!(late.expect("hello").await["resumed"], false);
    world.finish().await;
}

#[tokio::test]
async fn a_wish_to_resume_that_comes_late_is_followed_and_the_other_session_ends() {
    let world = World::with(grace(5_000)).await;
    let ana = world.user("ana");
    let socket = Socket::open(&ana).await;
    let hello = socket.hello.clone();
    socket.cut();
    let bearer = format!("Bearer {}", ana.token.as_deref().unwrap());
    let mut late = Socket::knock(&ana, &[("authorization", &bearer)]).await.unwrap();
    let other = late.expect("hello").await;
    assert_ne!(other["session_id"], hello["session_id"]);
    late.say(resume_frame(&hello, hello["position"].as_i64())).await;
    let resumed = late.expect("hello").await;
    let (session, position) = (&resumed["session_id"], &resumed["position"]);
    assert_eq!((session, position), (&hello["session_id"], &hello["position"]));
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["count"], 1, "{sessions}");
    late.say(resume_frame(&hello, None)).await;
    assert_eq!(late.expect("error").await["code"], "not_first");
    late.close(1000).await;
    assert_eq!(ana.status_word("ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over_from_the_first() {
    let world = World::with(grace(300)).await;
    let ana = world.user("ana");
    let mut first = Socket::open(&ana).await;
    let hello = first.hello.clone();
    let mut second = Socket::resume(&ana, &hello, None).await;
    assert_eq!(first.close_code().await, 4409);
    second.until_pong().await;
    second.close(1000).await;
    assert_eq!(ana.status_word("ana").await, "offline");
    world.finish().await;
}

#[tokio::test]
async fn a_second_connection_on_another_node_takes_the_session_over_as_well() {
    for says_goodbye in [false, true] {
        let mut world = World::with(grace(300)).await;
        let ana = world.user("ana");
        let mut first = Socket::open(&ana).await;
        let hello = first.hello.clone();
        let there = world.at_node(&ana, 1);
        let mut second = Socket::resume(&there, &hello, None).await;
        if says_goodbye {
            first.close(1000).await;
        } else {
            assert_eq!(first.close_code().await, 4409);
        }
        // It waits for what its connections leave behind.
        world.stop_node(0).await;
        second.until_pong().await;
        assert_eq!(there.status_word("ana").await, "online");
        assert_eq!(world.count("ana", "session_closed").await, 0);
        second.close(1000).await;
        tests::eventually("that was hers", async || there.status_word("ana").await == "offline")
            .await;
        world.finish().await;
    }
}

#[tokio::test]
async fn heartbeats_renew_the_lease_and_turn_the_session_idle_and_active() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let mut socket = Socket::open(&ana).await;
    for (idle_ms, word) in [(400_000, "away"), (0, "online"), (10, "online")] {
        world.advance_s(60).await;
        socket.say(json!({ "type": "heartbeat", "idle_ms": idle_ms, "ref": idle_ms })).await;
        assert_eq!(socket.expect("ack").await["ref"], idle_ms);
        assert_eq!(bob.status_word("ana").await, word);
    }
    assert_eq!(world.count("ana", "heartbeat").await, 3);
    // A connection alone says nothing of the person: without heartbeats the lease ends.
    world.advance_s(121).await;
    assert_eq!(socket.close_code().await, 4410);
    let expired = told("session_expired", Some("lost_carrier"));
    assert_eq!(story(&world, "ana").await.last(), Some(&expired));
    world.finish().await;
}

#[tokio::test]
async fn a_session_that_is_ended_elsewhere_ends_its_connection() {
    let world = World::with_nodes(2).await;
    let (ana, admin) = (world.user("ana"), world.admin());
    let mut here = Socket::open(&ana).await;
    let mut there = Socket::open(&world.at_node(&ana, 1)).await;
    admin.delete("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(here.close_code().await, 4410);
    assert_eq!(there.close_code().await, 4410);
    world.finish().await;
}

#[tokio::test]
async fn the_sixty_fifth_session_is_refused() {
    let world = World::start().await;
    let ana = world.user("ana");
    for _ in 0..64 {
        ana.login().await;
    }
    let mut socket = Socket::connect(&ana, json!({ "type": "open" })).await;
    assert_eq!(socket.expect("error").await["code"], "too_many_sessions");
    assert_eq!(socket.close_code().await, 1008);
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_taken_for_broken() {
    let live = LiveSettings {
        ping_every: Duration::from_millis(300),
        pong_max: Duration::from_millis(200),
        ..LiveSettings::default()
    };
    let world = World::with(Options { live, ..grace(200) }).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    // Nobody reads it, and so nobody answers.
    let deaf = Socket::open(&ana).await;
    let mut live = Socket::open(&bob).await;
    tests::eventually("it is given up", async || {
        drop(live.next_within(Duration::from_millis(20)).await);
        bob.status_word("ana").await == "offline"
    })
    .await;
    live.until_pong().await;
    deaf.cut();
    world.finish().await;
}
