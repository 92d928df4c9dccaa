//! How long people were in each status, by day.

use chrono::NaiveDate;
use domain::UserId;
use sqlx::{FromRow, PgPool};

use super::told;
use crate::Error;

/// One day, of one user or the sum of everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Day {
    /// The day.
    pub day: NaiveDate,
    /// How many people it sums up: those who were known by then.
    pub users: i64,
    /// Milliseconds online.
    pub online_ms: i64,
    /// Milliseconds away.
    pub away_ms: i64,
    /// Milliseconds busy.
    pub busy_ms: i64,
    /// Milliseconds in do not disturb.
    pub dnd_ms: i64,
    /// Milliseconds offline, from each user's first event on.
    pub offline_ms: i64,
}

/// Whose days, and which.
#[derive(Debug, Clone)]
pub struct Days<'a> {
    /// The first.
    pub from: NaiveDate,
    /// The one after the last.
    pub to: NaiveDate,
    /// Of that time zone; none: UTC, which is quicker.
    pub zone: Option<&'a str>,
    /// One user's; none: everybody's.
    pub user: Option<&'a UserId>,
}

/// The days on which anybody was known, oldest first.
pub async fn by_day(pool: &PgPool, days: Days<'_>) -> Result<Vec<Day>, Error> {
    let statement = match (days.zone, days.user) {
        // The sums are made where the rows are.
        (None, None) => "select * from analytics.status_daily_totals($1, $2)",
        (Some(_), None) => "select * from analytics.status_daily_totals($1, $2, $3)",
        (None, Some(_)) => {
            "select 1::bigint as users, d.* from analytics.status_daily d
              where day >= $1 and day < $2 and user_id = $3 order by day"
        }
        (Some(_), Some(_)) => {
            "select 1::bigint as users, d.* from analytics.status_daily($1, $2, $3, $4) d
              order by day"
        }
    };
    let mut query = sqlx::query_as(statement).bind(days.from).bind(days.to);
    for word in days.zone.into_iter().chain(days.user.map(UserId::as_str)) {
        query = query.bind(word);
    }
    query.fetch_all(pool).await.map_err(told)
}
