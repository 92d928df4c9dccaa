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
    let source = match (days.zone, days.user) {
        (None, None) => return totals(pool, &days).await,
        (None, Some(_)) => "analytics.status_daily where day >= $1 and day < $2 and user_id = $3",
        (Some(_), None) => "analytics.status_daily($1, $2, $3)",
        (Some(_), Some(_)) => "analytics.status_daily($1, $2, $3, $4)",
    };
    let statement = format!(
        "select day, count(*) as users, sum(online_ms)::bigint as online_ms,
                sum(away_ms)::bigint as away_ms, sum(busy_ms)::bigint as busy_ms,
                sum(dnd_ms)::bigint as dnd_ms, sum(offline_ms)::bigint as offline_ms
           from {source} group by day order by day"
    );
    let mut query = sqlx::query_as(&statement).bind(days.from).bind(days.to);
    for word in days.zone.into_iter().chain(days.user.map(UserId::as_str)) {
        query = query.bind(word);
    }
    query.fetch_all(pool).await.map_err(told)
}

/// Everybody's together: the sums are made where the rows are.
async fn totals(pool: &PgPool, days: &Days<'_>) -> Result<Vec<Day>, Error> {
    let query = sqlx::query_as("select * from analytics.status_daily_totals($1, $2)");
    query.bind(days.from).bind(days.to).fetch_all(pool).await.map_err(told)
}
