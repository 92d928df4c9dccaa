//! Claims and visibility.

use axum::extract::State;
use chrono::{DateTime, SubsecRound, Utc};
use domain::command::{Expiry, SetClaim};
use domain::{Command, Source, UserId, UserNo};
use projections::Asked;
use projections::realm::Consistency;
use serde::Deserialize;
use utoipa::ToSchema;

use super::sessions::reason_detail;
use super::{done, plain_text};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, OptionalJson, Path};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{StatusBody, StatusName};

/// Longest text and reason of a claim, in characters.
pub const CLAIM_TEXT_LENGTH_MAX: usize = 500;

/// A status asserted by a source.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Not `offline`.
    status: StatusName,
    /// What the source says about it.
    text: Option<String>,
    /// When it ends by itself; not together with `ttl_ms`.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<DateTime<Utc>>,
    /// After how long it ends by itself.
    ttl_ms: Option<u64>,
    /// Why; admins must say.
    reason: Option<String>,
}

/// Why a claim is taken back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// Why.
    reason: Option<String>,
}

/// Asserts a status: users `manual`, services `system:<name>`, admins `admin`.
#[utoipa::path(put, path = "/v1/users/{id}/claims/{source}", tag = "Presence",
    operation_id = "set_claim",
    params(("id" = String, Path), ("source" = String, Path)), request_body = ClaimRequest,
    responses((status = 200, body = StatusBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn set(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path((user_id, source)): Path<(UserId, String)>,
    Json(request): Json<ClaimRequest>,
) -> Result<Json<StatusBody>, Problem> {
    let asked = Asked::by(None);
    let source = parse_source(&source)?;
    may_claim(&caller, &user_id, &source)?;
    let text = plain_text("text", request.text, CLAIM_TEXT_LENGTH_MAX)?;
    let reason = plain_text("reason", request.reason, CLAIM_TEXT_LENGTH_MAX)?;
    if source == Source::Admin && reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(Problem::rule("reason_required", "an admin's claim says why: reason"));
    }
    let expires = match (request.expires_at, request.ttl_ms) {
        (None, None) => None,
        // The log's clock ticks in microseconds.
        (Some(at), None) => Some(Expiry::At(at.trunc_subsecs(6))),
        (None, Some(ms)) => Some(Expiry::AfterMs(ms)),
        (Some(_), Some(_)) => {
            return Err(Problem::rule("two_ends", "expires_at or ttl_ms, not both"));
        }
    };
    let detail = reason_detail(reason, text.as_deref());
    let status = request.status.into();
    let command =
        Command::SetClaim(SetClaim { source, status, while_active: false, expires, text });
    let user = subject(&app, &caller, &user_id).await?;
    carry_out(&app, &caller, user, &command, Asked { detail, ..asked }).await
}

/// Takes a claim back. Repeatable.
#[utoipa::path(delete, path = "/v1/users/{id}/claims/{source}", tag = "Presence",
    operation_id = "clear_claim",
    params(("id" = String, Path), ("source" = String, Path)), request_body = Option<ClearRequest>,
    responses((status = 200, body = StatusBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn clear(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path((user_id, source)): Path<(UserId, String)>,
    OptionalJson(request): OptionalJson<ClearRequest>,
) -> Result<Json<StatusBody>, Problem> {
    let asked = Asked::by(None);
    let source = parse_source(&source)?;
    may_claim(&caller, &user_id, &source)?;
    let reason = plain_text("reason", request.reason, CLAIM_TEXT_LENGTH_MAX)?;
    let detail = reason_detail(reason, None);
    let user = subject(&app, &caller, &user_id).await?;
    let command = Command::ClearClaim { source };
    carry_out(&app, &caller, user, &command, Asked { detail, ..asked }).await
}

/// Whether others may see the user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisibilityRequest {
    /// Shown to others as `offline`.
    invisible: bool,
}

/// Goes invisible, or comes back. Repeatable.
#[utoipa::path(put, path = "/v1/users/{id}/visibility", tag = "Presence",
    operation_id = "set_visibility",
    params(("id" = String, Path)), request_body = VisibilityRequest,
    responses((status = 200, body = StatusBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn visibility(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Path(user_id): Path<UserId>,
    Json(request): Json<VisibilityRequest>,
) -> Result<Json<StatusBody>, Problem> {
    let asked = Asked::by(None);
    caller.require_self_or(&user_id, &[Role::Admin])?;
    let user = subject(&app, &caller, &user_id).await?;
    let command = Command::SetVisibility { invisible: request.invisible };
    carry_out(&app, &caller, user, &command, asked).await
}

/// Users may be claimed for before their first login only by themselves; others get 404.
async fn subject(app: &App, caller: &Caller, user_id: &UserId) -> Result<UserNo, Problem> {
    if caller.is(user_id) {
        return app.actor(caller).await;
    }
    let user = app.known_user(user_id).await?;
    app.status(caller, user, Consistency::Usual).await?;
    Ok(user)
}

async fn carry_out(
    app: &App,
    caller: &Caller,
    user: UserNo,
    command: &Command,
    asked: Asked,
) -> Result<Json<StatusBody>, Problem> {
    let asked = Asked { actor: Some(app.actor(caller).await?), ..asked };
    done(app.realm.execute(user, command, asked).await?)?;
    Ok(Json(app.status(caller, user, Consistency::Usual).await?))
}

pub(crate) fn parse_source(text: &str) -> Result<Source, Problem> {
    text.parse()
        .map_err(|_| Problem::rule("invalid_source", "a source is manual, admin or system:<name>"))
}

fn may_claim(caller: &Caller, user_id: &UserId, source: &Source) -> Result<(), Problem> {
    match source {
        Source::Admin => caller.require(&[Role::Admin]),
        Source::System(_) => caller.require(&[Role::Service]),
        Source::Manual if caller.is(user_id) => Ok(()),
        Source::Manual => Err(Problem::not_yours()),
    }
}
