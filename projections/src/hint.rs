//! Hints between nodes: "there is something new in the log", by LISTEN and NOTIFY.
//!
//! They only wake the tail, which reads the log; a hint that is lost costs at most its pause. They
//! are sent outside the append, after the commit: inside it, NOTIFY would serialize all commits of
//! the database.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Executor, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::db::Database;
use crate::shared::Shared;

/// The channel. Channels belong to a database, as realms do.
const CHANNEL: &str = "rollcall";
/// A node hints at most so often.
pub const PAUSE: Duration = Duration::from_millis(20);
/// Between two attempts while the database cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tells other nodes of this node's transitions, until `stop`.
pub async fn tell(database: Database, shared: Arc<Shared>, node: Uuid, stop: CancellationToken) {
    let mut connection: Option<PgConnection> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.appended.notified() => {}
        }
        let pause = match notify(&database, &mut connection, node).await {
            Ok(()) => PAUSE,
            Err(error) => {
                tracing::debug!(%error, "hinting to other nodes");
                connection = None;
                RETRY_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn notify(
    database: &Database,
    connection: &mut Option<PgConnection>,
    node: Uuid,
) -> Result<(), Error> {
    if connection.is_none() {
        let mut fresh = database.server().await?;
        // A hint that a crash of the server takes with it wakes nobody who would be there.
        fresh.execute("set synchronous_commit = off").await?;
        *connection = Some(fresh);
    }
    let Some(connection) = connection else { return Ok(()) };
    sqlx::query("select pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(node.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Wakes the tail at each hint of another node, until `stop`.
pub async fn listen(database: Database, shared: Arc<Shared>, node: Uuid, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&database, &shared, node) => heard,
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "listening for hints of other nodes");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

async fn hear(database: &Database, shared: &Shared, node: Uuid) -> Result<(), Error> {
    let mut listener = database.listener(CHANNEL).await?;
    let own = node.to_string();
    // None: the connection was lost; what was told meanwhile is found by looking.
    while let Some(hint) = listener.try_recv().await? {
        if hint.payload() != own {
            shared.behind.notify_one();
        }
    }
    shared.behind.notify_one();
    Ok(())
}
