//! `GET /v1/analytics/day`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{Days, NaiveDate};
use domain::{Position, UserId};
use projections::analytics::Window;
use projections::analytics::day::{self, Lane, Story, Stretch};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::answer::{FreshnessBody, answer, views};
use super::params::{self, FormatName};
use super::time::must_be_seen;
use super::{READERS, charts};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::Query;
use crate::formats::table::{Cell, Column, Kind, Row, column};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{DeviceKindName, Instant, StatusName};

/// Whose day.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DayQuery {
    /// The user.
    #[param(value_type = String)]
    user: UserId,
    /// The day; today if not given.
    #[param(value_type = Option<String>, format = Date)]
    date: Option<NaiveDate>,
    /// The time zone of the day: `Europe/Berlin`; UTC if not given.
    zone: Option<String>,
    /// The form; else by `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// A stretch of the day with one status.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DayItem {
    /// The status.
    pub status: StatusName,
    /// When it began, or the day did.
    pub from: Instant,
    /// When it ended, or the day did; null: it still holds.
    #[schema(required = true)]
    pub to: Option<Instant>,
    /// What began it; not where the day is told as others were shown it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<DayCause>,
}

/// The event that began a stretch.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DayCause {
    /// Its stored name.
    #[serde(rename = "type")]
    name: String,
    /// Why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Its place in the log.
    position: Position,
}

impl From<Stretch> for DayItem {
    fn from(stretch: Stretch) -> Self {
        let cause = stretch.cause.map(|cause| DayCause {
            name: cause.name,
            reason: cause.reason.map(domain::Reason::as_str),
            position: cause.position,
        });
        Self {
            status: stretch.status.into(),
            from: Instant(stretch.from),
            to: stretch.to.map(Instant),
            cause,
        }
    }
}

impl Row for DayItem {
    const COLUMNS: &'static [Column] = &[
        column("status", Kind::Text),
        column("from", Kind::Instant),
        column("to", Kind::Instant),
        column("cause", Kind::Text),
        column("reason", Kind::Text),
        column("position", Kind::Integer),
    ];

    fn cells(&self) -> Vec<Cell> {
        let cause = self.cause.as_ref();
        vec![
            domain::Status::from(self.status).as_str().into(),
            self.from.0.into(),
            self.to.map(|to| to.0).into(),
            cause.map(|cause| cause.name.as_str()).into(),
            cause.and_then(|cause| cause.reason).into(),
            cause.map(|cause| cause.position).into(),
        ]
    }
}

/// A session that was open at some time of the day.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DaySession {
    /// Its name.
    session_id: Uuid,
    /// What it ran on.
    pub device_kind: DeviceKindName,
    /// The login, perhaps on an earlier day.
    pub opened_at: Instant,
    /// The end; null: not over yet.
    #[schema(required = true)]
    pub ended_at: Option<Instant>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl From<Lane> for DaySession {
    fn from(lane: Lane) -> Self {
        Self {
            session_id: lane.session_id,
            device_kind: lane.kind.into(),
            opened_at: Instant(lane.opened_at),
            ended_at: lane.ended_at.map(Instant),
            reason: lane.reason.map(domain::Reason::as_str),
        }
    }
}

/// One person's day.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayBody {
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String, format = Date)]
    date: NaiveDate,
    zone: String,
    /// When the day begins.
    from: Instant,
    /// When it ends.
    to: Instant,
    /// Whether it is told as others were shown it, rather than as it was.
    as_shown: bool,
    /// The statuses, oldest first, without hole from the user's first event on.
    items: Vec<DayItem>,
    /// The sessions, oldest first.
    sessions: Vec<DaySession>,
    views: FreshnessBody,
}

/// One person's day: statuses and sessions. As it was, for the user, auditors and admins; as others
/// were shown it, for analysts. As JSON, CSV, Parquet or a picture.
#[utoipa::path(get, path = "/v1/analytics/day", tag = "Analytics",
    operation_id = "get_day",
    params(DayQuery),
    responses((status = 200, body = DayBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn day(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<DayQuery>,
) -> Result<Response, Problem> {
    caller.require_self_or(&query.user, READERS)?;
    let entitled = caller.is(&query.user) || caller.has_any(&[Role::Auditor, Role::Admin]);
    let story = if entitled { Story::Truth } else { Story::Shown };
    let format = params::format(query.format, &headers)?;
    let zone = params::zone(query.zone.as_deref())?;
    let now = app.realm.now();
    let date = query.date.unwrap_or_else(|| now.with_timezone(&zone).date_naive());
    let out_of_range = || Problem::rule("invalid_value", "date: the year is 0000 to 9999");
    let next = date.checked_add_days(Days::new(1)).ok_or_else(out_of_range)?;
    let window = Window { from: params::midnight(date, zone), to: params::midnight(next, zone) };
    crate::presence::as_of::check(window.from).map_err(|_| out_of_range())?;
    if window.from == window.to {
        let detail = format!("date: {} has no {date}", zone.name());
        return Err(Problem::rule("invalid_value", detail));
    }
    let user = must_be_seen(&app, &query.user).await?;
    let views = views(&app, &["status_span", "session_span"], query.min_position).await?;
    let pool = app.realm.analysis();
    let stretches = day::stretches(pool, user, window, story).await?;
    let lanes = day::lanes(pool, user, window, story).await?;
    let body = DayBody {
        user_id: query.user,
        date,
        zone: zone.name().to_owned(),
        from: Instant(window.from),
        to: Instant(window.to),
        as_shown: story == Story::Shown,
        items: stretches.into_iter().map(DayItem::from).collect(),
        sessions: lanes.into_iter().map(DaySession::from).collect(),
        views,
    };
    let draw = || {
        let about = charts::day::About { user: &body.user_id, date, window, zone, story, now };
        charts::day::draw(&body.items, &body.sessions, &about)
    };
    answer(format, "day", &body, &body.items, draw)
}
