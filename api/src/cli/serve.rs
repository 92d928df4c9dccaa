//! `rollcall serve`.

use std::io::Write;

use domain::Policy;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, seed};
use crate::config::{PolicyArgs, ServeArgs};
use crate::embedded::Embedded;
use crate::limits::RateLimits;
use crate::node::{Node, NodeSettings};
use crate::serve::{bind, raise_open_files_limit};
use crate::{auth, telemetry};

/// As long as the hash that it keys (RFC 7518, 3.2).
const SECRET_BYTES_ADVISED: usize = 32;

pub(super) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    telemetry::init_logs(args.log_format);
    auth::install_tls();
    raise_open_files_limit();
    if args.jwt.jwt_secret.as_ref().is_some_and(|secret| secret.0.len() < SECRET_BYTES_ADVISED) {
        tracing::warn!("--jwt-secret is shorter than {SECRET_BYTES_ADVISED} bytes: easy to guess");
    }
    let seed = seed(&args.policy)?;
    // Taken first: whoever cannot have the address need not start a database.
    let listener = bind(args.listen).map_err(|error| format!("{}: {error}", args.listen))?;
    let mut signals = Signals::new()?;
    let embedded = match &args.database.database_url {
        Some(_) => None,
        None => Some(Embedded::start(&args.database.data_dir).await?),
    };
    let url = args.database.database_url.clone();
    let database_url = url.or_else(|| embedded.as_ref().map(Embedded::url)).unwrap_or_default();
    let settings = NodeSettings {
        database_url,
        auth: args.auth_settings()?,
        rate: RateLimits::new(args.limits.rate_per_second, args.limits.rate_burst),
        seed,
        queue_max: args.limits.queue_max as usize,
        edge: args.edge_settings(),
        live: args.live_settings(),
        server: args.server_limits(),
        compat: args.compat_settings(),
    };
    let flags = &args.policy;
    let served = run(listener, settings, flags, embedded.as_ref(), &mut signals).await;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    served
}

async fn run(
    listener: tokio::net::TcpListener,
    settings: NodeSettings,
    flags: &PolicyArgs,
    embedded: Option<&Embedded>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let supervising = async {
        match embedded {
            Some(embedded) => embedded.supervise(stop.clone()).await,
            None => stop.cancelled().await,
        }
    };
    let serving = async {
        let started = tokio::select! {
            started = Node::start(listener, settings) => Some(started),
            () = signals.any() => None,
        };
        if let Some(node) = started {
            let node = node?;
            warn_of_differences(flags, &node.realm.policy());
            println!("rollcall ready on http://{}", node.address);
            std::io::stdout().flush()?;
            signals.any().await;
            tracing::info!("stopping: answering what was accepted");
            node.stop().await;
        }
        Ok::<(), Failure>(())
    };
    let serving = async {
        let served = serving.await;
        stop.cancel();
        served
    };
    tokio::join!(serving, supervising).0
}

/// The stored policy wins over flags; whoever gave one that differs should know.
fn warn_of_differences(flags: &PolicyArgs, stored: &Policy) {
    let pairs = [
        ("--heartbeat-ms", flags.heartbeat_ms, stored.heartbeat_ms),
        ("--lease-ms", flags.lease_ms, stored.lease_ms),
        ("--away-after-ms", flags.away_after_ms, stored.away_after_ms),
        ("--grace-ms", flags.grace_ms, stored.grace_ms),
    ];
    for (flag, given, stored) in pairs {
        if given.is_some_and(|given| given != u64::from(stored)) {
            tracing::warn!(
                flag,
                given,
                stored,
                "the stored policy wins; PUT /v1/policy changes it"
            );
        }
    }
}

/// What asks a server, or long work, to stop.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
