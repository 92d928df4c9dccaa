//! What was: a user's transitions.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use domain::UserId;
use projections::history;
use serde::Deserialize;
use utoipa::IntoParams;

use super::bulk::page_limit;
use super::log::FORMS;
use super::status::no_store;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::formats::accept;
use crate::formats::events::{self, EventForm};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{EventBody, Page};

/// Where the next page begins, of forms that have no place for it.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("rollcall-next-cursor");

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

/// The transitions of a user, oldest first. As JSON, NDJSON, CSV, Parquet or a batch of
/// `CloudEvents`, by `Accept`; in all forms but JSON, the next page's cursor stands in the header
/// `Rollcall-Next-Cursor`.
#[utoipa::path(get, path = "/v1/users/{id}/transitions", tag = "History",
    operation_id = "list_transitions",
    params(("id" = String, Path), TransitionsQuery),
    responses((status = 200, body = Page<EventBody>),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn transitions(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<UserId>,
    headers: HeaderMap,
    Query(query): Query<TransitionsQuery>,
) -> Result<Response, Problem> {
    caller.require_self_or(&user_id, &[Role::Auditor, Role::Admin])?;
    let format = accept::choose(&headers, &FORMS)?;
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
    let Some(form) = EventForm::of(format) else {
        return Ok(no_store(Json(Page { items, next_cursor })));
    };
    let mut answer = format.answer("transitions", events::file(form, &items)?);
    if let Some(cursor) = last {
        answer.headers_mut().insert(NEXT_CURSOR, HeaderValue::from(cursor));
    }
    Ok(answer)
}
