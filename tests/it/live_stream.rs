//! Server-sent events: a snapshot, then changes, resumed without loss, ended when they must be.

use std::time::Duration;

use api::live::LiveSettings;
use serde_json::{Value, json};
use tests::stream::StreamEvent;
use tests::{EventStream, Options, World};

/// Times that a text comes and goes.
const ROUNDS: usize = 20;

fn told(event: &StreamEvent) -> (&str, &str) {
    let text = |member: &str| event.data[member].as_str().unwrap();
    (text("user_id"), text("status"))
}

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_and_goes_on_with_changes() {
    let world = World::start().await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    let phone = ana.login().await;
    let mut all = EventStream::open(&bob, "/v1/stream", None).await;
    let mut some = EventStream::open(&bob, "/v1/stream?users=ana,nobody", None).await;
    let snapshot = all.expect("snapshot").await;
    assert_eq!(snapshot.data["items"].as_array().unwrap().len(), 1);
    assert_eq!(snapshot.data["items"][0], bob.status("ana").await);
    assert_eq!(snapshot.data["position"].as_i64(), snapshot.id);
    some.expect("snapshot").await;
    bob.login().await;
    ana.beat_idle(&phone, 400_000).await.expect(200);
    let first = all.expect("status_changed").await;
    assert_eq!((told(&first), first.id), (("bob", "online"), first.data["position"].as_i64()));
    assert_eq!(told(&all.expect("status_changed").await), ("ana", "away"));
    assert_eq!(told(&some.expect("status_changed").await), ("ana", "away"));
    world.finish().await;
}

#[tokio::test]
async fn a_stream_that_broke_goes_on_where_it_was_on_any_node_and_after_a_restart() {
    let mut world = World::with_nodes(2).await;
    let (ana, bob) = (world.user("ana"), world.user("bob"));
    ana.login().await;
    let mut stream = EventStream::open(&bob, "/v1/stream", None).await;
    let mut last = stream.expect("snapshot").await.id.unwrap();
    let mut seen = Vec::new();
    for round in 0..12_u32 {
        let status = if round % 2 == 0 { "busy" } else { "dnd" };
        let body = json!({ "status": status });
        ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
        if round % 3 == 2 {
            // The first events of these rounds were told, or were not: it makes no difference.
            drop(stream);
            if round == 8 {
                world.stop_node(1).await;
                world.add_node().await;
            }
            let bob = world.at_node(&bob, (round as usize / 3) % 2);
            stream = EventStream::open(&bob, "/v1/stream?since=0", Some(last)).await;
        }
        while let Some(event) = stream.next_within(Duration::from_millis(300)).await {
            last = event.id.unwrap();
            seen.push(event.data["position"].as_i64().unwrap());
            if event.data["status"] == status {
                break;
            }
        }
    }
    let logged: Vec<i64> = world.logged("claim_set").await.iter().map(position).collect();
    assert_eq!(seen, logged);
    world.finish().await;
}

fn position(event: &serde_json::Value) -> i64 {
    event["position"].as_i64().unwrap()
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_its_node() {
    let mut world = World::with_nodes(2).await;
    let (ana, bob) = (world.user("ana"), world.at_node(&world.user("bob"), 1));
    let phone = ana.login().await;
    let mut own = EventStream::open(&world.at_node(&ana, 1), "/v1/stream", None).await;
    let mut bobs = EventStream::open(&bob, "/v1/stream", None).await;
    own.expect("snapshot").await;
    bobs.expect("snapshot").await;
    ana.delete(&format!("/v1/sessions/{phone}?revoke_token=true")).await.expect(200);
    while let Some(event) = own.next().await {
        assert_eq!(told(&event), ("ana", "offline"), "nothing else");
    }
    bobs.expect("status_changed").await;
    let stopping = tokio::time::Instant::now();
    world.stop_node(1).await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "a stream does not hold its node up");
    assert_eq!(bobs.next().await, None);
    world.finish().await;
}

