use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::extract::BodyBytes;

const MS: Duration = Duration::from_millis(1);
/// Bounds what must happen; never waited for when it does.
const SOON: Duration = Duration::from_secs(5);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<()>,
    /// Lets `/wait` answer.
    go: Arc<Notify>,
    /// Told when `/wait` was reached.
    reached: Arc<Notify>,
}

impl Server {
    fn start(limits: ServerLimits) -> Self {
        let (go, reached) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (released, entered) = (Arc::clone(&go), Arc::clone(&reached));
        let wait = move || {
            let (released, entered) = (Arc::clone(&released), Arc::clone(&entered));
            async move {
                entered.notify_one();
                released.notified().await;
                "waited"
            }
        };
        let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string();
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/peer", get(peer))
            .route("/wait", get(wait))
            .route("/small", post(async |BodyBytes(_): BodyBytes<8>| "small"));
        let router = crate::layers::edge(router, &crate::layers::EdgeSettings::default());
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let done = tokio::spawn(async move { serve(listener, router, &limits, token).await });
        Self { address, stop, done, go, reached }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ended(self) {
        tokio::time::timeout(SOON, self.done).await.unwrap().unwrap();
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with(end) {
        let read = tokio::time::timeout(SOON, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(str::from_utf8(&bytes[..read]).unwrap());
    }
    text
}

async fn closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_many_requests_and_handlers_see_the_peer() {
    let server = Server::start(ServerLimits::default());
    let mut stream = server.connect().await;
    for _ in 0..3 {
        send(&mut stream, GET).await;
        assert!(read_until(&mut stream, "here").await.starts_with("HTTP/1.1 200"));
    }
    send(&mut stream, "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut stream, "127.0.0.1").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(ServerLimits::default());
    let mut stream = server.connect().await;
    send(&mut stream, &format!("{GET}{WAIT}{GET}")).await;
    let first = read_until(&mut stream, "here").await;
    assert!(!first.contains("waited"));
    server.go.notify_one();
    let rest = read_until(&mut stream, "here").await;
    assert!(rest.find("waited") < rest.find("here"));
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_though_idle_connections_stay() {
    let limits = ServerLimits { header_read_max: 50 * MS, ..ServerLimits::default() };
    let server = Server::start(limits);
    let mut fresh = server.connect().await;
    assert!(closed(&mut fresh).await, "who connects and says nothing is cut off");
    let mut used = server.connect().await;
    send(&mut used, GET).await;
    read_until(&mut used, "here").await;
    tokio::time::timeout(200 * MS, used.read_u8()).await.expect_err("idle ones stay");
    send(&mut used, GET).await;
    read_until(&mut used, "here").await;
    send(&mut used, "GET / HTTP/1.1\r\nhos").await;
    assert!(closed(&mut used).await, "half a head is cut off");
}

#[tokio::test]
async fn a_connection_that_stays_idle_too_long_is_closed() {
    let limits = ServerLimits { keep_alive_max: 50 * MS, ..ServerLimits::default() };
    let server = Server::start(limits);
    let mut stream = server.connect().await;
    send(&mut stream, GET).await;
    read_until(&mut stream, "here").await;
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn whoever_sent_too_much_still_reads_why_it_was_refused() {
    let server = Server::start(ServerLimits::default());
    let body = "x".repeat(1024 * 1024);
    for _ in 0..20 {
        let mut stream = server.connect().await;
        let head =
            format!("POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1 << 20);
        send(&mut stream, &head).await;
        send(&mut stream, &body).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"));
    }
}

#[tokio::test]
async fn beyond_the_cap_newcomers_wait_until_somebody_leaves() {
    let server = Server::start(ServerLimits { connections_max: 1, ..ServerLimits::default() });
    let mut first = server.connect().await;
    send(&mut first, GET).await;
    read_until(&mut first, "here").await;
    let mut second = server.connect().await;
    send(&mut second, GET).await;
    tokio::time::timeout(50 * MS, second.read_u8()).await.expect_err("not served yet");
    drop(first);
    read_until(&mut second, "here").await;
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_lets_requests_finish() {
    let server = Server::start(ServerLimits::default());
    let (mut idle, mut fresh) = (server.connect().await, server.connect().await);
    send(&mut idle, GET).await;
    read_until(&mut idle, "here").await;
    let mut busy = server.connect().await;
    send(&mut busy, WAIT).await;
    server.reached.notified().await;
    server.stop.cancel();
    assert!(closed(&mut idle).await && closed(&mut fresh).await);
    assert!(!server.done.is_finished());
    server.go.notify_one();
    read_until(&mut busy, "waited").await;
    assert!(closed(&mut busy).await);
    let address = server.address;
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopping_takes_no_longer_than_its_bound() {
    let server = Server::start(ServerLimits { drain_max: 50 * MS, ..ServerLimits::default() });
    let mut stuck = server.connect().await;
    send(&mut stuck, WAIT).await;
    server.reached.notified().await;
    server.stop.cancel();
    assert!(closed(&mut stuck).await);
    server.ended().await;
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_place() {
    async fn upgrade(mut request: axum::extract::Request) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut socket = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            socket.read_exact(&mut bytes).await.unwrap();
            socket.write_all(&bytes).await.unwrap();
        });
        let response = Response::builder().status(101).header("upgrade", "echo");
        response.header("connection", "upgrade").body(Body::empty()).unwrap()
    }
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(upgrade));
    let limits = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let stop = CancellationToken::new();
    tokio::spawn(async move { serve(listener, router, &limits, stop).await });
    let asks = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    send(&mut first, asks).await;
    assert!(read_until(&mut first, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    let mut second = TcpStream::connect(address).await.unwrap();
    send(&mut second, asks).await;
    tokio::time::timeout(50 * MS, second.read_u8()).await.expect_err("no place yet");
    send(&mut first, "ping").await;
    read_until(&mut first, "ping").await;
    drop(first);
    assert!(read_until(&mut second, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
}
