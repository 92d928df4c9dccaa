//! Several servers on one database, which are killed and come back at the same addresses.

use std::net::TcpListener;

use api::auth::Role;

use super::audit::Audit;
use super::scratch::Scratch;
use super::{Serve, Server};
use crate::Client;
use crate::client;
use crate::cluster::{self, TestDatabase};

/// Ports that no system gives to who connects. Whoever calls a server that is away would get the
/// port of its own at times, be answered by himself, and keep the server away.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// Sessions that only a logout or a grace ends, in milliseconds.
const LEASE_MS: &str = "3600000";

/// The servers.
#[derive(Debug)]
pub struct Nodes {
    scratch: Scratch,
    /// What they have in common.
    pub database: TestDatabase,
    /// The way past them.
    pub audit: Audit,
    serves: Vec<Serve>,
    servers: Vec<Option<Server>>,
    base_urls: Vec<String>,
    http: reqwest::Client,
}

impl Nodes {
    /// Starts so many, with long leases and this grace.
    pub async fn start(count: usize, grace_ms: u32) -> Self {
        let scratch = Scratch::new();
        let database = cluster::empty_database().await;
        let audit = Audit::connect(&database.url).await;
        let grace_ms = grace_ms.to_string();
        let mut nodes = Self {
            database,
            audit,
            serves: Vec::new(),
            servers: Vec::new(),
            base_urls: Vec::new(),
            http: client::http(),
            scratch,
        };
        for n in 0..count {
            let address = format!("127.0.0.1:{}", free_port());
            let serve = Serve::new(&nodes.scratch.join(&n.to_string()))
                .database(&nodes.database.url)
                .args(["--listen", &address, "--lease-ms", LEASE_MS, "--grace-ms", &grace_ms])
                .args(["--rate-per-second", "100000", "--rate-burst", "100000"]);
            nodes.servers.push(Some(serve.start().await));
            nodes.serves.push(serve);
            nodes.base_urls.push(format!("http://{address}"));
        }
        nodes
    }

    /// Somebody at one of them, whether it runs or not.
    pub fn client(&self, index: usize, user_id: &str, role: Role) -> Client {
        let token = client::token(user_id, &[role]);
        Client::new(self.http.clone(), &self.base_urls[index], Some(token))
    }

    /// The same somebody at each of them.
    pub fn clients(&self, user_id: &str, role: Role) -> Vec<Client> {
        let first = self.client(0, user_id, role);
        self.base_urls.iter().map(|base_url| first.at(base_url)).collect()
    }

    /// One that runs.
    pub fn server(&self, index: usize) -> &Server {
        self.servers[index].as_ref().expect("it runs")
    }

    /// Ends one as `kill -9` does.
    pub async fn kill(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").kill().await;
    }

    /// Starts one that was killed, and waits until it may be called.
    pub async fn start_again(&mut self, index: usize) {
        assert!(self.servers[index].is_none(), "it runs");
        self.servers[index] = Some(self.serves[index].start().await);
    }

    /// Ends those that run, cleanly, and drops the database.
    pub async fn end(self) {
        for server in self.servers.into_iter().flatten() {
            assert_eq!(server.stop().await.code(), Some(0));
        }
        self.audit.pool().close().await;
        self.database.drop().await;
    }
}

fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
