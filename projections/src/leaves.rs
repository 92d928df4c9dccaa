//! Partitions of the log: made ahead, and removed whole.
//!
//! `create table` + `attach partition` and `detach ... concurrently` + `drop` are the only ways
//! that do not queue an exclusive lock behind a reader's open transaction and so stop all writes.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};

use crate::Error;
use crate::db::Database;

/// Positions in one leaf. Stored in the leaves' names: never change it.
pub const LEAF_POSITIONS: i64 = 16_777_216;
/// Leaves kept ready above the log's head.
pub const LEAVES_AHEAD: i64 = 2;
/// How long a removal waits for a lock before it lets others pass and tries again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The log's two classes of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Kept for ever.
    Transitions,
    /// Dropped leaf by leaf past retention.
    Heartbeats,
}

impl Class {
    const fn parent(self) -> &'static str {
        match self {
            Self::Transitions => "event_t",
            Self::Heartbeats => "event_h",
        }
    }
}

/// Makes the leaves that the log will need next. Safe to run by several nodes at once.
pub async fn make_ahead(database: &Database) -> Result<(), Error> {
    let mut connection = database.owner().await?;
    connection.execute("set lock_timeout = '1s'").await?;
    let next: i64 =
        sqlx::query_scalar("select last_value from log_pos").fetch_one(&mut connection).await?;
    let current = next / LEAF_POSITIONS;
    for number in current..=current + LEAVES_AHEAD {
        for class in [Class::Transitions, Class::Heartbeats] {
            make(&mut connection, class, number).await?;
        }
    }
    connection.close().await?;
    Ok(())
}

/// Makes the leaf of that number, counted from 0, if it is missing.
pub async fn make(
    connection: &mut PgConnection,
    class: Class,
    number: i64,
) -> Result<String, Error> {
    let name = sqlx::query_scalar("select make_leaf($1, $2, $3)")
        .bind(class.parent())
        .bind(number * LEAF_POSITIONS)
        .bind((number + 1) * LEAF_POSITIONS)
        .fetch_one(connection)
        .await?;
    Ok(name)
}

/// Removes one leaf of heartbeats. It waits for readers who may still see it, never for long at a
/// time and never in the way of writers. The caller has decided that nobody needs it.
pub async fn remove(database: &Database, leaf: &str) -> Result<(), Error> {
    let leaf = identifier(leaf)?;
    let mut connection = database.owner().await?;
    connection.execute("set lock_timeout = '1s'").await?;
    let detach = format!("alter table event_h detach partition {leaf} concurrently");
    let finalize = format!("alter table event_h detach partition {leaf} finalize");
    loop {
        // Whoever did this before may have been interrupted anywhere. Once the first half is done,
        // the leaf takes no more rows, and only has to be let go.
        let statement = match state(&mut connection, &leaf).await? {
            State::Attached => &detach,
            State::Pending => &finalize,
            State::Detached => break,
        };
        match connection.execute(statement.as_str()).await {
            Ok(_) => break,
            Err(error) if is_lock_timeout(&error) => tokio::time::sleep(LOCK_TIMEOUT).await,
            Err(error) => return Err(error.into()),
        }
    }
    connection.execute(format!("drop table {leaf}").as_str()).await?;
    connection.close().await?;
    Ok(())
}

/// How far a removal has come.
enum State {
    Attached,
    Pending,
    Detached,
}

async fn state(connection: &mut PgConnection, leaf: &str) -> Result<State, Error> {
    let pending: Option<bool> = sqlx::query_scalar(
        "select inhdetachpending from pg_inherits where inhrelid = $1::regclass",
    )
    .bind(leaf)
    .fetch_optional(connection)
    .await?;
    Ok(match pending {
        Some(false) => State::Attached,
        Some(true) => State::Pending,
        None => State::Detached,
    })
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// Leaves are named by [`make`] alone.
pub(crate) fn identifier(leaf: &str) -> Result<String, Error> {
    let plain = leaf.starts_with("event_h_") && leaf[8..].bytes().all(|b| b.is_ascii_digit());
    if plain { Ok(leaf.to_owned()) } else { Err(Error::Unsupported(format!("no leaf: {leaf}"))) }
}
