//! `GET /v1/analytics/heatmap`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::TimeDelta;
use projections::analytics::Window;
use projections::analytics::occupancy::{self, Hour, SAMPLE_MINUTES};
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
use crate::shapes::{Instant, StatusName};

/// Which weeks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HeatmapQuery {
    /// From this instant or date on; 28 days before `to` if not given.
    from: Option<String>,
    /// Before this instant or date; now if not given.
    to: Option<String>,
    /// The time zone of the hours, and of dates: `Europe/Berlin`; UTC if not given.
    zone: Option<String>,
    /// Which people are counted; `online` if not given.
    #[param(inline)]
    status: Option<StatusName>,
    /// The form; else by `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// One hour of the week.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HeatmapItem {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    pub weekday: i32,
    /// 0 to 23, by the clock on the wall.
    pub hour: i32,
    /// How many people on average; null where the window has no such hour.
    #[schema(required = true)]
    pub average: Option<f64>,
    /// At how many instants they were counted, one every 5 minutes.
    pub samples: i64,
}

impl From<Hour> for HeatmapItem {
    fn from(hour: Hour) -> Self {
        let Hour { weekday, hour, average, samples } = hour;
        Self { weekday, hour, average, samples }
    }
}

impl Row for HeatmapItem {
    const COLUMNS: &'static [Column] = &[
        column("weekday", Kind::Integer),
        column("hour", Kind::Integer),
        column("average", Kind::Real),
        column("samples", Kind::Integer),
    ];

    fn cells(&self) -> Vec<Cell> {
        let (weekday, hour) = (i64::from(self.weekday), i64::from(self.hour));
        vec![weekday.into(), hour.into(), self.average.into(), self.samples.into()]
    }
}

/// People by hour and weekday.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeatmapBody {
    /// All 168 hours of a week, Monday's first.
    items: Vec<HeatmapItem>,
    from: Instant,
    to: Instant,
    /// The time zone.
    zone: String,
    status: StatusName,
    views: FreshnessBody,
}

/// How many people were in a status on average, by hour and weekday, as others were shown them:
/// counted every 5 minutes.
/// As JSON, CSV, Parquet or a picture.
#[utoipa::path(get, path = "/v1/analytics/heatmap", tag = "Analytics",
    operation_id = "get_heatmap",
    params(HeatmapQuery),
    responses((status = 200, body = HeatmapBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn heatmap(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<HeatmapQuery>,
) -> Result<Response, Problem> {
    caller.require(READERS)?;
    let format = params::format(query.format, &headers)?;
    let zone = params::zone(query.zone.as_deref())?;
    let edges = (query.from.as_deref(), query.to.as_deref());
    let given = params::window(edges, zone, TimeDelta::days(28), app.realm.now())?;
    let from = params::floor(given.from, TimeDelta::minutes(SAMPLE_MINUTES));
    let window = Window { from, ..given };
    let status = query.status.unwrap_or(StatusName::Online);
    let views = views(&app, &["occupancy"], query.min_position).await?;
    let pool = app.realm.analysis();
    let hours = occupancy::by_hour(pool, window, zone.name(), status.into()).await?;
    let body = HeatmapBody {
        items: hours.into_iter().map(HeatmapItem::from).collect(),
        from: Instant(window.from),
        to: Instant(window.to),
        zone: zone.name().to_owned(),
        status,
        views,
    };
    let draw = || charts::heatmap::draw(&body.items, window, zone, status.into());
    answer(format, "heatmap", &body, &body.items, draw)
}
