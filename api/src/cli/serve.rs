//! `rollcall serve`.

use std::io::Write;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, seed};
use crate::config::ServeArgs;
use crate::embedded::Embedded;
use crate::limits::RateLimits;
use crate::node::{Node, NodeSettings};
use crate::serve::{bind, raise_open_files_limit};
use crate::{auth, telemetry};

pub(super) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    telemetry::init_logs(args.log_format);
    auth::install_tls();
    raise_open_files_limit();
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
        server: args.server_limits(),
    };
    let served = run(listener, settings, embedded.as_ref(), &mut signals).await;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    served
}

async fn run(
    listener: tokio::net::TcpListener,
    settings: NodeSettings,
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

/// What asks a server to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
