//! Login, logout, and the sessions of a user.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::command::Open;
use domain::{Command, Outcome, Position, Reason, SessionId, UserId, UserNo};
use projections::history::{self, EndedSession, SessionFound};
use projections::realm::{Consistency, Seen};
use projections::{Asked, Executed};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{done, plain_text};
use crate::app::{App, ReadQuery};
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, OptionalJson, Path, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{DeviceBody, Instant, SessionBody, StatusBody};

/// Longest device id and label, in characters.
pub const DEVICE_TEXT_LENGTH_MAX: usize = 256;

/// A login.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// For whom; the caller, if not given. Others need `service` or `admin`.
    #[schema(value_type = Option<String>)]
    user_id: Option<String>,
    /// The session's name; made if not given.
    session_id: Option<Uuid>,
    /// The device.
    device: Option<DeviceBody>,
    /// How long the person has been idle.
    #[serde(default)]
    idle_ms: u32,
}

/// A session is open.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenedBody {
    session_id: Uuid,
    #[schema(value_type = String)]
    user_id: UserId,
    status: StatusBody,
    /// How often to send a heartbeat.
    heartbeat_interval_ms: u32,
    /// How long the session lives without one.
    lease_ms: u32,
    position: Position,
    server_time: Instant,
}

/// Opens a session. Repeatable: the same open `session_id` answers the same without an event.
#[utoipa::path(post, path = "/v1/sessions", tag = "Presence",
    operation_id = "open_session",
    request_body = Option<OpenBody>,
    responses((status = 201, body = OpenedBody), (status = 200, body = OpenedBody,
        description = "The session was open already"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 410, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn open(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    OptionalJson(body): OptionalJson<OpenBody>,
) -> Result<Response, Problem> {
    let asked = Asked::by(None);
    let user_id = user_to_act_for(&caller, body.user_id.as_deref())?;
    let user = app.realm.names().number(&user_id).await?;
    let session = body.session_id.unwrap_or_else(Uuid::now_v7);
    let device = body.device.unwrap_or_default();
    let command = Command::Open(Open {
        session,
        kind: device.kind.into(),
        idle_ms: body.idle_ms.min(i32::MAX as u32),
        interaction_driven: false,
    });
    let actor = Some(app.actor(&caller).await?);
    let asked = Asked { actor, detail: device_detail(device)?, ..asked };
    let receipt = match app.realm.execute(user, &command, asked).await? {
        Executed::SessionEnded => return Err(used_before(&app, user, session).await?),
        executed => done(executed)?,
    };
    let existed = receipt.outcome == Outcome::Opened { existed: true };
    let position = if existed {
        opened_position(&app, user, session).await?.unwrap_or(receipt.position)
    } else {
        receipt.position
    };
    let policy = app.realm.policy();
    let look = |seen: Seen<'_>| {
        let lease_ms = seen.state.session(session).map(|live| live.lease_ms);
        (StatusBody::of(seen, App::audience(&caller, seen.user_id)), lease_ms)
    };
    let found = app.realm.look(&[user], Consistency::Usual, look).await?.pop().flatten();
    let (status, lease_ms) = found.ok_or_else(Problem::user_not_found)?;
    let body = OpenedBody {
        session_id: session,
        user_id,
        status,
        heartbeat_interval_ms: policy.heartbeat_ms,
        lease_ms: lease_ms.unwrap_or(policy.lease_ms),
        position,
        server_time: Instant(app.realm.now()),
    };
    let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(body)).into_response())
}

/// Who is meant: the caller, or somebody else for those who may.
fn user_to_act_for(caller: &Caller, user_id: Option<&str>) -> Result<UserId, Problem> {
    let Some(user_id) = user_id else {
        caller.require(&[Role::User, Role::Service, Role::Admin])?;
        return Ok(caller.user_id.clone());
    };
    let user_id: UserId = user_id.parse().map_err(|_| Problem::invalid_user_id())?;
    if caller.is(&user_id) {
        caller.require(&[Role::User, Role::Service, Role::Admin])?;
    } else {
        caller.require(&[Role::Service, Role::Admin])?;
    }
    Ok(user_id)
}

/// What is kept of a device apart from the log. Errors: 422.
pub(crate) fn device_detail(device: DeviceBody) -> Result<Option<serde_json::Value>, Problem> {
    let id = plain_text("device.id", device.id, DEVICE_TEXT_LENGTH_MAX)?;
    let label = plain_text("device.label", device.label, DEVICE_TEXT_LENGTH_MAX)?;
    let fields = [("device_id", id), ("label", label)];
    let fields: serde_json::Map<_, _> =
        fields.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.into()))).collect();
    Ok((!fields.is_empty()).then_some(fields.into()))
}

