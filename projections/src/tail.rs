//! Keeps the roster up with what other nodes append, and this node with what holds for all nodes.
//!
//! Polling the log is the truth; a hint only wakes. What changed is read as it stands now, in one
//! snapshot together with the head up to which it is complete.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{Position, SessionId, Timestamp, UserNo};
use sqlx::{Connection, PgConnection, Row};
use tokio_util::sync::CancellationToken;

use crate::db::Database;
use crate::shared::Shared;
use crate::{Error, load, policy, repair};

/// Between two looks at the log, where no hint wakes.
pub const POLL: Duration = Duration::from_millis(200);
/// Between two attempts while the database cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Follows the log until `stop`.
pub async fn run(database: Database, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connection: Option<PgConnection> = None;
    loop {
        let pause = match step(&database, &shared, &mut connection).await {
            Ok(()) => POLL,
            Err(error) => {
                tracing::warn!(%error, "following the log");
                connection = None;
                RETRY_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.behind.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One look at the log, and at what else holds on every node within a second.
async fn step(
    database: &Database,
    shared: &Shared,
    connection: &mut Option<PgConnection>,
) -> Result<(), Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(database.server().await?),
    };
    catch_up(shared, connection).await?;
    shared.revocations_read(connection).await?;
    repair::hear(shared, connection).await?;
    if let Some(policy) = policy::read(&mut *connection).await? {
        shared.set_policy(policy);
    }
    Ok(())
}

/// Reads whoever changed above the roster's position, as they stand now.
async fn catch_up(shared: &Shared, connection: &mut PgConnection) -> Result<(), Error> {
    for user in load::by_number(&mut *connection, &shared.take_suspects()).await? {
        shared.roster.put(user);
    }
    let known = shared.roster.position();
    let Some((head, recorded_at)) = newest(connection).await? else { return Ok(()) };
    if head <= known {
        shared.clock.hear(recorded_at);
        shared.roster.advance(head);
        return Ok(());
    }
    shared.has_company.store(true, Ordering::Relaxed);
    let mut snapshot = connection.begin().await?;
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await?;
    let (head, recorded_at) = newest(&mut snapshot).await?.unwrap_or((head, recorded_at));
    let changed: Vec<(i64, Option<SessionId>, Position)> = sqlx::query_as(
        "select user_no, case when type = 'session_resumed' then session_id end, max(position)
           from event
          where class = 'T' and position > $1 and user_no is not null group by 1, 2",
    )
    .bind(known)
    .fetch_all(&mut *snapshot)
    .await?;
    let silences = load::silences(&mut *snapshot).await?;
    let resumed: Vec<(SessionId, Position)> = changed
        .iter()
        .filter_map(|(_, session, position)| Some(((*session)?, *position)))
        .collect();
    let changed: Vec<UserNo> = changed.iter().map(|(user, ..)| UserNo(*user)).collect();
    let users = load::by_number(&mut *snapshot, &changed).await?;
    snapshot.commit().await?;
    shared.learn_silences(silences.iter());
    // Only now: by a clock that is past a silence which is not known, leases would be over.
    shared.clock.hear(recorded_at);
    for user in users {
        shared.names.remember(user.user_id.clone(), user.user_no);
        shared.roster.put(user);
    }
    for (session, position) in resumed {
        shared.holders.resumed(session, position);
    }
    shared.roster.advance(head);
    Ok(())
}

/// The log's head and the time at which it was written.
pub(crate) async fn newest(
    connection: &mut PgConnection,
) -> Result<Option<(Position, Timestamp)>, Error> {
    let row = sqlx::query("select head, recorded_at from batch order by batch_no desc limit 1")
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}
