//! `GET /v1/analytics/time-in-status`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{NaiveDate, TimeDelta};
use domain::UserId;
use projections::analytics::time::{self, Day, Days};
use projections::realm::Consistency;
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

/// How time is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeBucket {
    /// By day: 23 or 25 hours where the clocks of the zone change.
    #[default]
    Day,
}

/// Which days.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimeQuery {
    /// From this date or instant's day on; 7 days before `to` if not given.
    from: Option<String>,
    /// Before this date, or to this instant's day; now if not given.
    to: Option<String>,
    /// How it is put together: by day.
    #[serde(default)]
    #[param(inline)]
    bucket: TimeBucket,
    /// One user; else the sum of everybody.
    #[param(value_type = Option<String>)]
    user: Option<UserId>,
    /// The time zone of the days: `Europe/Berlin`; UTC if not given.
    zone: Option<String>,
    /// The form; else by `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// One day.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TimeItem {
    /// The day.
    #[schema(value_type = String, format = Date)]
    pub day: NaiveDate,
    /// How many people it sums up: those known by then.
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

impl From<Day> for TimeItem {
    fn from(told: Day) -> Self {
        let Day { day, users, online_ms, away_ms, busy_ms, dnd_ms, offline_ms } = told;
        Self { day, users, online_ms, away_ms, busy_ms, dnd_ms, offline_ms }
    }
}

impl Row for TimeItem {
    const COLUMNS: &'static [Column] = &[
        column("day", Kind::Text),
        column("users", Kind::Integer),
        column("online_ms", Kind::Integer),
        column("away_ms", Kind::Integer),
        column("busy_ms", Kind::Integer),
        column("dnd_ms", Kind::Integer),
        column("offline_ms", Kind::Integer),
    ];

    fn cells(&self) -> Vec<Cell> {
        let numbers =
            [self.users, self.online_ms, self.away_ms, self.busy_ms, self.dnd_ms, self.offline_ms];
        std::iter::once(self.day.to_string().into()).chain(numbers.map(Cell::from)).collect()
    }
}

/// Time in each status.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimeBody {
    /// The days on which anybody was known, oldest first.
    items: Vec<TimeItem>,
    /// The first day.
    #[schema(value_type = String, format = Date)]
    from: NaiveDate,
    /// The day after the last.
    #[schema(value_type = String, format = Date)]
    to: NaiveDate,
    bucket: TimeBucket,
    /// The time zone.
    zone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    user: Option<UserId>,
    views: FreshnessBody,
}

/// How long people were in each status, as others were shown them. As JSON, CSV, Parquet or a
/// picture.
#[utoipa::path(get, path = "/v1/analytics/time-in-status", tag = "Analytics",
    operation_id = "get_time_in_status",
    params(TimeQuery),
    responses((status = 200, body = TimeBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn time_in_status(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<TimeQuery>,
) -> Result<Response, Problem> {
    caller.require(READERS)?;
    let format = params::format(query.format, &headers)?;
    let zone = params::zone(query.zone.as_deref())?;
    let edges = (query.from.as_deref(), query.to.as_deref());
    let window = params::window(edges, zone, TimeDelta::days(7), app.realm.now())?;
    let (from, to) = params::days(window, zone);
    if let Some(user) = &query.user {
        must_be_seen(&app, user).await?;
    }
    let views = views(&app, &["status_span", "status_daily"], query.min_position).await?;
    let named = (zone != chrono_tz::UTC).then(|| zone.name());
    let days = Days { from, to, zone: named, user: query.user.as_ref() };
    let told = time::by_day(app.realm.analysis(), days).await?;
    let body = TimeBody {
        items: told.into_iter().map(TimeItem::from).collect(),
        from,
        to,
        bucket: query.bucket,
        zone: zone.name().to_owned(),
        user: query.user,
        views,
    };
    let draw = || charts::time::draw(&body.items, (from, to), zone, body.user.as_ref());
    answer(format, "time-in-status", &body, &body.items, draw)
}

/// 404 for a user who was never seen; the number of any other.
pub(super) async fn must_be_seen(app: &App, user: &UserId) -> Result<domain::UserNo, Problem> {
    let number = app.known_user(user).await?;
    let seen = app.realm.look(&[number], Consistency::Usual, |_| ()).await?;
    if seen.first().is_some_and(Option::is_some) {
        Ok(number)
    } else {
        Err(Problem::user_not_found())
    }
}