async fn opened_position(
    app: &App,
    user: UserNo,
    session: SessionId,
) -> Result<Option<Position>, Problem> {
    let devices = history::devices(app.realm.pool(), user).await?;
    Ok(devices.into_iter().find(|(id, ..)| *id == session).map(|(_, position, _)| position))
}

/// 410 with why and when, as the database knows it.
pub(crate) async fn closed(app: &App, session: SessionId) -> Result<Problem, Problem> {
    match history::session(app.realm.pool(), session).await? {
        Some(SessionFound::Ended(ended)) => Ok(closed_problem(&ended)),
        Some(SessionFound::Live(_)) | None => Ok(Problem::session_closed(None, None)),
    }
}

/// 410 for one's own session that is over; whose it was and why is nobody else's business.
async fn used_before(app: &App, user: UserNo, session: SessionId) -> Result<Problem, Problem> {
    match history::session(app.realm.pool(), session).await? {
        Some(SessionFound::Ended(ended)) if ended.user_no == user => Ok(closed_problem(&ended)),
        // Imported, and not ended yet.
        None if history::session_owner(app.realm.pool(), session).await? == Some(user) => {
            Ok(Problem::session_closed(None, None))
        }
        Some(_) | None => Ok(Problem::session_taken()),
    }
}

fn closed_problem(ended: &EndedSession) -> Problem {
    Problem::session_closed(Some(ended.reason.as_str()), Some(ended.ended_at))
}

/// A session that a request is about.
pub(crate) enum Found {
    /// Live, as far as this node knows.
    Live(UserNo),
    /// Over.
    Ended(EndedSession),
}

impl Found {
    /// Whose it is.
    pub(crate) fn user(&self) -> UserNo {
        match self {
            Self::Live(user) => *user,
            Self::Ended(ended) => ended.user_no,
        }
    }

    /// 410, for those who need it live.
    pub(crate) fn live(self) -> Result<UserNo, Problem> {
        match self {
            Self::Live(user) => Ok(user),
            Self::Ended(ended) => Err(closed_problem(&ended)),
        }
    }
}

/// The session, which the caller owns or may act upon by one of these roles; 404, 403.
pub(crate) async fn find(
    app: &App,
    caller: &Caller,
    session: SessionId,
    roles: &[Role],
) -> Result<Found, Problem> {
    let found = match app.realm.roster().owner(session) {
        Some(user) => Found::Live(user),
        None => match history::session(app.realm.pool(), session).await? {
            Some(SessionFound::Live(user)) => Found::Live(user),
            Some(SessionFound::Ended(ended)) => Found::Ended(ended),
            None => return Err(Problem::session_not_found()),
        },
    };
    if caller.has_any(roles) {
        return Ok(found);
    }
    let own = app.realm.names().find(&caller.user_id).await? == Some(found.user());
    if own { Ok(found) } else { Err(Problem::not_yours()) }
}

/// How to log out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CloseQuery {
    /// The caller's token is not believed any longer, on any node, within a second.
    #[serde(default)]
    revoke_token: bool,
}

/// A session is over.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClosedBody {
    session_id: Uuid,
    #[schema(value_type = String)]
    user_id: UserId,
    /// Why it ended.
    reason: &'static str,
    status: StatusBody,
    position: Position,
    server_time: Instant,
}

