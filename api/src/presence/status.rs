//! One user's status, now or at a past instant.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Datelike, Utc};
use domain::{Timestamp, UserId, lapse};
use projections::history;
use projections::realm::{Consistency, Seen};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, StatusBody, StatusName};
use crate::sweeper;

/// An answer that nobody may keep: it is true only now.
pub(crate) fn no_store(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], answer).into_response()
}

/// Where a read takes its answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyName {
    /// The database, with every node's heartbeats.
    Strong,
}

/// Which status is meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// At that instant rather than now: for the user itself, auditors and admins.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<DateTime<Utc>>,
    /// Ask the database rather than this node's memory.
    #[param(inline)]
    consistency: Option<ConsistencyName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// A user's status at a past instant.
#[derive(Debug, Serialize)]
pub struct PastStatusBody {
    user_id: UserId,
    status: StatusName,
    since: Instant,
    last_seen: Option<Instant>,
    invisible: bool,
    /// The instant that was asked about.
    at: Instant,
    /// False: later than what has been recorded so far; time-outs by then are reckoned with.
    settled: bool,
}

/// One user's status.
#[utoipa::path(get, path = "/v1/users/{id}/status", tag = "Presence",
    operation_id = "get_status",
    params(("id" = String, Path), StatusQuery),
    responses((status = 200, body = StatusBody, description = "With `at`: as it was then, with \
            `at`, `invisible`, and `settled`: whether all of that time has been recorded"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn status(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
    Query(query): Query<StatusQuery>,
) -> Result<Response, Problem> {
    let waited = app.at_least(query.min_position).await?;
    if let Some(at) = query.at {
        caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
        // RFC 3339 has no other years, and PostgreSQL not all that chrono has.
        if !(0..=9999).contains(&at.year()) {
            return Err(Problem::invalid_parameter("at: a year is 0000 to 9999"));
        }
        return Ok(no_store(Json(past(&app, user_id, at).await?)));
    }
    let user = app.known_user(&user_id).await?;
    let consistency = match query.consistency {
        Some(ConsistencyName::Strong) => Consistency::Strong,
        None => waited,
    };
    Ok(no_store(Json(app.status(&caller, user, consistency).await?)))
}

async fn past(app: &App, user_id: UserId, at: Timestamp) -> Result<PastStatusBody, Problem> {
    let user = app.known_user(&user_id).await?;
    let recorded = app.realm.now() - sweeper::BEHIND;
    let as_of = history::as_of(app.realm.pool(), user, at).await?;
    let as_of = as_of.ok_or_else(Problem::user_not_found)?;
    // What time does by then may not be recorded yet: the leases of now are reckoned with.
    let silences = app.realm.silences();
    let then = |seen: Seen<'_>| {
        let later = lapse::settled(seen.state, &silences, at);
        let state = later.as_ref().unwrap_or(seen.state);
        (state.status, state.since)
    };
    let found = app.realm.look(&[user], Consistency::Strong, then).await?.pop().flatten();
    let reckoned = found.filter(|(_, since)| (as_of.since..=at).contains(since));
    let settled = at <= recorded && reckoned.is_none_or(|(status, _)| status == as_of.status);
    let (status, since) = reckoned.unwrap_or((as_of.status, as_of.since));
    Ok(PastStatusBody {
        user_id,
        status: status.into(),
        since: Instant(since),
        last_seen: as_of.last_seen.map(Instant),
        invisible: as_of.invisible,
        at: Instant(at),
        settled,
    })
}
