//! How a what-if compares with what was.

use chrono::NaiveDate;
use domain::{Status, UserId};
use sqlx::{FromRow, PgPool, Row};

use crate::Error;
use crate::history::parsed;

/// Days that a report has, the latest ones.
pub const DAYS_MAX: i64 = 366;

/// A number as it was, and as it would have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pair {
    /// As it was.
    pub before: i64,
    /// As it would have been.
    pub after: i64,
}

/// Time in one status on one UTC day, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Which day.
    pub day: NaiveDate,
    /// Which status; never offline.
    pub status: Status,
    /// How long, all users together.
    pub ms: Pair,
}

/// A user whose history would be another.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Who.
    pub user_id: UserId,
    /// How long the status would have been another, in milliseconds.
    pub changed_ms: i64,
    /// Changes of status.
    pub changes: Pair,
    /// Statuses that lasted less than a minute.
    pub flaps: Pair,
}

/// The comparison; of one that is not complete, of the users done so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Time in each status, in milliseconds, all users together, since each one's first event.
    pub totals: Vec<(Status, Pair)>,
    /// The same by day, offline left out.
    pub days: Vec<Day>,
    /// Changes of status.
    pub changes: Pair,
    /// Statuses that lasted less than a minute.
    pub flaps: Pair,
    /// Users compared.
    pub users: i64,
    /// Users whose history would be another.
    pub users_changed: i64,
    /// The most changed of them.
    pub most_changed: Vec<Changed>,
}

#[derive(FromRow)]
struct Sums {
    users: i64,
    users_changed: i64,
    known_ms: i64,
    before_changes: i64,
    after_changes: i64,
    before_flaps: i64,
    after_flaps: i64,
}

/// Reads it; at most `limit` of the users most changed.
pub async fn read(pool: &PgPool, name: &str, limit: i64) -> Result<Report, Error> {
    let sums: Sums = sqlx::query_as(
        "select count(*) as users, count(*) filter (where changed_us > 0) as users_changed,
                coalesce(sum(known_us) / 1000, 0)::bigint as known_ms,
                coalesce(sum(before_changes), 0)::bigint as before_changes,
                coalesce(sum(after_changes), 0)::bigint as after_changes,
                coalesce(sum(before_flaps), 0)::bigint as before_flaps,
                coalesce(sum(after_flaps), 0)::bigint as after_flaps
           from what_if_user where name = $1",
    )
    .bind(name)
    .fetch_one(pool)
    .await?;
    Ok(Report {
        totals: totals(pool, name, sums.known_ms).await?,
        days: days(pool, name).await?,
        changes: Pair { before: sums.before_changes, after: sums.after_changes },
        flaps: Pair { before: sums.before_flaps, after: sums.after_flaps },
        users: sums.users,
        users_changed: sums.users_changed,
        most_changed: most_changed(pool, name, limit).await?,
    })
}

async fn totals(pool: &PgPool, name: &str, known_ms: i64) -> Result<Vec<(Status, Pair)>, Error> {
    let rows = sqlx::query(
        "select status::text as status, (sum(before_us) / 1000)::bigint as before,
                (sum(after_us) / 1000)::bigint as after
           from what_if_day where name = $1 group by status",
    )
    .bind(name)
    .fetch_all(pool)
    .await?;
    let mut totals: Vec<_> = Status::ALL.map(|status| (status, Pair::default())).to_vec();
    let mut present = Pair::default();
    for row in &rows {
        let pair = Pair { before: row.try_get("before")?, after: row.try_get("after")? };
        let status: Option<Status> = parsed(row, "status")?;
        for (_, total) in totals.iter_mut().filter(|(known, _)| Some(*known) == status) {
            *total = pair;
        }
        present.before += pair.before;
        present.after += pair.after;
    }
    for (_, total) in totals.iter_mut().filter(|(status, _)| *status == Status::Offline) {
        *total = Pair { before: known_ms - present.before, after: known_ms - present.after };
    }
    Ok(totals)
}

async fn days(pool: &PgPool, name: &str) -> Result<Vec<Day>, Error> {
    let rows = sqlx::query(
        "select day, status::text as status, before_us / 1000 as before, after_us / 1000 as after
           from what_if_day
          where name = $1 and day > (select max(day) from what_if_day where name = $1) - $2::int
          order by day, what_if_day.status",
    )
    .bind(name)
    .bind(DAYS_MAX)
    .fetch_all(pool)
    .await?;
    let day = |row: &sqlx::postgres::PgRow| {
        let ms = Pair { before: row.try_get("before")?, after: row.try_get("after")? };
        let status = parsed(row, "status")?.unwrap_or_default();
        Ok(Day { day: row.try_get("day")?, status, ms })
    };
    rows.iter().map(day).collect()
}

async fn most_changed(pool: &PgPool, name: &str, limit: i64) -> Result<Vec<Changed>, Error> {
    let rows = sqlx::query(
        "select a.user_id, w.changed_us / 1000 as changed_ms, w.before_changes, w.after_changes,
                w.before_flaps, w.after_flaps
           from what_if_user w join account a using (user_no)
          where w.name = $1 and w.changed_us > 0
          order by w.changed_us desc, w.user_no limit $2",
    )
    .bind(name)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let changed = |row: &sqlx::postgres::PgRow| {
        let user_id: &str = row.try_get("user_id")?;
        let pair = |before, after| -> Result<Pair, Error> {
            Ok(Pair { before: row.try_get(before)?, after: row.try_get(after)? })
        };
        Ok(Changed {
            user_id: user_id.parse().map_err(|_| Error::Undecodable("user_id".to_owned()))?,
            changed_ms: row.try_get("changed_ms")?,
            changes: pair("before_changes", "after_changes")?,
            flaps: pair("before_flaps", "after_flaps")?,
        })
    };
    rows.iter().map(changed).collect()
}
