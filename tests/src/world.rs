//! Nodes on one database, and what every test ends with.

use std::str::FromStr;
use std::time::Duration;

use api::auth::Role;
use api::compat::CompatSettings;
use api::live::LiveSettings;
use domain::{Policy, Timestamp};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::client::{self, Client};
use crate::cluster::{self, TestDatabase};
use crate::node::TestNode;
use crate::{clock, invariants};

/// How a test's nodes are to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// The policy that the database is seeded with.
    pub policy: Policy,
    /// Requests per second and subject.
    pub rate_per_second: u32,
    /// Requests that a subject may send at once.
    pub rate_burst: u32,
    /// Jobs that may wait before a node's log.
    pub queue_max: usize,
    /// Which replaced systems' clients are served.
    pub compat: CompatSettings,
    /// What live feeds are like.
    pub live: LiveSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            policy: Policy::default(),
            rate_per_second: 100_000,
            rate_burst: 100_000,
            queue_max: 50_000,
            compat: CompatSettings::default(),
            live: LiveSettings::default(),
        }
    }
}

/// One test's database and nodes. Ends with [`World::finish`]; forgetting it fails the test.
#[derive(Debug)]
pub struct World {
    /// The nodes, the first of which most tests talk to.
    pub nodes: Vec<TestNode>,
    /// The way to the database as its owner.
    pub pool: PgPool,
    /// The database.
    pub database: TestDatabase,
    options: Options,
    http: reqwest::Client,
    finished: bool,
}

impl World {
    /// One node on a fresh database.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// So many nodes on a fresh database.
    pub async fn with_nodes(nodes: usize) -> Self {
        Self::with(Options { nodes, ..Options::default() }).await
    }

    /// As the options say.
    pub async fn with(options: Options) -> Self {
        let database = cluster::database().await;
        let connect = PgConnectOptions::from_str(&database.url)
            .unwrap()
            .options([("search_path", cluster::SEARCH_PATH), ("timezone", "UTC")]);
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(connect);
        let mut nodes = Vec::new();
        for _ in 0..options.nodes {
            nodes.push(TestNode::start(&database.url, &options).await);
        }
        let http = client::http();
        Self { nodes, pool, database, options, http, finished: false }
    }

    /// Starts one more node.
    pub async fn add_node(&mut self) {
        let node = TestNode::start(&self.database.url, &self.options).await;
        self.nodes.push(node);
    }

    /// Stops a node cleanly.
    pub async fn stop_node(&mut self, index: usize) {
        self.nodes.remove(index).stop().await;
    }

    /// Somebody at the first node, with these roles.
    pub fn client(&self, user_id: &str, roles: &[Role]) -> Client {
        let token = client::token(user_id, roles);
        Client::new(self.http.clone(), &self.nodes[0].base_url, Some(token))
    }

    /// A person.
    pub fn user(&self, user_id: &str) -> Client {
        self.client(user_id, &[Role::User])
    }

    /// A backend, named `backend`.
    pub fn service(&self) -> Client {
        self.client("backend", &[Role::Service])
    }

    /// An administrator, named `root`.
    pub fn admin(&self) -> Client {
        self.client("root", &[Role::Admin])
    }

    /// An auditor, named `auditor`.
    pub fn auditor(&self) -> Client {
        self.client("auditor", &[Role::Auditor])
    }

    /// Somebody without a token.
    pub fn nobody(&self) -> Client {
        Client::new(self.http.clone(), &self.nodes[0].base_url, None)
    }

    /// The same client at another node.
    pub fn at_node(&self, client: &Client, index: usize) -> Client {
        client.at(&self.nodes[index].base_url)
    }

    /// Time passes, while the nodes listen.
    pub async fn advance(&self, by: Duration) {
        clock::advance(&self.pool, &self.nodes, by).await;
    }

    /// So many seconds pass, while the nodes listen.
    pub async fn advance_s(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds)).await;
    }

    /// Time passes in one jump, as if no node had listened.
    pub async fn outage(&self, by: Duration) {
        clock::outage(&self.pool, &self.nodes, by).await;
    }

    /// The database's now.
    pub async fn now(&self) -> Timestamp {
        clock::now(&self.pool).await
    }

    /// The log's head.
    pub async fn head(&self) -> i64 {
        let head = sqlx::query_scalar("select head from batch order by batch_no desc limit 1");
        head.fetch_optional(&self.pool).await.unwrap().unwrap_or(0)
    }

    /// How many events the log has, heartbeats included.
    pub async fn events(&self) -> i64 {
        sqlx::query_scalar("select count(*) from event").fetch_one(&self.pool).await.unwrap()
    }

    /// How many events of this type a user has.
    pub async fn count(&self, user_id: &str, name: &str) -> i64 {
        sqlx::query_scalar(
            "select count(*) from event join account using (user_no)
             where user_id = $1 and type::text = $2",
        )
        .bind(user_id)
        .bind(name)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// A user's transitions as an auditor reads them, oldest first.
    pub async fn transitions(&self, user_id: &str) -> Vec<Value> {
        let path = format!("/v1/users/{user_id}/transitions?limit=1000");
        let page = self.auditor().get(&path).await.expect(200);
        page["items"].as_array().unwrap().clone()
    }

    /// The events of one type, as an auditor reads the log at a node that has all of it.
    pub async fn logged(&self, name: &str) -> Vec<Value> {
        assert!(self.nodes[0].realm().reached(self.head().await).await);
        let page = self.auditor().get("/v1/log?limit=1000").await.expect(200);
        let items = page["items"].as_array().unwrap().iter();
        items.filter(|event| event["type"] == name).cloned().collect()
    }

    /// Asserts the invariants, stops the nodes, drops the database.
    pub async fn finish(self) {
        invariants::check(&self.pool, &self.nodes).await;
        self.abandon().await;
    }

    /// The end of a world that was broken by hand: nothing is asserted.
    pub async fn abandon(mut self) {
        self.finished = true;
        for node in std::mem::take(&mut self.nodes) {
            node.stop().await;
        }
        self.pool.close().await;
        self.database.clone().drop().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let forgotten = !self.finished && !std::thread::panicking();
        assert!(!forgotten, "a test ends with `world.finish().await`");
    }
}
