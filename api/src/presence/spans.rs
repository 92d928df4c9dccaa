//! A user's history as spans.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use domain::{Position, Timestamp, UserId};
use projections::spans::{self, Cause, Span, Window};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::as_of::check;
use super::bulk::page_limit;
use super::status::no_store;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, Page, StatusName};

/// Which part of a history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// From this instant on; else from the user's first event.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<DateTime<Utc>>,
    /// Up to this instant; else to now.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<DateTime<Utc>>,
    /// As it was known at this instant, by when it was written down.
    #[param(value_type = Option<String>, format = DateTime)]
    known_at: Option<DateTime<Utc>>,
    /// Items of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// An interval with one status.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpanBody {
    status: StatusName,
    /// When it began, or the window does.
    from: Instant,
    /// When it ended, or the window does; null: it still holds.
    #[schema(required = true)]
    to: Option<Instant>,
    /// What began it.
    cause: CauseBody,
    /// What ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<CauseBody>,
}

/// The event at an end of a span.
#[derive(Debug, Serialize, ToSchema)]
pub struct CauseBody {
    #[serde(rename = "type")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    position: Position,
}

impl From<Cause> for CauseBody {
    fn from(cause: Cause) -> Self {
        let reason = cause.reason.map(domain::Reason::as_str);
        Self { name: cause.name, reason, position: cause.position }
    }
}

impl SpanBody {
    /// The part of a span that lies in a window.
    fn clipped(span: Span, from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> Self {
        // What still holds is not known to hold later than now.
        let to = match (span.to, to) {
            (Some(end), Some(to)) => Some(end.min(to)),
            (None, Some(to)) => (to <= now).then_some(to),
            (end, None) => end,
        };
        Self {
            status: span.status.into(),
            from: Instant(from.map_or(span.from, |from| span.from.max(from))),
            to: to.map(Instant),
            cause: span.cause.into(),
            end: span.end.map(CauseBody::from),
        }
    }
}

/// The history of a user, oldest first, without overlap or hole, clipped to the window.
#[utoipa::path(get, path = "/v1/users/{id}/history", tag = "History",
    operation_id = "get_history",
    params(("id" = String, Path), HistoryQuery),
    responses((status = 200, body = Page<SpanBody>),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn history(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Problem> {
    caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
    let limit = page_limit(query.limit)?;
    let (from, to) = window(query.from, query.to)?;
    app.at_least(query.min_position).await?;
    let user = app.known_user(&user_id).await?;
    if app.realm.look(&[user], projections::realm::Consistency::Usual, |_| ()).await?[0].is_none() {
        return Err(Problem::user_not_found());
    }
    let pool = app.realm.pool();
    let known = match query.known_at {
        Some(known_at) => Some(spans::position_at(pool, check(known_at)?).await?),
        None => None,
    };
    let begin = match query.cursor.as_deref() {
        Some(cursor) => Some(parse_cursor(cursor)?.max(from.unwrap_or(Timestamp::MIN_UTC))),
        None => from,
    };
    // One more than asked for tells where the next page begins.
    let window = Window { from: begin, to, known };
    let mut found = spans::history(pool, user, window, limit as i64 + 1).await?;
    let next = found.get(limit).map(|span| span.from.timestamp_micros().to_string());
    found.truncate(limit);
    let now = app.realm.now();
    let clip = |span| SpanBody::clipped(span, from, to, now);
    let items: Vec<SpanBody> = found.into_iter().map(clip).collect();
    Ok(no_store(Json(Page { items, next_cursor: next })))
}

/// A window of time: 422 where it is empty.
pub(crate) fn window(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
    let (from, to) = (from.map(check).transpose()?, to.map(check).transpose()?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Problem::rule("empty_window", "from must be before to"));
    }
    Ok((from, to))
}

fn parse_cursor(cursor: &str) -> Result<Timestamp, Problem> {
    let micros = cursor.parse().ok().and_then(Timestamp::from_timestamp_micros);
    micros.ok_or_else(|| Problem::invalid_parameter("cursor is none of ours"))
}
