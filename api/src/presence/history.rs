//! What was: a user's transitions, and the log.

use axum::extract::State;
use axum::response::Response;
use domain::{Position, UserId};
use projections::history;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::bulk::page_limit;
use super::status::no_store;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{EventBody, Page};

/// A page of transitions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TransitionsQuery {
    /// Items of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// The transitions of a user, oldest first.
#[utoipa::path(get, path = "/v1/users/{id}/transitions", tag = "History",
    operation_id = "list_transitions",
    params(("id" = String, Path), TransitionsQuery),
    responses((status = 200, body = Page<EventBody>),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn transitions(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
    Query(query): Query<TransitionsQuery>,
) -> Result<Response, Problem> {
    caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
    let limit = page_limit(query.limit)?;
    app.at_least(query.min_position).await?;
    let after = query.cursor.as_deref().unwrap_or("0").parse();
    let after: i64 = after.map_err(|_| Problem::invalid_parameter("cursor is none of ours"))?;
    let user = app.known_user(&user_id).await?;
    let events = history::transitions(app.realm.pool(), user, after, limit as i64).await?;
    if events.is_empty() && after == 0 {
        return Err(Problem::user_not_found());
    }
    let full = events.len() == limit;
    let last = events.last().and_then(|event| event.sequence).filter(|_| full);
    let next_cursor = last.map(|sequence| sequence.to_string());
    let items: Vec<EventBody> = events.into_iter().map(EventBody::from).collect();
    Ok(no_store(Json(Page { items, next_cursor })))
}

/// Which part of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Events above this position.
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    after: Position,
    /// At most so many: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Heartbeats too.
    #[serde(default)]
    heartbeats: bool,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// A part of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogBody {
    items: Vec<EventBody>,
    /// Where to go on: `after` of the next call.
    next: Position,
    /// The log's newest position.
    head: Position,
}

/// Events in position order.
#[utoipa::path(get, path = "/v1/log", tag = "History",
    operation_id = "read_log",
    params(LogQuery),
    responses((status = 200, body = LogBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn log(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Auditor, Role::Admin])?;
    let limit = page_limit(query.limit)?;
    app.at_least(query.min_position).await?;
    let head = history::head(app.realm.pool()).await?;
    let (after, heartbeats) = (query.after, query.heartbeats);
    let events = history::log(app.realm.pool(), after, head, heartbeats, limit).await?;
    let items: Vec<EventBody> = events.into_iter().map(EventBody::from).collect();
    let last = items.last().map_or(after, |event| event.position);
    let next = if items.len() < limit { head.max(after) } else { last };
    Ok(no_store(Json(LogBody { items, next, head })))
}
