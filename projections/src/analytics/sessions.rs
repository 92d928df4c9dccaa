//! How long sessions last and why they end.

use sqlx::{FromRow, PgPool};

use super::{Window, told};
use crate::Error;

/// Where one class of lengths ends and the next begins, in milliseconds.
pub const LENGTHS_MS: [i64; 9] =
    [60_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 28_800_000, 86_400_000];

/// By what sessions are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// All of them.
    All,
    /// Why they ended.
    Reason,
    /// What they ran on.
    DeviceKind,
    /// How long they lasted: the class of [`LENGTHS_MS`], from 0.
    Length,
}

impl By {
    /// The shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Reason => "reason",
            Self::DeviceKind => "device_kind",
            Self::Length => "length",
        }
    }
}

/// Sessions that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// By what.
    pub by: By,
    /// The reason, the kind of device, the class of lengths; `all`.
    pub key: String,
    /// How many.
    pub sessions: i64,
    /// How long together, in milliseconds; 0 where there are none, as below.
    pub total_ms: i64,
    /// Half of them were not longer.
    pub median_ms: i64,
    /// 90 of 100 were not longer.
    pub p90_ms: i64,
    /// 99 of 100 were not longer.
    pub p99_ms: i64,
    /// The longest.
    pub max_ms: i64,
}

#[derive(FromRow)]
struct Row {
    grouped: i32,
    key: Option<String>,
    sessions: i64,
    total_ms: i64,
    quantiles: Option<Vec<i64>>,
    max_ms: i64,
}

/// The sessions that ended in the window, put together in every way.
pub async fn ended(pool: &PgPool, window: Window) -> Result<Vec<Group>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "with ended as (
            select s.length_ms, s.reason, s.device_kind,
                   width_bucket(s.length_ms, $3::bigint[])::text as class
              from analytics.session s where s.ended_at >= $1 and s.ended_at < $2)
         select grouping(reason, device_kind, class)::integer as grouped,
                coalesce(reason, device_kind, class) as key, count(*) as sessions,
                coalesce(sum(length_ms), 0)::bigint as total_ms,
                percentile_disc(array[0.5, 0.9, 0.99]) within group (order by length_ms)
                    as quantiles,
                coalesce(max(length_ms), 0) as max_ms
           from ended group by grouping sets ((), (reason), (device_kind), (class))
          order by grouped desc, key",
    )
    .bind(window.from)
    .bind(window.to)
    .bind(&LENGTHS_MS[..])
    .fetch_all(pool)
    .await
    .map_err(told)?;
    Ok(rows.iter().map(group).collect())
}

fn group(row: &Row) -> Group {
    // A bit is set where the column is none of those by which is grouped.
    let by = match row.grouped {
        0b011 => By::Reason,
        0b101 => By::DeviceKind,
        0b110 => By::Length,
        _ => By::All,
    };
    let quantile = |index: usize| {
        row.quantiles.as_ref().and_then(|quantiles| quantiles.get(index)).copied().unwrap_or(0)
    };
    Group {
        by,
        key: row.key.clone().unwrap_or_else(|| By::All.as_str().to_owned()),
        sessions: row.sessions,
        total_ms: row.total_ms,
        median_ms: quantile(0),
        p90_ms: quantile(1),
        p99_ms: quantile(2),
        max_ms: row.max_ms,
    }
}

/// How many sessions had begun before the end of the window and are not over yet.
pub async fn open(pool: &PgPool, window: Window) -> Result<i64, Error> {
    sqlx::query_scalar(
        "select count(*) from analytics.session where ended_at is null and opened_at < $1",
    )
    .bind(window.to)
    .fetch_one(pool)
    .await
    .map_err(told)
}