/// Ends a session. Repeatable: one event.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "Presence",
    operation_id = "close_session",
    params(("id" = Uuid, Path), CloseQuery),
    responses((status = 200, body = ClosedBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn close(
    State(app): State<App>,
    caller: Caller,
    Path(session): Path<SessionId>,
    Query(query): Query<CloseQuery>,
) -> Result<Json<ClosedBody>, Problem> {
    let asked = Asked::by(None);
    let found = find(&app, &caller, session, &[Role::Service, Role::Admin]).await?;
    let user = found.user();
    let actor = app.actor(&caller).await?;
    let reason = if actor == user || !caller.has(Role::Admin) {
        Reason::UserRequest
    } else {
        Reason::AdminReset
    };
    let (position, reason) = match found {
        Found::Ended(ended) => (ended.position, ended.reason),
        Found::Live(_) => {
            let command = Command::Close { session, reason };
            let asked = Asked { actor: Some(actor), ..asked };
            let receipt = done(app.realm.execute(user, &command, asked).await?)?;
            match receipt.outcome {
                Outcome::Closed { count: 0 } => ended(&app, session, receipt.position).await?,
                _ => (receipt.position, reason),
            }
        }
    };
    if query.revoke_token {
        revoke(&app, &caller).await?;
    }
    let status = app.status(&caller, user, Consistency::Usual).await?;
    Ok(Json(ClosedBody {
        session_id: session,
        user_id: status.user_id.clone(),
        reason: reason.as_str(),
        status,
        position,
        server_time: Instant(app.realm.now()),
    }))
}

/// Where and why a session ended that was found over.
async fn ended(
    app: &App,
    session: SessionId,
    position: Position,
) -> Result<(Position, Reason), Problem> {
    match history::session(app.realm.pool(), session).await? {
        Some(SessionFound::Ended(ended)) => Ok((ended.position, ended.reason)),
        Some(SessionFound::Live(_)) | None => Ok((position, Reason::LostCarrier)),
    }
}

pub(crate) async fn revoke(app: &App, caller: &Caller) -> Result<(), Problem> {
    let revocation = projections::revocation::Revocation {
        key: caller.token_key.clone(),
        expires_at: caller.refused_anyway_after(),
    };
    Ok(app.realm.revoke(revocation).await?)
}

/// The live sessions of a user.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionsBody {
    items: Vec<SessionBody>,
    count: usize,
}

/// Lists the live sessions of a user, oldest first.
#[utoipa::path(get, path = "/v1/users/{id}/sessions", tag = "Presence",
    operation_id = "list_sessions",
    params(("id" = String, Path), ReadQuery),
    responses((status = 200, body = SessionsBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ReadQuery>,
    Path(user_id): Path<UserId>,
) -> Result<Response, Problem> {
    app.at_least(query.min_position).await?;
    caller.require_self_or(&user_id, &[Role::Service, Role::Admin])?;
    let user = app.known_user(&user_id).await?;
    let devices = history::devices(app.realm.pool(), user).await?;
    let silences = app.realm.silences();
    let look = |seen: Seen<'_>| {
        let device = |session: SessionId| {
            devices.iter().find(|(id, ..)| *id == session).and_then(|(.., detail)| detail.as_ref())
        };
        let body = |session| SessionBody::of(seen.user_id, session, &silences, device(session.id));
        seen.state.sessions.iter().map(body).collect::<Vec<_>>()
    };
    let found = app.realm.look(&[user], Consistency::Strong, look).await?.pop().flatten();
    let items = found.ok_or_else(Problem::user_not_found)?;
    let count = items.len();
    Ok(super::status::no_store(Json(SessionsBody { items, count })))
}

/// All sessions of a user are over.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisconnectedBody {
    /// How many sessions this call ended.
    closed: usize,
    status: StatusBody,
    position: Position,
}

/// Ends all live sessions of a user.
#[utoipa::path(delete, path = "/v1/users/{id}/sessions", tag = "Presence",
    operation_id = "close_sessions",
    params(("id" = String, Path)),
    responses((status = 200, body = DisconnectedBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn disconnect(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path(user_id): Path<UserId>,
) -> Result<Json<DisconnectedBody>, Problem> {
    let asked = Asked::by(None);
    caller.require_self_or(&user_id, &[Role::Service, Role::Admin])?;
    let user = app.known_user(&user_id).await?;
    app.status(&caller, user, Consistency::Usual).await?; // 404 for a user never seen
    let actor = app.actor(&caller).await?;
    let own = actor == user || !caller.has(Role::Admin);
    let reason = if own { Reason::UserRequest } else { Reason::AdminReset };
    let asked = Asked { actor: Some(actor), ..asked };
    let receipt = done(app.realm.execute(user, &Command::CloseAll { reason }, asked).await?)?;
    let closed = match receipt.outcome {
        Outcome::Closed { count } => count,
        _ => 0,
    };
    let status = app.status(&caller, user, Consistency::Usual).await?;
    Ok(Json(DisconnectedBody { closed, status, position: receipt.position }))
}

/// The detail of an admin's action: why.
pub(crate) fn reason_detail(
    reason: Option<String>,
    text: Option<&str>,
) -> Option<serde_json::Value> {
    match (reason, text) {
        (None, None) => None,
        (Some(reason), None) => Some(json!({ "reason": reason })),
        (None, Some(text)) => Some(json!({ "text": text })),
        (Some(reason), Some(text)) => Some(json!({ "reason": reason, "text": text })),
    }
}
