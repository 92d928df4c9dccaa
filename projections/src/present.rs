//! The present as the database has it, for whoever is no node and appends nothing.

use std::collections::HashMap;

use domain::{Policy, Reason, Timestamp, UserNo, lapse};
use sqlx::{Connection, PgConnection, Row};

use crate::db::Database;
use crate::history::parsed;
use crate::load::{self, Loaded};
use crate::{Error, policy, tail};

/// Some users as of one instant, every lapse that is due applied.
#[derive(Debug)]
pub struct Present {
    /// As of then. While no node runs, leases do not either: it stops soon after the newest batch.
    pub at: Timestamp,
    /// Those of them that are known, by number.
    pub users: Vec<Loaded>,
    /// When and why the latest session of each of them ended that had one and ended.
    pub ended: HashMap<UserNo, (Timestamp, Reason)>,
}

/// One connection that only reads.
#[derive(Debug)]
pub struct Reader(PgConnection);

impl Reader {
    /// To that database, which is brought up to date.
    pub async fn connect(database: &Database) -> Result<Self, Error> {
        database.migrate().await?;
        Ok(Self(database.server().await?))
    }

    /// The policy in force; the usual one where nobody has served yet.
    pub async fn policy(&mut self) -> Result<Policy, Error> {
        Ok(policy::read(&mut self.0).await?.unwrap_or_default())
    }

    /// Users by their outside names, in one snapshot.
    pub async fn by_name(&mut self, names: &[&str]) -> Result<Present, Error> {
        let mut snapshot = snapshot(&mut self.0).await?;
        let statement = "select user_no from account where user_id = any($1)";
        let found = sqlx::query_scalar(statement).bind(names).fetch_all(&mut *snapshot).await?;
        let present = read(&mut snapshot, found).await?;
        snapshot.commit().await?;
        Ok(present)
    }

    /// Users with an open session whose number is above another, at most `limit` of them.
    pub async fn with_sessions(&mut self, above: UserNo, limit: i64) -> Result<Present, Error> {
        let mut snapshot = snapshot(&mut self.0).await?;
        let statement = "select distinct user_no from live_session where user_no > $1
            order by user_no limit $2";
        let found = sqlx::query_scalar(statement).bind(above.0).bind(limit);
        let found = found.fetch_all(&mut *snapshot).await?;
        let present = read(&mut snapshot, found).await?;
        snapshot.commit().await?;
        Ok(present)
    }
}

async fn snapshot(
    connection: &mut PgConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, Error> {
    let mut snapshot = connection.begin().await?;
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await?;
    Ok(snapshot)
}

async fn read(connection: &mut PgConnection, numbers: Vec<i64>) -> Result<Present, Error> {
    let clock: Timestamp =
        sqlx::query_scalar("select log_clock()").fetch_one(&mut *connection).await?;
    let newest = tail::newest(&mut *connection).await?;
    let at =
        newest.map_or(clock, |(_, recorded_at)| clock.min(recorded_at + crate::clock::SILENCE));
    let silences = load::silences(&mut *connection).await?;
    let rows = sqlx::query(
        "select u.user_no, e.occurred_at, e.reason::text as reason
           from unnest($1::bigint[]) u (user_no)
          cross join lateral (
                select occurred_at, reason from event
                 where class = 'T' and event.user_no = u.user_no
                   and type in ('session_closed', 'session_expired')
                 order by sequence desc limit 1) e",
    )
    .bind(&numbers)
    .fetch_all(&mut *connection)
    .await?;
    let mut ended = HashMap::new();
    for row in rows {
        if let Some(reason) = parsed(&row, "reason")? {
            ended.insert(UserNo(row.try_get("user_no")?), (row.try_get("occurred_at")?, reason));
        }
    }
    let numbers: Vec<UserNo> = numbers.into_iter().map(UserNo).collect();
    let mut users = load::by_number(&mut *connection, &numbers).await?;
    for user in &mut users {
        if let Some(settled) = lapse::settled(&user.state, &silences, at) {
            user.state = settled;
        }
    }
    Ok(Present { at, users, ended })
}
