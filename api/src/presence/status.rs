//! One user's status, now or at a past instant.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use domain::UserId;
use projections::realm::Consistency;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::as_of::{self, Moment};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusBody;

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
    /// With `at`: as it was known at this instant, by when it was written down.
    #[param(value_type = Option<String>, format = DateTime)]
    known_at: Option<DateTime<Utc>>,
    /// Ask the database rather than this node's memory.
    #[param(inline)]
    consistency: Option<ConsistencyName>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
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
    if let Some(moment) = Moment::parse(query.at, query.known_at)? {
        caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
        return Ok(no_store(Json(as_of::one(&app, user_id, moment).await?)));
    }
    let user = app.known_user(&user_id).await?;
    let consistency = match query.consistency {
        Some(ConsistencyName::Strong) => Consistency::Strong,
        None => waited,
    };
    Ok(no_store(Json(app.status(&caller, user, consistency).await?)))
}
