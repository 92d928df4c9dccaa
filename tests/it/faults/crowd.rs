//! A crowd: idle WebSockets by the thousand, vandals, and readers that do not read. Those who
//! listen beside them hear of a change as soon as without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::auth::Role;
use futures::future::{join, join_all};
use serde_json::{Value, json};
use tests::feed::{self, Kind};
use tests::process::nodes::Nodes;
use tests::race::Race;
use tests::{Client, size, within, ws};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A session that a vandal leaves behind is over soon: a user has 64 at most.
const GRACE_MS: u32 = 500;
const LISTENERS: usize = 20;
const CONNECTED_MAX: Duration = Duration::from_mins(5);
const HEARD_MAX: Duration = Duration::from_secs(30);
/// A crowd may cost those beside it so much, as a factor of what they wait without it. On a
/// machine that others keep busy, and with a debug build, that says little: then see `SLACK`.
const FACTOR_MAX: f64 = 1.5;
/// What is left to chance in every run.
const SLACK: Duration = Duration::from_millis(500);
/// What a node may take for each connection, in bytes.
const MEMORY_EACH_MAX: u64 = 128 << 10;
/// A vandal who hears nothing for so long goes.
const ANSWERED_WITHIN: Duration = Duration::from_millis(20);
/// Pause of a vandal between two connections.
const RAGE_PAUSE: Duration = Duration::from_millis(500);
/// What readers that do not read leave to the system to keep, in bytes.
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;

/// What one of those who listen heard, and when.
type Heard = mpsc::Receiver<(Instant, Vec<u8>)>;

/// Those who listen, and the one they listen to.
struct Ears {
    star: Client,
    heard: Vec<Heard>,
    _listening: JoinSet<()>,
}

impl Ears {
    async fn open(nodes: &Nodes) -> Self {
        let star = nodes.client(0, "u0", Role::User);
        star.login().await;
        let mut listening = JoinSet::new();
        let mut heard = Vec::new();
        for n in 0..LISTENERS {
            let client = nodes.client(0, &format!("l{n}"), Role::User);
            let users = ["u0".to_owned()];
            let opened = feed::open_socket(&client, Some(&users), &mut Value::Null, None).await;
            let mut socket = opened.unwrap();
            socket.next_with(b"\"snapshot\"").await.unwrap();
            let (tell, hear) = mpsc::channel(1);
            heard.push(hear);
            // Also while nothing is measured: who answers no ping is taken for broken.
            listening.spawn(async move {
                while let Ok(text) = socket.next().await {
                    let told = (Instant::now(), text.to_vec());
                    tell.send(told).await.unwrap();
                }
            });
        }
        Self { star, heard, _listening: listening }
    }

    /// Lets so many changes happen; how long those took to be heard, the 99th of a hundred.
    async fn measure(&mut self, changes: usize) -> Duration {
        let mut took = Vec::new();
        for round in 0..changes {
            let status = if round % 2 == 0 { "busy" } else { "online" };
            let began = Instant::now();
            let hear = self.heard.iter_mut().map(async |heard| {
                let told = timeout(HEARD_MAX, heard.recv()).await.expect("it is told");
                let (at, text) = told.expect("the connection stands");
                assert!(ws::contains(&text, status.as_bytes()), "{status}");
                at - began
            });
            let body = json!({ "status": status });
            let write = self.star.put("/v1/users/u0/claims/manual", body);
            let (heard, written) = join(join_all(hear), write).await;
            written.expect(200);
            took.extend(heard);
        }
        took.sort();
        took[took.len() * 99 / 100]
    }
}

/// Frames that no client should send; each of them is answered, or ends its connection.
fn vandalism(round: usize) -> Vec<u8> {
    match round % 5 {
        // One byte longer than a frame may be.
        0 => {
            let length = api::limits::FRAME_BYTES_MAX + 1;
            let mut frame = vec![0x81, 0x80 | 127];
            frame.extend((length as u64).to_be_bytes());
            frame.resize(frame.len() + 4 + length, 0);
            frame
        }
        1 => ws::text_frame("{\"type\":\"watch\",\"users\":[7]").repeat(20),
        2 => vec![0xff; 300],
        // Not in UTF-8.
        3 => vec![0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28],
        _ => ws::text_frame("{\"type\":\"ping\"}").repeat(500),
    }
}

