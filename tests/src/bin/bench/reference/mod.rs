//! What the replaced systems do, and what an off-the-shelf event store does, as servers of their
//! own, in processes of their own: run by `bench reference NAME`.
//!
//! Neither checks a token, limits a rate or counts anything: what is compared to them carries all
//! of that.

pub(crate) mod broadcast;
mod stock;
mod update;

use std::io::Write as _;

use axum::Router;
use clap::{Args, ValueEnum};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor as _, PgPool};
use tokio::net::TcpListener;

use crate::child::READY;
use crate::{Failure, log};

/// Connections to the database: with fewer, commits share less; with more, these two slow down.
const CONNECTIONS: u32 = 32;

/// A reference with a server of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Stock postgres-es.
    Stock,
    /// One `update` a request.
    Update,
}

impl Kind {
    /// Its schema in the database.
    pub(crate) fn schema(self) -> &'static str {
        match self {
            Self::Stock => "bench_stock",
            Self::Update => "bench_update",
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Update => "update",
        }
    }
}

/// `bench reference`.
#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// Which one
    kind: Kind,
    /// Where the database is
    #[arg(long)]
    url: String,
}

/// Connections to one reference's schema.
async fn pool(url: &str, kind: Kind, connections: u32) -> Result<PgPool, Failure> {
    let options = log::options(url, kind.schema())?;
    let pool = PgPoolOptions::new().max_connections(connections).min_connections(connections);
    Ok(pool.connect_with(options).await?)
}

/// Makes the tables of a reference, with everybody logged in.
pub(crate) async fn prepare(url: &str, kind: Kind, sessions: &[String]) -> Result<(), Failure> {
    let pool = pool(url, kind, 1).await?;
    pool.execute(format!("create schema {}", kind.schema()).as_str()).await?;
    match kind {
        Kind::Stock => stock::prepare(&pool, sessions).await?,
        Kind::Update => update::prepare(&pool, sessions.len()).await?,
    }
    // Nothing is measured on a table that the planner knows nothing of.
    pool.execute("vacuum analyze").await?;
    pool.close().await;
    Ok(())
}

/// Serves until it is killed.
pub(crate) async fn serve(args: ReferenceArgs) -> Result<(), Failure> {
    let pool = pool(&args.url, args.kind, CONNECTIONS).await?;
    let router: Router = match args.kind {
        Kind::Stock => stock::router(pool),
        Kind::Update => update::router(pool),
    };
    listen(router).await
}

/// Says where it listens, and serves until it is killed.
async fn listen(router: Router) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{READY}{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // An option that cannot be set costs speed, not correctness.
        drop(stream.set_nodelay(true));
    });
    axum::serve(listener, router).await?;
    Ok(())
}
