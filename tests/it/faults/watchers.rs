//! Two nodes that are killed in turn, and both at once, while people change and watchers' own
//! connections break: each watcher ends with every change once, in order, and the right picture.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::auth::Role;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::feed::Kind;
use tests::process::nodes::Nodes;
use tests::process::wait::until;
use tests::race::{self, Picture, Race};
use tests::{Client, invariants, size, within};
use tokio::task::JoinHandle;
use tokio::time::interval;

const USERS: usize = 20;
/// One by one, in turn. Then once both.
const KILLS: usize = 4;
const GRACE_MS: u32 = 120_000;
/// Changes that the slowest watcher may lie behind before those who write wait for it a little:
/// more than these, and a listener's queue overflows all the time.
const BEHIND_MAX: usize = 400;
/// Looks for that, one every [`LOOK_EVERY`]: who has lost its node is not waited for longer.
const LOOKS_MAX: usize = 40;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A part of the writing, however many watch.
const PROGRESS_MAX: Duration = Duration::from_mins(10);
/// For the last watcher to hear the last change.
const END_MAX: Duration = Duration::from_mins(2);

/// Those who write.
struct Writing {
    race: Arc<Race>,
    /// Changes of each user.
    rounds: usize,
    written: AtomicUsize,
    /// Where the last of them are.
    latest: Mutex<VecDeque<i64>>,
}

impl Writing {
    /// One user's statuses change, at either node. What was not answered is said again.
    async fn write(self: Arc<Self>, nodes: Vec<Client>, user: String) {
        let path = format!("/v1/users/{user}/claims/manual");
        for round in 0..self.rounds {
            let status = ["busy", "dnd", "away", "online"][round % 4];
            let body = json!({ "status": status });
            let mut pauses = interval(LOOK_EVERY);
            let position = loop {
                let node = &nodes[fastrand::usize(..nodes.len())];
                let answer = node.request(Method::PUT, &path).json(&body).send().await;
                if let Ok(answer) = answer {
                    let status = answer.status().as_u16();
                    assert!([200, 503].contains(&status), "{}", answer.text().await.unwrap());
                    if status == 200
                        && let Ok(told) = answer.json::<Value>().await
                    {
                        break told["position"].as_i64().unwrap();
                    }
                }
                pauses.tick().await;
            };
            self.written.fetch_add(1, Ordering::Relaxed);
            self.pace(position).await;
        }
    }

    async fn pace(&self, position: i64) {
        let behind = {
            let mut latest = self.latest.lock().unwrap();
            latest.push_back(position);
            if latest.len() > BEHIND_MAX { latest.pop_front() } else { None }
        };
        let mut looks = interval(LOOK_EVERY);
        for _ in 0..LOOKS_MAX {
            if behind.is_none_or(|position| self.race.slowest() >= position) {
                return;
            }
            looks.tick().await;
        }
    }
}

/// Kills one node after the other as the writing goes on, then both. How long they were away.
async fn kill_them(nodes: &mut Nodes, writing: &Writing) -> Vec<Duration> {
    let mut away = Vec::new();
    for round in 0..=KILLS {
        let due = USERS * writing.rounds * (round + 1) / (KILLS + 2);
        within(PROGRESS_MAX, "so much is written", async || {
            writing.written.load(Ordering::Relaxed) >= due
        })
        .await;
        let began = Instant::now();
        let killed = if round < KILLS { round % 2..round % 2 + 1 } else { 0..2 };
        for index in killed.clone() {
            nodes.kill(index).await;
        }
        for index in killed {
            nodes.start_again(index).await;
        }
        away.push(began.elapsed());
    }
    away
}

/// One who watches, over a stream or a WebSocket, at either node.
fn follow(nodes: &Nodes, race: &Arc<Race>, number: usize) -> JoinHandle<Picture> {
    let (kind, role) = match number % 2 {
        0 => (Kind::Stream, Role::Analyst),
        _ => (Kind::Socket, Role::User),
    };
    let watcher = nodes.clients(&format!("w{number}"), role);
    tokio::spawn(Arc::clone(race).follow(number, kind, watcher))
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_node_is_killed_each_watcher_hears_every_change_once_in_order() {
    api::serve::raise_open_files_limit();
    let (watchers, changes) = (size::races(100, 5), size::races(500, 1));
    let mut nodes = Nodes::start(2, GRACE_MS).await;
    let users: Vec<String> = (0..USERS).map(|n| format!("u{n}")).collect();
    for user in &users {
        nodes.client(0, user, Role::User).login().await;
    }
    let began = Instant::now();
    let cut_after_max = (changes / 4).max(2);
    let race = Race::new(watchers, None, cut_after_max);
    let following: Vec<_> = (0..watchers).map(|n| follow(&nodes, &race, n)).collect();
    within(PROGRESS_MAX, "all watch", async || race.slowest() > 0).await;
    race.rush();
    println!("{watchers} watch after {:?}", began.elapsed());

    let began = Instant::now();
    let writing = Arc::new(Writing {
        race: Arc::clone(&race),
        rounds: changes / USERS,
        written: AtomicUsize::new(0),
        latest: Mutex::default(),
    });
    let writers = users.iter().map(|user| {
        let at_nodes = nodes.clients(user, Role::User);
        tokio::spawn(Arc::clone(&writing).write(at_nodes, user.clone()))
    });
    let writers: Vec<_> = writers.collect();
    let away = kill_them(&mut nodes, &writing).await;
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let written = began.elapsed();
    let pool = nodes.audit.pool();
    race.finish(*race::changes(pool, None).await.last().unwrap());
    let pictures = tokio::time::timeout(END_MAX, join_all(following)).await;
    let pictures = pictures.expect("everybody hears the last change");
    let pictures: Vec<_> = pictures.into_iter().map(Result::unwrap).collect();
    let heard: usize = pictures.iter().map(|picture| picture.changes.len()).sum();
    println!(
        "{changes} changes in {written:?}, {heard} times heard, the last {:?} later; {} \
         connections, {} too slow; nodes away for {away:?}",
        began.elapsed().saturating_sub(written),
        race.connections.load(Ordering::Relaxed),
        race.too_slow.load(Ordering::Relaxed),
    );

    let logged = race::changes(pool, None).await;
    let path = format!("/v1/status?users={}", users.join(","));
    for index in 0..2 {
        let reader = nodes.client(index, "u0", Role::User);
        // Both as of the end.
        let path = format!("{path}&min_position={}", logged.last().unwrap());
        let read = until("it has read the log", END_MAX, async || {
            let answer = reader.get(&path).await;
            (answer.status != 503).then_some(answer)
        });
        race.check(&pictures, &logged, &read.await.expect(200));
    }
    assert_eq!(race::changes(pool, Some(&users)).await.len(), USERS * (writing.rounds + 1));
    assert_eq!(nodes.audit.count("session_expired").await, 0);
    invariants::check(pool, &[]).await;
    nodes.end().await;
}
