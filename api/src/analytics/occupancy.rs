//! `GET /v1/analytics/occupancy`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::TimeDelta;
use projections::analytics::Window;
use projections::analytics::occupancy::{self, Counts};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{FreshnessBody, answer, views};
use super::params::{self, FormatName};
use super::{READERS, charts};
use crate::app::App;
use crate::auth::Caller;
use crate::extract::Query;
use crate::formats::table::{Cell, Column, Kind, Row, column};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::Instant;

/// Which instants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OccupancyQuery {
    /// The first instant, or a date (UTC); 24 h before `to` if not given. Full minutes count.
    from: Option<String>,
    /// Before this instant or date; now if not given.
    to: Option<String>,
    /// Between two instants: `5m`, `1h`, `1d`; at least `1m`, at most 10,000 of them. Left out: a
    /// length that suits the window.
    bucket: Option<String>,
    /// The form; else by `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// How many people were in each status at an instant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OccupancyItem {
    /// The instant. What changed within a minute counts from its end.
    pub at: Instant,
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

impl From<Counts> for OccupancyItem {
    fn from(counts: Counts) -> Self {
        let Counts { at, online, away, busy, dnd, offline } = counts;
        Self { at: Instant(at), online, away, busy, dnd, offline }
    }
}

impl Row for OccupancyItem {
    const COLUMNS: &'static [Column] = &[
        column("at", Kind::Instant),
        column("online", Kind::Integer),
        column("away", Kind::Integer),
        column("busy", Kind::Integer),
        column("dnd", Kind::Integer),
        column("offline", Kind::Integer),
    ];

    fn cells(&self) -> Vec<Cell> {
        let counts = [self.online, self.away, self.busy, self.dnd, self.offline];
        std::iter::once(self.at.0.into()).chain(counts.map(Cell::from)).collect()
    }
}

/// Occupancy.
#[derive(Debug, Serialize, ToSchema)]
pub struct OccupancyBody {
    /// Oldest first; none later than now.
    pub items: Vec<OccupancyItem>,
    from: Instant,
    to: Instant,
    bucket_ms: i64,
    views: FreshnessBody,
}

/// How many people were in each status when each bucket began, as others were shown them. As JSON,
/// CSV, Parquet or a picture, which draws means where there are more buckets than it has room for.
#[utoipa::path(get, path = "/v1/analytics/occupancy", tag = "Analytics",
    operation_id = "get_occupancy",
    params(OccupancyQuery),
    responses((status = 200, body = OccupancyBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn occupancy(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<OccupancyQuery>,
) -> Result<Response, Problem> {
    caller.require(READERS)?;
    let format = params::format(query.format, &headers)?;
    let edges = (query.from.as_deref(), query.to.as_deref());
    let given = params::window(edges, chrono_tz::UTC, TimeDelta::hours(24), app.realm.now())?;
    let bucket = params::bucket(query.bucket.as_deref(), given)?;
    // A window of our own choice begins with a whole bucket, so that two calls show the same ones.
    let whole = if query.from.is_some() { params::BUCKET_MIN } else { bucket };
    let window = Window { from: params::floor(given.from, whole), to: given.to };
    let views = views(&app, &["occupancy"], query.min_position).await?;
    let bucket_ms = bucket.num_milliseconds();
    let counts = occupancy::occupancy(app.realm.analysis(), window, bucket_ms).await?;
    let body = OccupancyBody {
        items: counts.into_iter().map(OccupancyItem::from).collect(),
        from: Instant(window.from),
        to: Instant(window.to),
        bucket_ms,
        views,
    };
    let draw = || charts::occupancy::draw(&body.items, window, bucket);
    answer(format, "occupancy", &body, &body.items, draw)
}
