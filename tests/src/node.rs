//! One node, hosted in this process.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use api::auth::{AuthSettings, ISSUER_DEFAULT, KeySources, Secret};
use api::layers::EdgeSettings;
use api::limits::RateLimits;
use api::live::Live;
use api::node::{Node, NodeSettings};
use api::serve::ServerLimits;
use axum::http::HeaderValue;
use projections::Realm;
use projections::mailman::Mailman;
use tokio::net::TcpListener;

use crate::world::Options;

/// What the tokens of all tests are signed with.
pub const SECRET: &str = "a secret of the tests, 32 bytes or more";
/// The origin whose pages may call.
pub const ORIGIN: &str = "https://app.example";
/// How long requests in flight may take once a test stops its node.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// A running node.
#[derive(Debug)]
pub struct TestNode {
    /// `http://127.0.0.1:PORT`
    pub base_url: String,
    node: Node,
}

impl TestNode {
    /// Starts one on a free port.
    pub async fn start(database_url: &str, options: &Options) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let settings = NodeSettings {
            database_url: database_url.to_owned(),
            auth: AuthSettings {
                keys: KeySources { secret: Some(Secret(SECRET.to_owned())), jwks: None },
                issuer: ISSUER_DEFAULT.to_owned(),
                audience: ISSUER_DEFAULT.to_owned(),
            },
            rate: RateLimits::new(options.rate_per_second, options.rate_burst),
            seed: options.policy.clone(),
            queue_max: options.queue_max,
            edge: EdgeSettings {
                allow_origins: vec![HeaderValue::from_static(ORIGIN)],
                ..EdgeSettings::default()
            },
            live: options.live.clone(),
            server: ServerLimits { drain_max: DRAIN_MAX, ..ServerLimits::default() },
            compat: options.compat.clone(),
        };
        let node = Node::start(listener, settings).await.unwrap();
        Self { base_url: format!("http://{}", node.address), node }
    }

    /// Its part of the realm.
    pub fn realm(&self) -> &Arc<Realm> {
        &self.node.realm
    }

    /// Its mailman.
    pub fn mail(&self) -> &Arc<Mailman> {
        &self.node.mail
    }

    /// Its live feeds.
    pub fn live(&self) -> &Arc<Live> {
        &self.node.live
    }

    /// Ends it cleanly.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}
