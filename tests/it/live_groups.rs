//! Feeds of groups, and under `visibility: groups`: who comes in is told of, who goes is not.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, EventStream, Socket, World, eventually, within};

/// Within this a membership or a policy holds in every feed, on a busy machine.
const EVERYWHERE_MAX: Duration = Duration::from_secs(5);

async fn join(world: &World, group: &str, user: &str) {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().put(&path, json!({})).await.expect(200);
}

async fn leave(world: &World, group: &str, user: &str) {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().delete(&path).await.expect(200);
}

fn names(items: &Value) -> Vec<&str> {
    items.as_array().unwrap().iter().map(|item| item["user_id"].as_str().unwrap()).collect()
}

async fn set(client: &Client, user: &str, status: &str) {
    let path = format!("/v1/users/{user}/claims/manual");
    client.put(&path, json!({ "status": status })).await.expect(200);
}

/// What a socket was told up to the log's head.
async fn told(world: &World, node: usize, socket: &mut Socket) -> Vec<Value> {
    let head = world.head().await;
    let hub = &world.nodes[node].live().hub;
    eventually("all of the log was published", async || hub.position() >= head).await;
    // A ping may be answered before what waits is sent.
    let mut told = Vec::new();
    loop {
        let (frames, position) = socket.until_pong().await;
        told.extend(frames);
        if position >= head {
            return told;
        }
    }
}

