//! A line to PostgreSQL that breaks where it hurts: it reads along, and so knows which messages are
//! an `append` (PostgreSQL's frontend/backend protocol, version 3).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the statement that appends looks like.
const APPEND: &[u8] = b"from append(";
/// The code in an `SSLRequest`, which stands before the first real message.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// What happens to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The line is cut before the request has arrived.
    Unsent,
    /// The line is cut as soon as the request has been passed on.
    Sent,
    /// The request is carried out, and its answer is lost.
    Unanswered,
    /// The last message, which commits, is kept back for as long as the proxy lives: the sender
    /// seems to have stopped in the middle.
    Held,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    /// What will happen to the next appends, first to last.
    faults: Mutex<Vec<Fault>>,
    happened: AtomicUsize,
    /// Every connection ends when it changes.
    cuts: watch::Sender<u64>,
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Between a free TCP port and a Unix socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            socket,
            faults: Mutex::default(),
            happened: AtomicUsize::new(0),
            cuts: watch::Sender::new(0),
        });
        let sharing = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, Arc::clone(&sharing)));
            }
        });
        Self { port, shared, accepting }
    }

    /// The URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://rollcall@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Lets this happen to the next append.
    pub fn plan(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push(fault);
    }

    /// How many planned faults have happened.
    pub fn happened(&self) -> usize {
        self.shared.happened.load(Ordering::SeqCst)
    }

    /// Cuts every connection there is.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

/// One connection, until either side or the proxy ends it.
async fn relay(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(server) = UnixStream::connect(&shared.socket).await else { return };
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let swallow = AtomicBool::new(false);
    let up = Up { from: from_client, to: to_server, shared: &shared, swallow: &swallow };
    tokio::select! {
        _ = up.run() => {}
        _ = down(from_server, to_client, &swallow) => {}
        _ = cuts.changed() => {}
    }
}

/// From the server to the client.
async fn down(
    mut from: ReadHalf<UnixStream>,
    mut to: WriteHalf<TcpStream>,
    swallow: &AtomicBool,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if !swallow.load(Ordering::SeqCst) {
            to.write_all(&bytes[..count]).await?;
        } else if bytes[..count].ends_with(b"Z\0\0\0\x05I") {
            return Ok(()); // Ready for the next query: this one is committed.
        }
    }
}

/// From the client to the server, message by message.
struct Up<'a> {
    from: ReadHalf<TcpStream>,
    to: WriteHalf<UnixStream>,
    shared: &'a Shared,
    swallow: &'a AtomicBool,
}

impl Up<'_> {
    async fn run(mut self) -> std::io::Result<()> {
        self.pass_start().await?;
        let mut appends: HashSet<Vec<u8>> = HashSet::new();
        let mut appending = false;
        loop {
            let kind = self.from.read_u8().await?;
            let length = self.from.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            self.from.read_exact(&mut body).await?;
            let fields: Vec<&[u8]> = body.splitn(3, |byte| *byte == 0).collect();
            match (kind, fields.as_slice()) {
                (b'P', [name, query, ..]) if contains(query, APPEND) => {
                    appends.insert(name.to_vec());
                }
                (b'B', [_, name, ..]) => appending = appends.contains(*name),
                _ => {}
            }
            let fault = (kind == b'S' && appending).then(|| self.next_fault()).flatten();
            match fault {
                Some(Fault::Unsent) => return Ok(()),
                Some(Fault::Held) => {
                    self.to.flush().await?;
                    return std::future::pending().await;
                }
                Some(Fault::Unanswered) => self.swallow.store(true, Ordering::SeqCst),
                Some(Fault::Sent) | None => {}
            }
            let message = [&[kind][..], &length.to_be_bytes(), &body].concat();
            self.to.write_all(&message).await?;
            if fault == Some(Fault::Sent) {
                return Ok(());
            }
            appending &= kind != b'S';
        }
    }

    /// What comes before the first message with a type.
    async fn pass_start(&mut self) -> std::io::Result<()> {
        loop {
            let length = self.from.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            self.from.read_exact(&mut body).await?;
            self.to.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
            if body != SSL_REQUEST {
                return Ok(());
            }
        }
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut faults = self.shared.faults.lock().unwrap();
        let fault = (!faults.is_empty()).then(|| faults.remove(0))?;
        self.shared.happened.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
