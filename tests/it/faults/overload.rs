//! Too much at a time: refused at once with 503, never lost; and clients that dawdle.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::auth::Role;
use futures::future::join_all;
use tests::process::Serve;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::scratch::Scratch;
use tests::{client, cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 64;
const ACKS: usize = 600;
const PROGRESS_MAX: Duration = Duration::from_mins(1);
/// The server's limit for heads is 10 s, this test's for whole requests 2 s.
const SLOW_MAX: Duration = Duration::from_secs(16);
/// An answer while others dawdle, on a busy machine.
const PROMPT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_loses_nothing_that_it_took() {
    let scratch = Scratch::new();
    let database = cluster::empty_database().await;
    let serve = Serve::new(&scratch.join("data")).database(&database.url);
    let server = serve.args(["--queue-max", "1"]).start().await;
    let api = Api::at(&server, "planner", Role::Service);
    let load = Load::with_pause(&api, "o", CLIENTS, Duration::ZERO);
    load.progress(ACKS, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    assert!(ledger.busy > 0, "one place in the queue is not enough for {CLIENTS} clients");
    assert_eq!(ledger.busy, ledger.refused, "every request was answered");
    let audit = Audit::connect(&database.url).await;
    audit.holds(&ledger).await;
    println!("acknowledged {}, refused {}", ledger.acks.len(), ledger.busy);
    assert_eq!(server.stop().await.code(), Some(0));
    audit.pool().close().await;
    database.drop().await;
}

/// Sends this and then nothing; what the server says until it hangs up, and when it does.
async fn dawdle(address: SocketAddr, head: String) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let ended = tokio::time::timeout(SLOW_MAX, stream.read_to_end(&mut said)).await;
    ended.expect("the server hangs up").unwrap();
    (String::from_utf8(said).unwrap(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dawdle_are_sent_away_and_hold_nobody_up() {
    const EACH: usize = 150;
    let scratch = Scratch::new();
    let database = cluster::empty_database().await;
    let serve = Serve::new(&scratch.join("data")).database(&database.url);
    let server = serve.args(["--request-timeout-ms", "2000"]).start().await;
    let address = server.address;
    let token = client::token("ana", &[Role::User]);
    let head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned();
    let body = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{{\"idle_ms\":"
    );
    let heads: Vec<_> = (0..EACH).map(|_| tokio::spawn(dawdle(address, head.clone()))).collect();
    let bodies: Vec<_> = (0..EACH).map(|_| tokio::spawn(dawdle(address, body.clone()))).collect();

    let load = Load::start(&Api::at(&server, "planner", Role::Service), "d", 4);
    let ana = Api::at(&server, "ana", Role::User);
    let mut slowest = Duration::ZERO;
    while !heads.iter().all(tokio::task::JoinHandle::is_finished) {
        let began = Instant::now();
        assert_eq!(ana.get("/healthz").await.status, 200);
        slowest = slowest.max(began.elapsed());
        load.progress(1, PROGRESS_MAX).await;
    }
    assert!(slowest < PROMPT, "an answer took {slowest:?}");
    for dawdler in join_all(heads).await {
        let (said, after) = dawdler.unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(after > Duration::from_secs(9), "{after:?}: a head may take 10 s");
    }
    for dawdler in join_all(bodies).await {
        let (said, _) = dawdler.unwrap();
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("retry-after: "), "{said}");
    }
    let ledger = load.stop().await;
    assert_eq!(ledger.refused, 0, "those who are not slow notice nothing");
    let audit = Audit::connect(&database.url).await;
    audit.holds(&ledger).await;
    println!("{EACH} slow heads and bodies: the slowest answer of others took {slowest:?}");
    assert_eq!(server.stop().await.code(), Some(0));
    audit.pool().close().await;
    database.drop().await;
}
