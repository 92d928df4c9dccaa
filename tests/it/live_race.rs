//! Everything at once: two nodes, many watchers, connections cut at random. Each watcher ends with
//! every change exactly once, in order, and with the picture that a read gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::Policy;
use serde_json::{Value, json};
use tests::{Client, EventStream, Options, Socket, World};

const USERS: usize = 20;
const ROUNDS: usize = 50;
/// Of each kind.
const WATCHERS: usize = 100;

/// What a watcher has heard.
#[derive(Debug, Default)]
struct Picture {
    /// As of which its first snapshot was.
    began: i64,
    /// Where to go on from.
    position: i64,
    changes: Vec<i64>,
    statuses: BTreeMap<String, String>,
}

impl Picture {
    fn snapshot(&mut self, told: &Value) {
        assert!(self.changes.is_empty(), "nobody is so far behind");
        self.position = told["position"].as_i64().unwrap();
        self.began = self.position;
        for item in told["items"].as_array().unwrap() {
            self.set(item);
        }
    }

    fn change(&mut self, item: &Value) {
        let position = item["position"].as_i64().unwrap();
        assert!(position > self.position, "{position} after {}: {item}", self.position);
        self.position = position;
        self.changes.push(position);
        self.set(item);
    }

    fn set(&mut self, item: &Value) {
        let text = |member: &str| item[member].as_str().unwrap().to_owned();
        self.statuses.insert(text("user_id"), text("status"));
    }
}

/// The race's end: when the last change is known and all is written.
#[derive(Debug, Default)]
struct Finish {
    written: AtomicBool,
    last: std::sync::atomic::AtomicI64,
}

impl Finish {
    fn reached(&self, position: i64) -> bool {
        self.written.load(Ordering::Acquire) && position >= self.last.load(Ordering::Acquire)
    }
}

/// Reads streams, some events of each.
async fn follow_streams(nodes: Vec<Client>, finish: Arc<Finish>) -> Picture {
    let mut picture = Picture::default();
    let mut last = None;
    loop {
        let node = &nodes[fastrand::usize(..nodes.len())];
        let mut stream = EventStream::open(node, "/v1/stream", last).await;
        for _ in 0..fastrand::usize(1..400) {
            if finish.reached(picture.position) {
                return picture;
            }
            let Some(event) = stream.next_within(Duration::from_millis(500)).await else { break };
            match event.event.as_str() {
                "snapshot" => picture.snapshot(&event.data),
                "status_changed" => picture.change(&event.data),
                other => panic!("{other}: {event:?}"),
            }
            last = event.id;
        }
    }
}

/// Opens a WebSocket, cuts it, resumes it on any node.
async fn follow_sockets(nodes: Vec<Client>, finish: Arc<Finish>) -> Picture {
    let mut picture = Picture::default();
    let mut hello: Option<Value> = None;
    loop {
        let node = &nodes[fastrand::usize(..nodes.len())];
        let mut socket = match &hello {
            None => Socket::open(node).await,
            Some(hello) => Socket::resume(node, hello, Some(picture.position)).await,
        };
        socket.say(json!({ "type": "watch" })).await;
        for _ in 0..fastrand::usize(1..400) {
            if finish.reached(picture.position) {
                socket.close(1000).await;
                return picture;
            }
            let Some(frame) = socket.next_within(Duration::from_millis(500)).await else { break };
            match frame["type"].as_str().unwrap() {
                "snapshot" => picture.snapshot(&frame),
                "status_changed" => picture.change(&frame),
                other => panic!("{other}: {frame}"),
            }
        }
        hello = (picture.position > 0).then(|| socket.hello.clone());
        socket.cut();
    }
}