#[tokio::test]
async fn one_user_may_have_so_many_streams_and_services_more() {
    let world = World::start().await;
    let (ana, service) = (world.user("ana"), world.service());
    let mut streams = Vec::new();
    for _ in 0..api::limits::LIVE_PER_USER_MAX {
        streams.push(EventStream::open(&ana, "/v1/stream", None).await);
        streams.push(EventStream::open(&service, "/v1/stream", None).await);
    }
    let refused = ana.get("/v1/stream").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(429, "too_many_connections");
    drop(EventStream::open(&service, "/v1/stream", None).await);
    streams.clear();
    tests::eventually("there is room again", async || {
        ana.get("/v1/changes?since=0&wait_ms=1").await.status == 200
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn a_text_is_told_with_the_status_that_it_belongs_to_and_nothing_twice() {
    let world = World::with_nodes(2).await;
    let (ana, service) = (world.user("ana"), world.service());
    ana.login().await;
    let mut stream = EventStream::open(&service, "/v1/stream?users=ana", None).await;
    stream.expect("snapshot").await;
    // Written at the other node, so fast that the one that tells of it is told of several at once.
    let (ana, service) = (world.at_node(&ana, 1), world.at_node(&service, 1));
    let guard = async |require: &str, claimed: Value| {
        let claim = json!({ "source": "system:timer", "status": claimed });
        let body = json!({ "action": "timer", "require": [require], "claim": claim });
        service.post("/v1/users/ana/guard", body).await.expect(200);
    };
    for round in 0..ROUNDS {
        let body = json!({ "status": "busy", "text": format!("round {round}") });
        ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
        guard("busy", json!("dnd")).await;
        ana.delete("/v1/users/ana/claims/manual").await.expect(200);
        guard("dnd", Value::Null).await;
    }
    let mut told: Vec<(String, Option<String>)> = Vec::new();
    while told.iter().filter(|(status, _)| status == "online").count() < ROUNDS {
        let item = stream.expect("status_changed").await.data;
        let text = item["text"].as_str().map(str::to_owned);
        match told.last_mut() {
            // A node that is already further on tells a text when it is sure to whom it belongs.
            Some((status, missing)) if *status == item["status"] => {
                assert!(missing.is_none() && text.is_some(), "told twice: {item}");
                *missing = text;
            }
            Some(_) | None => told.push((item["status"].as_str().unwrap().to_owned(), text)),
        }
    }
    for (number, (status, text)) in told.iter().enumerate() {
        assert_eq!(status, ["busy", "dnd", "online"][number % 3], "{told:?}");
        let known = format!("round {}", number / 3);
        assert!(text.is_none() || (status == "busy" && *text == Some(known)), "{told:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn who_does_not_read_is_told_so_and_goes_on_where_it_was_while_others_do() {
    let live = LiveSettings { listener_queue_max: 64, ..LiveSettings::default() };
    let world = World::with(Options { live, ..Options::default() }).await;
    let (bob, eve) = (world.user("bob"), world.user("eve"));
    let users: Vec<_> = (0..32).map(|n| world.user(&format!("u{n}"))).collect();
    futures::future::join_all(users.iter().map(tests::Client::login)).await;
    let mut slow = EventStream::open(&eve, "/v1/stream", None).await;
    let mut last = slow.expect("snapshot").await.id;
    let mut quick = EventStream::open(&bob, "/v1/stream", None).await;
    quick.expect("snapshot").await;
    // Four bytes each.
    let text = "\u{1f40c}".repeat(400);
    let mut rounds = 0_u32;
    let mut written = Vec::new();
    // Nobody reads `slow`: sooner or later the system's buffers are full, then its queue. Many
    // write, so that this is sooner than a connection that stalls is given up.
    while world.nodes[0].live().hub.listeners() == 2 {
        rounds += 1;
        let status = if rounds.is_multiple_of(2) { "busy" } else { "dnd" };
        let body = json!({ "status": status, "text": format!("{rounds}{text}") });
        let write = users.iter().enumerate().map(async |(n, user)| {
            let path = format!("/v1/users/u{n}/claims/manual");
            user.put(&path, body.clone()).await.expect(200);
        });
        futures::future::join_all(write).await;
        for _ in &users {
            let event = quick.expect("status_changed").await;
            assert_eq!(event.data["status"], status);
            written.extend(event.id);
        }
        assert!(rounds < 2_000, "the system's buffers have an end");
    }
    let mut heard = Vec::new();
    let mut told_why = false;
    while let Some(event) = slow.next().await {
        assert!(!told_why, "the last thing that it hears: {event:?}");
        told_why = event.comment.as_deref() == Some("too_slow");
        heard.extend(event.id);
    }
    assert!(told_why, "{} of {} heard", heard.len(), written.len());
    assert!(heard.len() < written.len(), "it was not waited for");
    last = heard.last().copied().or(last);
    let mut again = EventStream::open(&eve, "/v1/stream", last).await;
    while heard.len() < written.len() {
        heard.extend(again.expect("status_changed").await.id);
    }
    assert_eq!(heard, written, "each once");
    world.finish().await;
}
