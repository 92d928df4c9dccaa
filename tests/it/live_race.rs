//! Everything at once: two nodes, many watchers, connections cut at random. Each watcher ends with
//! every change exactly once, in order, and with the picture that a read gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::auth::Role;
use domain::Policy;
use serde_json::json;
use tests::feed::Kind;
use tests::race::{self, Race};
use tests::{Client, Options, Socket, World};

const USERS: usize = 20;
const ROUNDS: usize = 50;
/// Of each kind.
const WATCHERS: usize = 100;
/// Events of one connection at most.
const CUT_AFTER_MAX: usize = 400;

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
    let race = Race::new(2 * WATCHERS, None, CUT_AFTER_MAX);
    let watchers: Vec<_> = (0..2 * WATCHERS)
        .map(|n| {
            let (kind, role) = match n % 2 {
                0 => (Kind::Stream, Role::Analyst),
                _ => (Kind::Socket, Role::User),
            };
            let watcher = at_nodes(world.client(&format!("w{n}"), &[role]));
            tokio::spawn(Arc::clone(&race).follow(n, kind, watcher))
        })
        .collect();
    tests::eventually("all have a session", async || {
        world.nodes[0].realm().roster().sessions_count() == USERS + WATCHERS
    })
    .await;
    let writers =
        users.iter().map(|user| tokio::spawn(write(at_nodes(world.user(user)), user.clone())));
    for written in futures::future::join_all(writers).await {
        written.unwrap();
    }
    race.finish(*race::changes(&world.pool, None).await.last().unwrap());
    let pictures = futures::future::join_all(watchers).await;
    let pictures: Vec<_> = pictures.into_iter().map(Result::unwrap).collect();
    let logged = race::changes(&world.pool, None).await;
    let path = format!("/v1/status?users={}", users.join(","));
    race.check(&pictures, &logged, &world.user("u0").get(&path).await.expect(200));
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
