//! One node: a realm, its sweeper and its HTTP, from start to a clean end. Tests host it too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::Policy;
use projections::groups::Groups;
use projections::health::Health;
use projections::mailman::Mailman;
use projections::realm::RealmOptions;
use projections::webhooks::Webhooks;
use projections::{Realm, deliveries, leaves, messages, retention, what_if};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::{self, Auth, AuthSettings};
use crate::compat::{Compat, CompatSettings};
use crate::egress::EgressSettings;
use crate::layers::EdgeSettings;
use crate::limits::RateLimits;
use crate::live::follow::Follower;
use crate::live::{Live, LiveSettings};
use crate::ruler::Ruler;
use crate::serve::{ServerLimits, serve};
use crate::sweeper::Sweeper;
use crate::webhooks::courier::Courier;
use crate::webhooks::sender::Sender;
use crate::{routes, telemetry};

/// Between two looks at what is kept only for a while, and at the log's leaves.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);

/// How a node is to be.
#[derive(Debug)]
pub struct NodeSettings {
    /// Where the database is.
    pub database_url: String,
    /// What tokens must be like.
    pub auth: AuthSettings,
    /// The rate limit per subject.
    pub rate: RateLimits,
    /// The policy of a new database.
    pub seed: Policy,
    /// Jobs that may wait before the log.
    pub queue_max: usize,
    /// What the edge is like.
    pub edge: EdgeSettings,
    /// What live feeds are like.
    pub live: LiveSettings,
    /// What the listener lets in.
    pub server: ServerLimits,
    /// Which replaced systems' clients are served.
    pub compat: CompatSettings,
    /// Whether webhooks may lead into private networks, and use plain HTTP.
    pub webhook_allow_private: bool,
    /// Where the log is handed on to.
    pub egress: Option<EgressSettings>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its part of the realm.
    pub realm: Arc<Realm>,
    /// Its mailman.
    pub mail: Arc<Mailman>,
    /// Its live feeds.
    pub live: Arc<Live>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The database.
    #[error(transparent)]
    Realm(#[from] projections::Error),
    /// The keys of tokens.
    #[error(transparent)]
    Keys(#[from] auth::KeyError),
    /// A client of HTTP, for the chat's login or for webhooks.
    #[error("calling others: {0}")]
    Client(#[from] reqwest::Error),
    /// This program was built without the feature `nats`.
    #[error("--nats-url: this rollcall was built without NATS (cargo build --features nats)")]
    WithoutNats,
    /// The listener.
    #[error("the address cannot be listened on: {0}")]
    Listen(#[from] std::io::Error),
}

impl Node {
    /// Joins the realm and serves on `listener`.
    pub async fn start(listener: TcpListener, settings: NodeSettings) -> Result<Self, NodeError> {
        if settings.egress.is_some() && cfg!(not(feature = "nats")) {
            return Err(NodeError::WithoutNats);
        }
        let address = listener.local_addr()?;
        let auth = Arc::new(Auth::new(settings.auth, settings.rate).await?);
        let compat = Arc::new(Compat::new(settings.compat)?);
        let revoked = Arc::clone(&auth);
        // First: what is counted before there is a recorder is lost.
        let metrics = telemetry::install_metrics();
        let realm = Realm::join(RealmOptions {
            url: settings.database_url,
            queue_max: settings.queue_max,
            seed: Some(settings.seed),
            on_revoked: Box::new(move |revocations| {
                for revocation in revocations {
                    revoked.revocations().revoke(&revocation.key, revocation.expires_at);
                }
            }),
        })
        .await?;
        let realm = Arc::new(realm);
        let groups = Arc::new(Groups::new(realm.pool().clone()));
        let mail = Arc::new(Mailman::new(realm.pool().clone()).await?);
        let health = Arc::new(Health::default());
        let checks = Arc::clone(&health);
        let stop = CancellationToken::new();
        let origins = settings.edge.allow_origins.clone();
        let live = Live::new(settings.live, origins, stop.clone());
        let follower = Follower::new(Arc::clone(&realm), Arc::clone(&live.hub));
        let live = Arc::new(live);
        let webhooks = Arc::new(Webhooks::new(realm.pool().clone()));
        let sender = Sender::new(settings.webhook_allow_private)?;
        let courier =
            Courier::new(Arc::clone(&realm), Arc::clone(&webhooks), sender.clone(), stop.clone());
        let app = App {
            realm: Arc::clone(&realm),
            groups,
            mail: Arc::clone(&mail),
            auth,
            live: Arc::clone(&live),
            metrics,
            health,
            compat,
            webhooks,
            sender,
        };
        let sweeper = Sweeper::new(Arc::clone(&realm));
        let mut background = vec![
            tokio::spawn(sweeper.run(stop.clone())),
            tokio::spawn(Arc::clone(&mail).run(realm.database().clone(), stop.clone())),
            tokio::spawn(follower.run(stop.clone())),
            tokio::spawn(courier.run()),
            tokio::spawn(Ruler::new(Arc::clone(&realm)).run(stop.clone())),
            tokio::spawn(upkeep(Arc::clone(&realm), Arc::clone(&app.groups), stop.clone())),
            tokio::spawn(tidy(app.clone(), stop.clone())),
            tokio::spawn(retain(Arc::clone(&realm), stop.clone())),
            tokio::spawn(checks.run(realm.database().clone(), chrono::Utc::now, stop.clone())),
            tokio::spawn(what_if::work::run(realm.database().clone(), stop.clone())),
        ];
        background.extend(hand_on(settings.egress, &realm, &stop));
        let router = routes::router(app, &settings.edge);
        let (limits, stopping) = (settings.server, stop.clone());
        let serving = tokio::spawn(async move { serve(listener, router, &limits, stopping).await });
        Ok(Self { address, realm, mail, live, stop, serving, background })
    }

    /// Answers what was accepted, then leaves the realm.
    pub async fn stop(self) {
        self.stop.cancel();
        let tasks = std::iter::once(self.serving).chain(self.background);
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the node");
            }
        }
        // Requests that outlived their bound may still hold the realm; the log does not wait for
        // those who no longer listen.
        self.realm.leave().await;
    }
}

#[cfg(feature = "nats")]
fn hand_on(
    egress: Option<EgressSettings>,
    realm: &Arc<Realm>,
    stop: &CancellationToken,
) -> Option<JoinHandle<()>> {
    let egress = crate::egress::nats::Egress::new(Arc::clone(realm), egress?);
    Some(tokio::spawn(egress.run(stop.clone())))
}

/// Without the feature `nats`: `Node::start` has refused whoever asked for it.
#[cfg(not(feature = "nats"))]
fn hand_on(
    _egress: Option<EgressSettings>,
    _realm: &Arc<Realm>,
    _stop: &CancellationToken,
) -> Option<JoinHandle<()>> {
    None
}

async fn upkeep(realm: Arc<Realm>, groups: Arc<Groups>, stop: CancellationToken) {
    loop {
        if let Err(error) = leaves::make_ahead(realm.database()).await {
            tracing::error!(%error, "making leaves ahead");
        }
        if let Err(error) = realm.forget_old().await {
            tracing::warn!(%error, "forgetting what is kept only for a while");
        }
        if let Err(error) = messages::forget_old(realm.pool()).await {
            tracing::warn!(%error, "forgetting messages");
        }
        if let Err(error) = deliveries::forget_old(realm.pool()).await {
            tracing::warn!(%error, "forgetting deliveries of webhooks");
        }
        if let Err(error) = groups.end_visits(None).await {
            tracing::warn!(%error, "ending the visits of sessions that are over");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(UPKEEP_EVERY) => {}
        }
    }
}

/// Apart from the rest of the upkeep: letting a leaf go waits for readers, however long they read.
async fn retain(realm: Arc<Realm>, stop: CancellationToken) {
    loop {
        let drop_expired = async {
            match retention::step(&realm).await {
                Ok(Some(_)) => {}
                Ok(None) => tokio::time::sleep(UPKEEP_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "dropping heartbeats past retention");
                    tokio::time::sleep(UPKEEP_EVERY).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = drop_expired => {}
        }
    }
}

async fn tidy(app: App, stop: CancellationToken) {
    loop {
        app.auth.tidy(chrono::Utc::now()).await;
        app.metrics.tidy();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(auth::TIDY_EVERY) => {}
        }
    }
}
