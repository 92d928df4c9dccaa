//! Why a user has the status it has.

use axum::extract::State;
use axum::response::Response;
use domain::rules::{self, Rule};
use domain::{Position, UserId};
use projections::history::{self, LoggedEvent};
use projections::realm::{Consistency, Seen};
use serde::Serialize;
use utoipa::ToSchema;

use super::status::no_store;
use crate::app::{App, ReadQuery};
use crate::auth::{Caller, Role};
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{ClaimBody, EventBody, Instant, SessionBody, StatusName};

/// How many of the newest transitions are looked through for those that decided.
const LOOK_BACK: i64 = 500;

/// Why a user has the status it has.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainBody {
    #[schema(value_type = String)]
    user_id: UserId,
    status: StatusName,
    since: Instant,
    /// Whether others are shown `offline`.
    invisible: bool,
    /// The rule that decided: the highest one that applies.
    #[schema(value_type = String)]
    rule: Rule,
    /// The same in words.
    because: &'static str,
    sessions: Vec<SessionBody>,
    claims: Vec<ClaimBody>,
    /// The events that it rests on, by position.
    events: Vec<EventBody>,
    sequence: i64,
    position: Position,
}

/// Explains a status.
#[utoipa::path(get, path = "/v1/users/{id}/explain", tag = "Presence",
    operation_id = "explain_status",
    params(("id" = String, Path), ReadQuery),
    responses((status = 200, body = ExplainBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn explain(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ReadQuery>,
    Path(user_id): Path<UserId>,
) -> Result<Response, Problem> {
    app.at_least(query.min_position).await?;
    caller.require_self_or(&user_id, &[Role::Service, Role::Auditor, Role::Admin])?;
    let user = app.known_user(&user_id).await?;
    let devices = history::devices(app.realm.pool(), user).await?;
    let latest = history::latest(app.realm.pool(), user, LOOK_BACK).await?;
    let silences = app.realm.silences();
    let look = |seen: Seen<'_>| {
        let (status, rule) = rules::status(seen.state);
        let session = |live: &domain::Session| {
            let device = devices.iter().find(|(id, ..)| *id == live.id);
            let detail = device.and_then(|(.., detail)| detail.as_ref());
            SessionBody::of(seen.user_id, live, &silences, detail)
        };
        ExplainBody {
            user_id: seen.user_id.clone(),
            status: status.into(),
            since: Instant(seen.state.since),
            invisible: seen.state.invisible,
            rule,
            because: because(rule),
            sessions: seen.state.sessions.iter().map(session).collect(),
            claims: seen.state.claims.iter().map(ClaimBody::from).collect(),
            events: Vec::new(),
            sequence: seen.state.sequence,
            position: seen.position,
        }
    };
    let found = app.realm.look(&[user], Consistency::Strong, look).await?.pop().flatten();
    let mut body = found.ok_or_else(Problem::user_not_found)?;
    body.events = deciding(latest, &body);
    Ok(no_store(Json(body)))
}

fn because(rule: Rule) -> &'static str {
    match rule {
        Rule::NoLiveSession => "no live session",
        Rule::AdminClaim => "an admin claims it",
        Rule::ManualClaim => "the user claims it",
        Rule::SystemClaim => "a system claims it",
        Rule::SessionActive => "a session is active",
        Rule::AllSessionsIdle => "all sessions are idle",
    }
}

/// The newest change of status, and what the live sessions and claims began with.
fn deciding(latest: Vec<LoggedEvent>, body: &ExplainBody) -> Vec<EventBody> {
    let mut changed = false;
    let mut events: Vec<EventBody> = latest
        .into_iter()
        .filter(|event| {
            let last_change = !changed && event.from_status != event.to_status;
            changed |= last_change;
            let of_live_session = event
                .session_id
                .is_some_and(|id| body.sessions.iter().any(|live| live.session_id == id));
            let source = event.data.get("source").and_then(|value| value.as_str());
            let of_claim = event.name == "claim_set"
                && body.claims.iter().any(|claim| Some(claim.source.as_str()) == source);
            last_change || of_live_session || of_claim || event.position == body.position
        })
        .map(EventBody::from)
        .collect();
    events.reverse();
    events
}
