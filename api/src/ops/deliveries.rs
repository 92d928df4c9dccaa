//! What webhook endpoints were told and what not; a trial, and telling again.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::Position;
use projections::deliveries::{self, Listed, State as DeliveryState};
use projections::history;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path, Query};
use crate::presence::bulk::page_limit;
use crate::presence::status::no_store;
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, Page};
use crate::webhooks::courier::letter_id;
use crate::webhooks::sender::Letter;

/// How long a trial may take: less than the request that asks for it.
const TRIAL_MAX: Duration = Duration::from_secs(8);

/// What became of a delivery.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStateName {
    /// To be told, now or again.
    Pending,
    /// Told, within the last 24 h.
    Delivered,
    /// Given up after the last attempt, within the last 30 days.
    Dead,
}

impl From<DeliveryState> for DeliveryStateName {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Pending => Self::Pending,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Dead => Self::Dead,
        }
    }
}

impl From<DeliveryStateName> for DeliveryState {
    fn from(state: DeliveryStateName) -> Self {
        match state {
            DeliveryStateName::Pending => Self::Pending,
            DeliveryStateName::Delivered => Self::Delivered,
            DeliveryStateName::Dead => Self::Dead,
        }
    }
}

/// One event at one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryBody {
    /// `webhook-id`: the same at every attempt.
    id: String,
    /// Which event.
    #[schema(value_type = i64)]
    event_position: Position,
    /// Its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// The rule that wants it told.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    state: DeliveryStateName,
    attempts: i32,
    /// Not before, while pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Instant>,
    /// The latest answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<i32>,
    /// Why the latest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it was delivered or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Instant>,
}

impl From<Listed> for DeliveryBody {
    fn from(listed: Listed) -> Self {
        let key = listed.key;
        let pending = listed.state == DeliveryState::Pending;
        Self {
            id: letter_id(key.webhook, key.position, &key.rule),
            event_position: key.position,
            event_type: listed.event,
            rule: Some(key.rule).filter(|rule| !rule.is_empty()),
            state: listed.state.into(),
            attempts: listed.attempts,
            next_attempt_at: pending.then_some(Instant(listed.next_at)),
            http_status: listed.http_status,
            error: listed.error,
            settled_at: listed.settled_at.map(Instant),
        }
    }
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// Only those.
    state: Option<DeliveryStateName>,
    /// Of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
}

/// What an endpoint is to be told, was told, and could not be told; newest event first.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "Operations",
    operation_id = "list_deliveries",
    params(("id" = Uuid, Path), DeliveriesQuery),
    responses((status = 200, body = Page<DeliveryBody>),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let limit = page_limit(query.limit)?;
    let before = query.cursor.as_deref().map(parsed).transpose()?;
    app.webhook(id).await?;
    let state = query.state.map(DeliveryState::from);
    let pool = app.realm.pool();
    let mut found = deliveries::list(pool, id, state, before.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).map(|last| &last.key);
    let next_cursor = last.map(|key| format!("{}.{}", key.position, key.rule));
    let items: Vec<DeliveryBody> = found.into_iter().map(DeliveryBody::from).collect();
    Ok(no_store(Json(Page { items, next_cursor })))
}

fn parsed(cursor: &str) -> Result<(Position, String), Problem> {
    let parts = cursor.split_once('.');
    let place = parts.and_then(|(at, rule)| Some((at.parse().ok()?, rule.to_owned())));
    place.ok_or_else(|| Problem::invalid_parameter("cursor is none of ours"))
}

/// How a trial went.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrialBody {
    /// Its `webhook-id`.
    id: String,
    /// Whether it was taken: answered 2xx.
    delivered: bool,
    /// The answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    duration_ms: u64,
}

/// What is told for trial.
#[derive(Debug, Serialize)]
struct Trial {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Instant,
    data: serde_json::Map<String, serde_json::Value>,
}

/// Tells an endpoint `rollcall.webhook_test`, signed as everything, once; also a disabled one.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "Operations",
    operation_id = "test_webhook",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = TrialBody, description = "Whether or not it was taken"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let url = app.webhook(id).await?.endpoint.url;
    let secrets = app.webhooks.secrets(id).await?;
    let letter = format!("msg_{}_test_{}", id.simple(), Uuid::now_v7().simple());
    let timestamp = Instant(app.realm.now());
    let trial = Trial { kind: "rollcall.webhook_test", timestamp, data: serde_json::Map::new() };
    let body = serde_json::to_string(&trial).map_err(Problem::internal)?;
    let began = std::time::Instant::now();
    let posted = Letter { url: &url, id: &letter, body, secrets: &secrets };
    let answered = app.sender.post(posted, TRIAL_MAX).await;
    Ok(no_store(Json(TrialBody {
        id: letter,
        delivered: answered.fault.is_none(),
        http_status: answered.status,
        error: answered.fault,
        duration_ms: began.elapsed().as_millis() as u64,
    })))
}

/// What is to be told again: one of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Everything above this position, in order.
    #[schema(value_type = Option<i64>, minimum = 0)]
    after: Option<Position>,
    /// What was given up, beside what goes on.
    #[serde(default)]
    dead: bool,
}

/// What will be told again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayBody {
    /// Of those given up: how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<u64>,
    /// The log is looked through again from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    checkpoint: Option<Position>,
    /// The log's head.
    #[schema(value_type = i64)]
    position: Position,
}

/// Tells again, under the same ids: what was given up, or everything above a position.
#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", tag = "Operations",
    operation_id = "replay_webhook",
    params(("id" = Uuid, Path)), request_body = ReplayRequest,
    responses((status = 202, body = ReplayBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`one_of_after_and_dead`; `beyond_head`")))]
pub async fn replay(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    _: NoQuery,
    Json(request): Json<ReplayRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    app.webhook(id).await?;
    let pool = app.realm.pool();
    let (replayed, checkpoint) = match (request.after, request.dead) {
        (None, true) => (Some(deliveries::replay_dead(pool, id).await?), None),
        (Some(after), false) => {
            let head = history::head(pool).await?;
            if !(0..=head).contains(&after) {
                return Err(Problem::rule("beyond_head", format!("the log's head is {head}")));
            }
            (None, Some(deliveries::replay_after(pool, id, after).await?))
        }
        (None, false) | (Some(_), true) => {
            let detail = "say either `after` or `dead: true`";
            return Err(Problem::rule("one_of_after_and_dead", detail));
        }
    };
    tracing::info!(webhook = %id, ?replayed, ?checkpoint, "an admin has it told again");
    let position = app.realm.position();
    let body = ReplayBody { replayed, checkpoint, position };
    Ok((StatusCode::ACCEPTED, no_store(Json(body))).into_response())
}