/// Sets one status after another until `hears` says that a watcher no longer hears of it.
async fn until_unheard(client: &Client, user: &str, mut hears: impl AsyncFnMut() -> bool) {
    let mut words = ["busy", "dnd"].into_iter().cycle();
    let deadline = tokio::time::Instant::now() + EVERYWHERE_MAX;
    loop {
        let word = words.next().unwrap();
        set(client, user, word).await;
        if !hears().await {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{user} is still told of");
    }
}

#[tokio::test]
async fn a_groups_feed_tells_of_who_comes_in_and_no_longer_of_who_went() {
    let world = World::with_nodes(2).await;
    for user in ["ana", "ben", "cleo"] {
        world.user(user).login().await;
    }
    join(&world, "team", "ana").await;
    let eve = world.at_node(&world.service(), 1);
    let mut socket = Socket::open(&eve).await;
    let (ack, frames) = socket.ask(json!({ "type": "watch", "groups": ["team"] })).await;
    assert_eq!((ack["type"].as_str(), names(&frames[0]["items"])), (Some("ack"), vec!["ana"]));
    let mut stream = EventStream::open(&eve, "/v1/stream?groups=team", None).await;
    assert_eq!(names(&stream.expect("snapshot").await.data["items"]), ["ana"]);
    let position = eve.get("/v1/changes?groups=team").await.expect(200)["position"].clone();
    let poll = format!("/v1/changes?groups=team&since={position}&wait_ms=20000");
    let polled = tokio::spawn({
        let eve = eve.clone();
        async move { eve.get(&poll).await.expect(200) }
    });
    set(&world.user("ben"), "ben", "busy").await;
    join(&world, "team", "ben").await;
    assert_eq!(socket.expect("snapshot").await["items"], json!([eve.status("ben").await]));
    assert_eq!(names(&stream.expect("snapshot").await.data["items"]), ["ben"]);
    let polled = polled.await.unwrap();
    assert_eq!((&polled["full"], names(&polled["items"])), (&json!(true), vec!["ana", "ben"]));
    // From now on as any other.
    set(&world.user("ben"), "ben", "dnd").await;
    assert_eq!(socket.expect("status_changed").await["status"], "dnd");
    assert_eq!(stream.expect("status_changed").await.data["status"], "dnd");
    leave(&world, "team", "ben").await;
    until_unheard(&world.user("ben"), "ben", async || {
        !told(&world, 1, &mut socket).await.is_empty()
    })
    .await;
    set(&world.user("cleo"), "cleo", "busy").await;
    set(&world.user("ana"), "ana", "busy").await;
    assert_eq!(socket.expect("status_changed").await["user_id"], "ana");
    world.finish().await;
}

/// The same refusal of another group.
fn refused_as(refused: &Value, group: &str) -> Value {
    let mut other = refused.clone();
    other["groups"] = json!([group]);
    other
}

#[tokio::test]
async fn only_members_watch_a_group_and_who_ceases_to_be_one_hears_no_more() {
    let world = World::start().await;
    for user in ["ana", "ben"] {
        world.user(user).login().await;
        join(&world, "team", user).await;
    }
    join(&world, "others", "ben").await;
    let (ana, eve) = (world.user("ana"), world.user("eve"));
    for path in ["/v1/changes?groups=team", "/v1/stream?groups=team"] {
        let refused = eve.get(path).await.problem(403, "forbidden");
        assert_eq!(refused["groups"], json!(["team"]), "the client can go on without it");
        // A group that there is not is refused alike.
        let other = eve.get(&path.replace("team", "none")).await.problem(403, "forbidden");
        assert_eq!(other, refused_as(&refused, "none"));
        let some = ana.get(&format!("{path},others,none")).await.problem(403, "forbidden");
        assert_eq!(some["groups"], json!(["others", "none"]), "those that are not the caller's");
        eve.get(&path.replace("team", "a%20b")).await.problem(422, "invalid_group");
    }
    let mut socket = Socket::open(&ana).await;
    let (_, frames) = socket.ask(json!({ "type": "watch", "groups": ["team"] })).await;
    assert_eq!(names(&frames[0]["items"]), ["ana", "ben"]);
    let (refused, _) = socket.ask(json!({ "type": "watch", "groups": ["team", "others"] })).await;
    assert_eq!((&refused["code"], &refused["groups"]), (&json!("forbidden"), &json!(["others"])));
    leave(&world, "team", "ana").await;
    until_unheard(&world.user("ben"), "ben", async || {
        !told(&world, 0, &mut socket).await.is_empty()
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn who_ceases_to_belong_is_sent_no_more_on_any_connection() {
    let world = World::start().await;
    for user in ["ana", "ben"] {
        world.user(user).login().await;
        join(&world, "team", user).await;
    }
    let (ana, service) = (world.user("ana"), world.service());
    let mut joined = Socket::open(&ana).await;
    joined.ask(json!({ "type": "join", "group": "team" })).await;
    let mut other = Socket::open(&ana).await;
    let say = async |body: &str| {
        let path = "/v1/groups/team/messages";
        service.post(path, json!({ "body": body })).await.expect(202);
    };
    say("while she belongs").await;
    for socket in [&mut joined, &mut other] {
        assert_eq!(socket.find("group").await["body"], "while she belongs");
    }
    leave(&world, "team", "ana").await;
    say("afterwards").await;
    let direct = json!({ "from": "ben", "to": "ana", "body": "hello" });
    service.post("/v1/messages", direct).await.expect(202);
    // What was sent before comes before.
    for socket in [&mut joined, &mut other] {
        let next = loop {
            let frame = socket.next().await.unwrap();
            if frame["type"] == "group" || frame["type"] == "message" {
                break frame;
            }
        };
        assert_eq!(next["body"], "hello");
    }
    world.finish().await;
}

#[tokio::test]
async fn feeds_show_group_mates_alone_and_follow_whom_one_may_see() {
    let world = World::with_nodes(2).await;
    for (user, group) in [("ana", "one"), ("ben", "one"), ("cleo", "two")] {
        world.user(user).login().await;
        join(&world, group, user).await;
    }
    let ana = world.at_node(&world.user("ana"), 1);
    let mut stream = EventStream::open(&ana, "/v1/stream", None).await;
    assert_eq!(stream.expect("snapshot").await.data["items"].as_array().unwrap().len(), 3);
    let mut socket = Socket::open(&ana).await;
    socket.watch(&["ana", "ben", "cleo"]).await;
    // They vanish from what was open before, without a word.
    world.admin().put("/v1/policy", json!({ "visibility": "groups" })).await.expect(200);
    until_unheard(&world.user("cleo"), "cleo", async || {
        told(&world, 1, &mut socket).await.iter().any(|frame| frame["user_id"] == "cleo")
    })
    .await;
    within(EVERYWHERE_MAX, "a poll hides them, too", async || {
        let all = ana.get("/v1/changes").await.expect(200);
        names(&all["items"]) == ["ana", "ben"]
    })
    .await;
    let mut fresh = EventStream::open(&ana, "/v1/stream?users=cleo,ben", None).await;
    assert_eq!(names(&fresh.expect("snapshot").await.data["items"]), ["ben"]);
    set(&world.user("cleo"), "cleo", "online").await;
    set(&world.user("ben"), "ben", "busy").await;
    let heard = socket.find("status_changed").await;
    assert_eq!(heard["user_id"], "ben", "{heard}");
    assert_eq!(fresh.expect("status_changed").await.data["user_id"], "ben");
    // A new mate appears in all of them as she is.
    join(&world, "one", "cleo").await;
    for items in [
        socket.expect("snapshot").await["items"].clone(),
        fresh.expect("snapshot").await.data["items"].clone(),
    ] {
        assert_eq!(items, json!([ana.status("cleo").await]));
    }
    set(&world.user("cleo"), "cleo", "dnd").await;
    assert_eq!(socket.expect("status_changed").await["user_id"], "cleo");
    // Invisible mates are offline there as everywhere.
    let path = "/v1/users/cleo/visibility";
    world.user("cleo").put(path, json!({ "invisible": true })).await.expect(200);
    assert_eq!(socket.expect("status_changed").await["status"], "offline");
    world.finish().await;
}

#[tokio::test]
async fn who_comes_back_is_told_of_those_who_came_in_meanwhile() {
    let world = World::start().await;
    for user in ["ana", "ben"] {
        world.user(user).login().await;
    }
    join(&world, "team", "ana").await;
    let service = world.service();
    let mut stream = EventStream::open(&service, "/v1/stream?groups=team", None).await;
    let id = stream.expect("snapshot").await.id;
    let mut socket = Socket::open(&service).await;
    socket.ask(json!({ "type": "watch", "groups": ["team"] })).await;
    let (_, position) = socket.until_pong().await;
    let hello = socket.hello.clone();
    socket.cut();
    drop(stream);
    set(&world.user("ana"), "ana", "busy").await;
    join(&world, "team", "ben").await;
    let mut stream = EventStream::open(&service, "/v1/stream?groups=team", id).await;
    let missed = stream.expect("status_changed").await.data;
    assert_eq!((&missed["user_id"], &missed["status"]), (&json!("ana"), &json!("busy")));
    assert_eq!(names(&stream.expect("snapshot").await.data["items"]), ["ana", "ben"]);
    let mut socket = Socket::resume(&service, &hello, Some(position)).await;
    socket.say(json!({ "type": "watch", "groups": ["team"] })).await;
    assert_eq!(socket.expect("status_changed").await["status"], "busy");
    assert_eq!(names(&socket.expect("snapshot").await["items"]), ["ana", "ben"]);
    world.finish().await;
}
