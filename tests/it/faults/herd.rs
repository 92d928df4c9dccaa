//! A herd: everybody who was connected to a node that was killed comes back at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::auth::Role;
use futures::future::join_all;
use serde_json::json;
use tests::feed::Kind;
use tests::process::nodes::Nodes;
use tests::race::{self, Race};
use tests::{Client, invariants, size, within};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const GRACE_MS: u32 = 120_000;
/// Nobody breaks off by himself.
const NEVER: usize = usize::MAX;
/// From the restart until the last one has its session again and has heard what it missed.
const BACK_MAX: Duration = Duration::from_mins(1);
const CONNECTED_MAX: Duration = Duration::from_mins(5);
/// An answer to somebody else meanwhile, of a hundred the slowest.
const PROMPT: Duration = Duration::from_secs(2);
/// Between two questions of the one who looks how prompt a node is.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// A node's own memory, and what it may take for each connection, in bytes.
const MEMORY_OWN_MAX: u64 = 400 << 20;
const MEMORY_EACH_MAX: u64 = 128 << 10;
/// What is written while the node is away.
const MISSED: usize = 8;

/// A quiet client, who reads and sends a heartbeat in turn.
struct Probe {
    stop: CancellationToken,
    asking: JoinHandle<Answers>,
}

/// What it waited, and how often it was told to ask again.
#[derive(Debug, Default)]
struct Answers {
    took: Vec<Duration>,
    refused: usize,
}

impl Probe {
    async fn start(client: Client) -> Self {
        let session = client.login().await;
        let stop = CancellationToken::new();
        let until = stop.clone();
        let asking = tokio::spawn(async move {
            let mut answers = Answers::default();
            let mut pauses = interval(ASK_EVERY);
            pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for round in 0_usize.. {
                pauses.tick().await;
                let began = Instant::now();
                let answer = match round % 2 {
                    0 => client.get("/v1/users/u0/status").await,
                    _ => client.beat(&session).await,
                };
                assert!([200, 503].contains(&answer.status), "{}", answer.text);
                answers.took.push(began.elapsed());
                answers.refused += usize::from(answer.status == 503);
                if until.is_cancelled() {
                    break;
                }
            }
            answers
        });
        Self { stop, asking }
    }

    /// How long an answer took: half of them less than the first, one in a hundred more than the
    /// second, and the longest. And how many were refusals.
    async fn end(self) -> ([Duration; 3], usize) {
        self.stop.cancel();
        let Answers { mut took, refused } = self.asking.await.unwrap();
        took.sort();
        ([took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]], refused)
    }
}

async fn write(client: &Client, times: usize) -> i64 {
    let mut position = 0;
    for round in 0..times {
        let body = json!({ "status": if round % 2 == 0 { "busy" } else { "online" } });
        let told = client.put("/v1/users/u0/claims/manual", body).await.expect(200);
        position = told["position"].as_i64().unwrap();
    }
    position
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_that_comes_back_at_once_is_taken_in_and_holds_nobody_up() {
    api::serve::raise_open_files_limit();
    let count = size::races(300, 2);
    let mut nodes = Nodes::start(2, GRACE_MS).await;
    let star = nodes.client(1, "u0", Role::User);
    star.login().await;
    let began = Instant::now();
    let users = vec!["u0".to_owned()];
    let race = Race::new(count, Some(users.clone()), NEVER);
    let following = (0..count).map(|n| {
        let watcher = vec![nodes.client(0, &format!("w{n}"), Role::User)];
        tokio::spawn(Arc::clone(&race).follow(n, Kind::Socket, watcher))
    });
    let following: Vec<_> = following.collect();
    within(CONNECTED_MAX, "all are connected", async || race.slowest() > 0).await;
    race.rush();
    println!("{count} connected after {:?}", began.elapsed());
    let memory_before = nodes.server(0).memory_bytes();

    let probe = |index: usize| Probe::start(nodes.client(index, "quiet", Role::User));
    let (here, there) = (probe(0).await, probe(1).await);
    let first = write(&star, MISSED).await;
    within(BACK_MAX, "all have heard", async || race.slowest() >= first).await;
    println!("before: at the node {:?}, at the other {:?}", here.end().await, there.end().await);

    let there = probe(1).await;
    race.gate.send_replace(false);
    nodes.kill(0).await;
    let missed = write(&star, MISSED).await;
    nodes.start_again(0).await;
    let began = Instant::now();
    let connected_before = race.connections.load(Ordering::Relaxed);
    race.gate.send_replace(true);
    let here = Probe::start(nodes.client(0, "quiet", Role::User)).await;
    let mut memory_most = 0;
    within(BACK_MAX, "all are back and have heard what they missed", async || {
        memory_most = memory_most.max(nodes.server(0).memory_bytes());
        race.slowest() >= missed
    })
    .await;
    let back = began.elapsed();
    let connections = race.connections.load(Ordering::Relaxed) - connected_before;
    assert!(connections >= count, "{connections}");
    let (here, there) = (here.end().await, there.end().await);
    println!("all back after {back:?}, {connections} connections");
    println!("meanwhile: at the node {here:?}, at the other {there:?}");
    println!("memory: {memory_before} bytes before, at most {memory_most} when they came back");
    assert!(here.0[1] < PROMPT && there.0[1] < PROMPT, "{here:?} {there:?}");
    assert_eq!((here.1, there.1), (0, 0), "nobody is refused for the herd's sake");
    let memory_max = MEMORY_OWN_MAX + count as u64 * MEMORY_EACH_MAX;
    assert!(memory_most < memory_max, "{memory_most}");

    race.finish(write(&star, MISSED).await);
    let pictures = tokio::time::timeout(BACK_MAX, join_all(following)).await;
    let pictures = pictures.expect("all hear the last change");
    let pictures: Vec<_> = pictures.into_iter().map(Result::unwrap).collect();
    let pool = nodes.audit.pool();
    let logged = race::changes(pool, Some(&users)).await;
    race.check(&pictures, &logged, &star.get("/v1/status?users=u0").await.expect(200));
    assert_eq!(nodes.audit.count("session_expired").await, 0);
    // One whose turn came too late for it to hear of has tried again.
    let resumed = nodes.audit.count("session_resumed").await;
    assert!(resumed >= count as i64, "{resumed}");
    invariants::check(pool, &[]).await;
    nodes.end().await;
}