/// One user's statuses change, at either node in turn.
async fn write(nodes: Vec<Client>, user: String) {
    for round in 0..ROUNDS {
        let status = ["busy", "dnd", "away", "online"][round % 4];
        let body = json!({ "status": status });
        let node = &nodes[fastrand::usize(..nodes.len())];
        let path = format!("/v1/users/{user}/claims/manual");
        node.put(&path, body).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_ends_with_every_change_once_in_order_and_the_right_picture() {
    let policy = Policy { grace_ms: 60_000, ..Policy::default() };
    let world = World::with(Options { nodes: 2, policy, ..Options::default() }).await;
    let at_nodes = |client: Client| vec![world.at_node(&client, 0), world.at_node(&client, 1)];
    let began = Instant::now();
    let users: Vec<String> = (0..USERS).map(|n| format!("u{n}")).collect();
    for user in &users {
        world.user(user).login().await;
    }
    let finish = Arc::new(Finish::default());
    let streams = (0..WATCHERS).map(|n| {
        let watcher = world.client(&format!("s{n}"), &[api::auth::Role::Analyst]);
        tokio::spawn(follow_streams(at_nodes(watcher), Arc::clone(&finish)))
    });
    let sockets = (0..WATCHERS).map(|n| {
        let watcher = world.user(&format!("w{n}"));
        tokio::spawn(follow_sockets(at_nodes(watcher), Arc::clone(&finish)))
    });
    let watchers: Vec<_> = streams.chain(sockets).collect();
    tests::eventually("all have a session", async || {
        world.nodes[0].realm().roster().sessions_count() == USERS + WATCHERS
    })
    .await;
    let writers =
        users.iter().map(|user| tokio::spawn(write(at_nodes(world.user(user)), user.clone())));
    for written in futures::future::join_all(writers).await {
        written.unwrap();
    }
    finish.last.store(last_change(&world).await, Ordering::Release);
    finish.written.store(true, Ordering::Release);
    let pictures = futures::future::join_all(watchers).await;
    let logged = changes_of(&world).await;
    let read = world.user("u0").get("/v1/status?limit=1000").await.expect(200);
    for picture in pictures {
        let mut picture = picture.unwrap();
        let last = finish.last.load(Ordering::Acquire);
        let due = logged.iter().copied().filter(|at| *at > picture.began && *at <= last);
        picture.changes.retain(|at| *at <= last);
        assert_eq!(picture.changes, due.collect::<Vec<_>>());
        for item in read["items"].as_array().unwrap() {
            let user = item["user_id"].as_str().unwrap();
            // The watchers themselves leave as they finish.
            if user.starts_with('u') {
                assert_eq!(item["status"], picture.statuses[user], "{user}");
            }
        }
    }
    println!("{} watchers, {} changes in {:?}", 2 * WATCHERS, logged.len(), began.elapsed());
    assert!(logged.len() >= USERS * ROUNDS);
    world.finish().await;
}

/// Far above what a thousand frames take, far below what waiting for anybody would.
const FAN_OUT_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_hear_of_a_change_soon() {
    let world = World::start().await;
    let ana = world.user("ana");
    ana.login().await;
    let users: Vec<Client> = (0..20).map(|n| world.user(&format!("w{n}"))).collect();
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let opened = users.iter().map(async |user| {
            let mut socket = Socket::open(user).await;
            socket.watch(&["ana"]).await;
            socket
        });
        sockets.extend(futures::future::join_all(opened).await);
    }
    let mut took = Vec::new();
    for round in 0..10_u32 {
        let status = if round % 2 == 0 { "busy" } else { "dnd" };
        let began = Instant::now();
        let hear = sockets.iter_mut().map(async |socket| {
            assert_eq!(socket.expect("status_changed").await["status"], status);
            began.elapsed()
        });
        let body = json!({ "status": status });
        let write = ana.put("/v1/users/ana/claims/manual", body);
        let (heard, written) = futures::future::join(futures::future::join_all(hear), write).await;
        written.expect(200);
        took.push(heard.into_iter().max().unwrap());
    }
    took.sort();
    println!("the last of {} heard after {took:?}", sockets.len());
    assert!(took[5] < FAN_OUT_MAX, "{took:?}");
    drop(sockets);
    world.finish().await;
}

async fn last_change(world: &World) -> i64 {
    *changes_of(world).await.last().unwrap()
}

/// The positions of all changes of status.
async fn changes_of(world: &World) -> Vec<i64> {
    sqlx::query_scalar(
        "select position from event where class = 'T' and from_status <> to_status order by 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}