/// Comes again and again, says such things, and hears how that ends.
async fn rage(client: Client, ended: Arc<AtomicUsize>, stop: CancellationToken) {
    for round in 0.. {
        let users = ["u1".to_owned()];
        let opened = feed::open_socket(&client, Some(&users), &mut Value::Null, None).await;
        if let Ok(mut socket) = opened {
            let said = async {
                socket.send(&vandalism(round)).await?;
                loop {
                    // What is answered and not ended is left after a while.
                    match timeout(ANSWERED_WITHIN, socket.next()).await {
                        Ok(heard) => drop(heard?),
                        Err(_) => return Ok::<_, std::io::Error>(()),
                    }
                }
            };
            drop(timeout(HEARD_MAX, said).await.expect("it is answered or ended"));
            ended.fetch_add(1, Ordering::Relaxed);
        }
        drop(timeout(RAGE_PAUSE, stop.cancelled()).await);
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Watches everybody, and reads nothing until it is over.
async fn doze(client: Client, stop: CancellationToken) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let address = client.base_url.strip_prefix("http://").unwrap().parse().unwrap();
    let tcp = socket.connect(address).await.unwrap();
    let mut socket = ws::Socket::open(tcp, client.token.as_deref().unwrap()).await.unwrap();
    let frames = ["{\"type\":\"open\"}", "{\"type\":\"watch\"}"];
    socket.send(&frames.map(ws::text_frame).concat()).await.unwrap();
    stop.cancelled().await;
}

/// Somebody whom only those hear who watch everybody: changes all the time, at great length.
async fn babble(client: Client, stop: CancellationToken) {
    client.login().await;
    let mut round = 0_u64;
    while !stop.is_cancelled() {
        round += 1;
        let status = if round.is_multiple_of(2) { "busy" } else { "dnd" };
        let body = json!({ "status": status, "text": format!("{round:0450}") });
        client.put("/v1/users/babbler/claims/manual", body).await.expect(200);
    }
}

async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.with_token(None).get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_idlers_vandals_and_sleepers_holds_nobody_up() {
    api::serve::raise_open_files_limit();
    let (idlers, changes) = (size::races(500, 1), size::races(30, 20));
    let vandals = size::races(4, 500);
    let nodes = Nodes::start(1, GRACE_MS).await;
    let mut ears = Ears::open(&nodes).await;
    let stop = CancellationToken::new();
    let mut others = JoinSet::new();
    others.spawn(babble(nodes.client(0, "babbler", Role::User), stop.clone()));
    ears.measure(changes / 4 + 1).await; // Nothing is cold from here on.
    let alone = ears.measure(changes).await;
    let memory_before = nodes.server(0).memory_bytes();

    let began = Instant::now();
    let idle = Race::new(idlers, Some(vec!["u1".to_owned()]), usize::MAX);
    for n in 0..idlers {
        let idler = vec![nodes.client(0, &format!("i{n}"), Role::User)];
        let idling = Arc::clone(&idle).follow(n, Kind::Socket, idler);
        others.spawn(async { drop(idling.await) });
    }
    within(CONNECTED_MAX, "all idle", async || idle.slowest() > 0).await;
    let memory_idle = nodes.server(0).memory_bytes();
    let each = memory_idle.saturating_sub(memory_before) / idlers as u64;
    println!("{idlers} idle after {:?}, {each} bytes each", began.elapsed());
    let beside_idlers = ears.measure(changes).await;

    let ended = Arc::new(AtomicUsize::new(0));
    for n in 0..vandals {
        let vandal = nodes.client(0, &format!("v{n}"), Role::User);
        others.spawn(rage(vandal, Arc::clone(&ended), stop.clone()));
        let sleeper = nodes.client(0, &format!("z{n}"), Role::User);
        others.spawn(doze(sleeper, stop.clone()));
    }
    within(HEARD_MAX, "they rage", async || ended.load(Ordering::Relaxed) >= vandals).await;
    let beside_all = ears.measure(changes).await;
    let memory = nodes.server(0).memory_bytes();
    let too_slow = metric(&ears.star, "rollcall_live_too_slow_total").await;
    println!(
        "p99 of {LISTENERS} x {changes}: alone {alone:?}, beside idlers {beside_idlers:?}, beside \
         {} acts of {vandals} vandals, too, and as many who sleep {beside_all:?}; {too_slow} were \
         too slow; memory {memory_before}, {memory_idle}, {memory} bytes",
        ended.load(Ordering::Relaxed),
    );
    assert!(beside_all < alone.mul_f64(FACTOR_MAX) + SLACK, "{alone:?}, {beside_all:?}");
    let memory_max = memory_before + (idlers + 2 * vandals) as u64 * MEMORY_EACH_MAX + (64 << 20);
    assert!(memory < memory_max, "{memory}");
    assert_eq!(idle.connections.load(Ordering::Relaxed), idlers, "nobody else was thrown out");
    stop.cancel();
    idle.finish(0);
    while let Some(ended) = others.join_next().await {
        ended.unwrap();
    }
    drop(ears);
    nodes.end().await;
}
