//! Heartbeats past their time: whole leaves of them, said in the log before they go.
//!
//! Any node may do it, however often it is interrupted: the log says each leaf once, and what was
//! said and not done yet is done by the next one who looks.

use chrono::TimeDelta;
use domain::{Position, Timestamp};
use sqlx::{Connection, PgConnection};

use crate::batch::SystemEvent;
use crate::leaves::{self, LEAF_POSITIONS};
use crate::realm::Realm;
use crate::{Error, tail};

/// The source under which dropped leaves are relayed into the log; their number is where the leaf
/// ended.
const SOURCE: &str = "retention";

/// A leaf of heartbeats that nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its name.
    pub leaf: String,
    /// Its first position.
    pub from: Position,
    /// The first position after it.
    pub to: Position,
}

/// Drops the oldest leaf that is past retention. None: there is none, or another node is at it.
pub async fn step(realm: &Realm) -> Result<Option<Expired>, Error> {
    let mut db = realm.database().owner().await?;
    let alone: bool = sqlx::query_scalar("select try_retention_lock()").fetch_one(&mut db).await?;
    let done = if alone { drop_oldest(realm, &mut db).await } else { Ok(None) };
    // The end of the connection lets the lock go.
    db.close().await?;
    done
}

async fn drop_oldest(realm: &Realm, db: &mut PgConnection) -> Result<Option<Expired>, Error> {
    let days = realm.policy().heartbeat_retention_days;
    let Some(expired) = oldest(db, TimeDelta::days(days.into())).await? else { return Ok(None) };
    announce(realm, &expired).await?;
    leaves::remove(realm.database(), &expired.leaf).await?;
    tracing::info!(leaf = expired.leaf, "heartbeats past retention: dropped a leaf");
    Ok(Some(expired))
}

/// The oldest leaf of heartbeats, if it is wholly older than that, below every view's checkpoint,
/// and not the one that is being written.
pub async fn oldest(db: &mut PgConnection, age: TimeDelta) -> Result<Option<Expired>, Error> {
    let Some((head, now)) = tail::newest(&mut *db).await? else { return Ok(None) };
    let leaf: Option<String> = sqlx::query_scalar(
        "select min(c.relname::text) from pg_class c
          where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
            and c.relname ~ '^event_h_[0-9]{16}$'",
    )
    .fetch_one(&mut *db)
    .await?;
    let Some(leaf) = leaf else { return Ok(None) };
    let from: Position = leaf[8..].parse().unwrap_or(Position::MAX - LEAF_POSITIONS);
    let to = from + LEAF_POSITIONS;
    let checkpoint: Position =
        sqlx::query_scalar("select coalesce(min(position), 0) from view_version")
            .fetch_one(&mut *db)
            .await?;
    if head < to || checkpoint < to - 1 {
        return Ok(None);
    }
    // `recorded_at` follows position: whatever is in the leaf was recorded before this. Asking the
    // leaf itself would read all of it, and every minute again.
    let after: Option<Timestamp> = sqlx::query_scalar(
        "select recorded_at from event where class = 'T' and position >= $1
          order by position limit 1",
    )
    .bind(to)
    .fetch_optional(db)
    .await?;
    let over = after.is_some_and(|after| after <= now - age);
    Ok(over.then_some(Expired { leaf, from, to }))
}

/// Says in the log that a leaf goes, with what was in it; once, whoever says it how often.
pub async fn announce(realm: &Realm, expired: &Expired) -> Result<Position, Error> {
    let Expired { leaf, from, to } = expired;
    let mut db = realm.database().owner().await?;
    let statement = format!(
        "select count(*), min(position), max(position), rfc3339(min(recorded_at)),
                rfc3339(max(recorded_at)) from {}",
        leaves::identifier(leaf)?
    );
    let (rows, first, last, oldest, newest): (
        i64,
        Option<Position>,
        Option<Position>,
        Option<String>,
        Option<String>,
    ) = sqlx::query_as(&statement).fetch_one(&mut db).await?;
    db.close().await?;
    let data = serde_json::json!({
        "leaf": leaf, "from_position": from, "to_position": to - 1, "rows": rows,
        "first_position": first, "last_position": last,
        "oldest_recorded_at": oldest, "newest_recorded_at": newest,
    });
    let (name, number, actor) = ("partition_dropped", *to, None);
    let event = SystemEvent { name, source: SOURCE, number, actor, data };
    realm.append_system(event).await
}
