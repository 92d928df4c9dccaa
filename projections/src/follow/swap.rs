//! A version that has caught up takes the live one's place, in one short transaction.

use std::time::Duration;

use domain::Position;
use sqlx::{Connection, Executor, PgConnection};

use super::page::{self, Target};
use crate::Error;
use crate::db::Database;

/// How long the swap waits for readers of the stable name before it lets them pass.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Swaps, unless readers are in the way: then the next round tries again.
pub(crate) async fn swap(database: &Database, target: Target) -> Result<(), Error> {
    let mut connection = database.owner().await?;
    let done = attempt(&mut connection, target).await;
    connection.close().await?;
    match done {
        Err(Error::Database(error)) if is_lock_timeout(&error) => Ok(()),
        done => done,
    }
}

async fn attempt(connection: &mut PgConnection, target: Target) -> Result<(), Error> {
    let Target { view, version } = target;
    let mut transaction = connection.begin().await?;
    let timeout = format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    transaction.execute(timeout.as_str()).await?;
    let locked: Vec<(i32, String, Position)> = sqlx::query_as(
        "select version, state, position from view_version where view = $1
          order by version for update",
    )
    .bind(view.name)
    .fetch_all(&mut *transaction)
    .await?;
    let live = locked.iter().find(|(_, state, _)| state == "live");
    let ours = locked.iter().find(|(number, state, _)| *number == version && state == "building");
    let (Some((old, _, live_at)), Some((_, _, ours_at))) = (live, ours) else { return Ok(()) };
    // What the live one has shown already is never taken back.
    if ours_at < live_at {
        page::apply(&mut transaction, target, *ours_at, *live_at, *live_at).await?;
    }
    sqlx::query("select show_view($1, $2)")
        .bind(view.name)
        .bind(version)
        .execute(&mut *transaction)
        .await?;
    for (number, state) in [(*old, "kept"), (version, "live")] {
        sqlx::query(
            "update view_version set state = $3, position = greatest(position, $4)
              where view = $1 and version = $2",
        )
        .bind(view.name)
        .bind(number)
        .bind(state)
        .bind(if number == version { *live_at } else { 0 })
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    tracing::info!(view = view.name, version, "a rebuilt view is live");
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}
