//! One user's status, now or at a past instant.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use domain::{Timestamp, UserId};
use projections::history;
use projections::realm::Consistency;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, StatusBody, StatusName};

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
#[derive(Debug, Serialize, ToSchema)]
pub struct PastStatusBody {
    #[schema(value_type = String)]
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

/// Now, or then.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes two answers of one call")]
enum StatusNowOrThen {
    Now(StatusBody),
    Then(PastStatusBody),
}

/// One user's status.
#[utoipa::path(get, path = "/v1/users/{id}/status", tag = "Presence",
    operation_id = "get_status",
    params(("id" = String, Path), StatusQuery),
    responses((status = 200, body = StatusNowOrThen, description = "With `at`: as it was then"),
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
    let consistency = match query.consistency {
        Some(ConsistencyName::Strong) => Consistency::Strong,
        None => Consistency::Usual,
    };
    let waited = app.at_least(query.min_position).await?;
    if let Some(at) = query.at {
        caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
        return Ok(no_store(Json(past(&app, user_id, at).await?)));
    }
    let user = app.known_user(&user_id).await?;
    let strong = consistency == Consistency::Strong || waited == Consistency::Strong;
    let consistency = if strong { Consistency::Strong } else { Consistency::Usual };
    Ok(no_store(Json(app.status(&caller, user, consistency).await?)))
}

async fn past(app: &App, user_id: UserId, at: Timestamp) -> Result<PastStatusBody, Problem> {
    let user = app.known_user(&user_id).await?;
    let settled = at <= app.realm.now();
    let as_of = history::as_of(app.realm.pool(), user, at).await?;
    let as_of = as_of.ok_or_else(Problem::user_not_found)?;
    // Not recorded yet: what the leases of now come to by then.
    let silences = app.realm.silences();
    let lapsed = |seen: projections::realm::Seen<'_>| {
        let due = domain::lapse::next_deadline(seen.state, &silences).filter(|due| *due <= at);
        due.and_then(|_| domain::lapse::settled(seen.state, &silences, at))
    };
    let recent = !settled || app.realm.now() - at < RECENT;
    let later = if recent {
        app.realm.look(&[user], Consistency::Strong, lapsed).await?.pop().flatten().flatten()
    } else {
        None
    };
    let (status, since) = match later {
        Some(state) if state.changed_at >= Some(as_of.since) => (state.status, state.since),
        Some(_) | None => (as_of.status, as_of.since),
    };
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

/// Deadlines as recent as this may not have been recorded yet.
const RECENT: chrono::TimeDelta = chrono::TimeDelta::seconds(10);
