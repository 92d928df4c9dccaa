//! A line to a node that goes silent, as a lost network does: nothing arrives, nothing is closed.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The line. It ends when it is dropped.
#[derive(Debug)]
pub struct Line {
    /// `http://127.0.0.1:PORT`, at this end.
    pub base_url: String,
    silent: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

impl Line {
    /// To a node.
    pub async fn to(base_url: &str) -> Self {
        let node = base_url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (silent, hearing) = watch::channel(false);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                relays.spawn(relay(client, node.clone(), hearing.clone()));
            }
        });
        Self { base_url, silent, _accepting: accepting }
    }

    /// Goes silent, or comes back with all that was said meanwhile.
    pub fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

async fn relay(client: TcpStream, node: String, silent: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(&node).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pass(from_client, to_server, silent.clone());
    let down = pass(from_server, to_client, silent);
    // An end of one direction is passed on, and the other one ends by itself.
    let _ = tokio::join!(up, down);
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silent: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await.unwrap_or(0);
        if silent.wait_for(|silent| !silent).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}
