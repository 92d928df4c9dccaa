//! `GET /v1/analytics/sessions`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::TimeDelta;
use projections::analytics::sessions::{self, By, Group, LENGTHS_MS};
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

/// The classes of lengths, in words.
pub const LENGTHS: [&str; LENGTHS_MS.len() + 1] = [
    "under 1 min",
    "1 to 5 min",
    "5 to 15 min",
    "15 to 30 min",
    "30 to 60 min",
    "1 to 2 h",
    "2 to 4 h",
    "4 to 8 h",
    "8 to 24 h",
    "24 h and more",
];

/// Which sessions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    /// Sessions that ended at this instant or date (UTC) or later; 7 days before `to` if not given.
    from: Option<String>,
    /// Sessions that ended before this instant or date; now if not given.
    to: Option<String>,
    /// The form; else by `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// Sessions that have something in common.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SessionsItem {
    /// By what they are put together: `all`, `reason` (why they ended), `device_kind`, `length`.
    pub by: &'static str,
    /// The reason, the kind of device, the length; `all`.
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

impl From<Group> for SessionsItem {
    fn from(group: Group) -> Self {
        Self {
            by: group.by.as_str(),
            key: group.key,
            sessions: group.sessions,
            total_ms: group.total_ms,
            median_ms: group.median_ms,
            p90_ms: group.p90_ms,
            p99_ms: group.p99_ms,
            max_ms: group.max_ms,
        }
    }
}

impl Row for SessionsItem {
    const COLUMNS: &'static [Column] = &[
        column("by", Kind::Text),
        column("key", Kind::Text),
        column("sessions", Kind::Integer),
        column("total_ms", Kind::Integer),
        column("median_ms", Kind::Integer),
        column("p90_ms", Kind::Integer),
        column("p99_ms", Kind::Integer),
        column("max_ms", Kind::Integer),
    ];

    fn cells(&self) -> Vec<Cell> {
        let numbers =
            [self.sessions, self.total_ms, self.median_ms, self.p90_ms, self.p99_ms, self.max_ms];
        let words = [Cell::from(self.by), Cell::from(self.key.as_str())];
        words.into_iter().chain(numbers.map(Cell::from)).collect()
    }
}

/// Sessions that ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionLengthsBody)]
pub struct SessionsBody {
    /// All of them; by reason; by kind of device; by length, shortest first, all ten classes.
    items: Vec<SessionsItem>,
    /// How many had begun before `to` and are not over yet.
    open: i64,
    from: Instant,
    to: Instant,
    views: FreshnessBody,
}

/// How long sessions lasted and why they ended, without those in which the user was invisible.
/// As JSON, CSV, Parquet or a picture.
#[utoipa::path(get, path = "/v1/analytics/sessions", tag = "Analytics",
    operation_id = "get_session_lengths",
    params(SessionsQuery),
    responses((status = 200, body = SessionsBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn sessions(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<SessionsQuery>,
) -> Result<Response, Problem> {
    caller.require(READERS)?;
    let format = params::format(query.format, &headers)?;
    let edges = (query.from.as_deref(), query.to.as_deref());
    let window = params::window(edges, chrono_tz::UTC, TimeDelta::days(7), app.realm.now())?;
    let views = views(&app, &["session_span"], query.min_position).await?;
    let groups = sessions::ended(app.realm.analysis(), window).await?;
    let open = sessions::open(app.realm.analysis(), window).await?;
    let body = SessionsBody {
        items: items(&groups),
        open,
        from: Instant(window.from),
        to: Instant(window.to),
        views,
    };
    let draw = || charts::sessions::draw(&body.items, window);
    answer(format, "sessions", &body, &body.items, draw)
}

/// All, by reason, by kind of device, and every class of lengths, also those without a session.
fn items(groups: &[Group]) -> Vec<SessionsItem> {
    let of = |by: By| groups.iter().filter(move |group| group.by == by);
    let ways = [By::All, By::Reason, By::DeviceKind];
    let mut items: Vec<SessionsItem> =
        ways.into_iter().flat_map(of).cloned().map(SessionsItem::from).collect();
    items.extend(LENGTHS.iter().enumerate().map(|(class, words)| {
        let found = of(By::Length).find(|group| group.key == class.to_string());
        let none = Group {
            by: By::Length,
            key: String::new(),
            sessions: 0,
            total_ms: 0,
            median_ms: 0,
            p90_ms: 0,
            p99_ms: 0,
            max_ms: 0,
        };
        let group = found.cloned().unwrap_or(none);
        SessionsItem { key: (*words).to_owned(), ..SessionsItem::from(group) }
    }));
    items
}
