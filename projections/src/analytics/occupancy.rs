//! How many people were in each status.

use domain::{Status, Timestamp};
use sqlx::{FromRow, PgPool};

use super::{Window, told};
use crate::Error;

/// How many people were in each status at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Counts {
    /// The instant.
    pub at: Timestamp,
    /// People online.
    pub online: i64,
    /// People away.
    pub away: i64,
    /// People busy.
    pub busy: i64,
    /// People who do not want to be disturbed.
    pub dnd: i64,
    /// People known by then, and offline.
    pub offline: i64,
}

/// The counts at `from`, `from + bucket`, ... before `to`, and not after now.
pub async fn occupancy(
    pool: &PgPool,
    window: Window,
    bucket_ms: i64,
) -> Result<Vec<Counts>, Error> {
    sqlx::query_as(
        "select at, online, away, busy, dnd, offline
           from analytics.occupancy($1, $2, $3 * interval '1 millisecond') order by at",
    )
    .bind(window.from)
    .bind(window.to)
    .bind(bucket_ms as f64)
    .fetch_all(pool)
    .await
    .map_err(told)
}

/// One hour of the week.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Hour {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    pub weekday: i32,
    /// 0 to 23, by the clock on the wall.
    pub hour: i32,
    /// How many people on average; none where the window has no such hour.
    pub average: Option<f64>,
    /// At how many instants they were counted.
    pub samples: i64,
}

/// Between two instants at which people are counted for [`by_hour`].
pub const SAMPLE_MINUTES: i64 = 5;

/// How many people were in that status, by weekday and hour of a time zone: all 168 of them.
pub async fn by_hour(
    pool: &PgPool,
    window: Window,
    zone: &str,
    status: Status,
) -> Result<Vec<Hour>, Error> {
    sqlx::query_as(
        "with told as (
            select extract(isodow from o.at at time zone $3)::integer as weekday,
                   extract(hour from o.at at time zone $3)::integer as hour,
                   case $4 when 'online' then o.online when 'away' then o.away
                           when 'busy' then o.busy when 'dnd' then o.dnd
                           else o.offline end as people
              from analytics.occupancy($1, $2, $5 * interval '1 minute') o)
         select w.weekday, h.hour, avg(t.people)::float8 as average, count(t.people) as samples
           from generate_series(1, 7) w (weekday) cross join generate_series(0, 23) h (hour)
           left join told t on t.weekday = w.weekday and t.hour = h.hour
          group by w.weekday, h.hour order by w.weekday, h.hour",
    )
    .bind(window.from)
    .bind(window.to)
    .bind(zone)
    .bind(status.as_str())
    .bind(SAMPLE_MINUTES as f64)
    .fetch_all(pool)
    .await
    .map_err(told)
}
