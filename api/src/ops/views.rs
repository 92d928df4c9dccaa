//! The views that follow the log: how far each is, and building one anew while it serves.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::Position;
use projections::follow::versions::{self, Change, Filling, Refusal, Version};
use projections::views::{self, View};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path};
use crate::problem::{Problem, ProblemDocument};

/// One version of a view.
#[derive(Debug, Serialize, ToSchema)]
pub struct ViewBody {
    view: &'static str,
    version: i32,
    /// `live`, `building`, `stopped`, or `kept`: what was live before.
    state: &'static str,
    /// All events at or below it are in; where `filling` is told, of those users who are in.
    position: Position,
    /// Told while a build goes through the users one after the other, before it follows the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    filling: Option<FillingBody>,
    /// The log's newest position.
    head: Position,
    /// How long ago it was up to date, in milliseconds; 0 at the head.
    lag_ms: i64,
    /// Users set aside, because an event of theirs could not be taken in.
    waiting_users: i64,
}

/// How far a build has come through the users.
#[derive(Debug, Serialize, ToSchema)]
pub struct FillingBody {
    /// Users who are in.
    done: i64,
    /// Users in all.
    of: i64,
}

impl From<&Version> for ViewBody {
    fn from(version: &Version) -> Self {
        Self {
            view: version.view.name,
            version: version.version,
            state: version.state.as_str(),
            position: version.position,
            filling: version.filling.map(|Filling { to, of }| FillingBody { done: to, of }),
            head: version.head,
            lag_ms: version.lag_ms,
            waiting_users: version.waiting,
        }
    }
}

/// All views.
#[derive(Debug, Serialize, ToSchema)]
pub struct ViewsBody {
    items: Vec<ViewBody>,
}

/// How far every version of every view is.
#[utoipa::path(get, path = "/v1/views", tag = "Operations", operation_id = "list_views",
    responses((status = 200, body = ViewsBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
) -> Result<Json<ViewsBody>, Problem> {
    caller.require(&[Role::Analyst, Role::Auditor, Role::Admin])?;
    let versions = versions::read(app.realm.pool()).await?;
    Ok(Json(ViewsBody { items: versions.iter().map(ViewBody::from).collect() }))
}

/// Builds a view anew beside the live one, which serves until the new one has caught up and takes
/// its place. Asked again, goes on with the build under way; the former version that was kept goes.
#[utoipa::path(post, path = "/v1/views/{view}/rebuild", tag = "Operations",
    operation_id = "rebuild_view",
    params(("view" = String, Path)),
    responses((status = 202, body = ViewBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn rebuild(
    State(app): State<App>,
    caller: Caller,
    Path(view): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    change(&app, &caller, &view, Change::Build).await
}

/// Stops the build; asked to rebuild, the server goes on where it stood.
#[utoipa::path(post, path = "/v1/views/{view}/rebuild/stop", tag = "Operations",
    operation_id = "stop_rebuild",
    params(("view" = String, Path)),
    responses((status = 202, body = ViewBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn stop(
    State(app): State<App>,
    caller: Caller,
    Path(view): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    change(&app, &caller, &view, Change::Stop).await
}

/// Throws the build away.
#[utoipa::path(delete, path = "/v1/views/{view}/rebuild", tag = "Operations",
    operation_id = "abandon_rebuild",
    params(("view" = String, Path)),
    responses((status = 204, description = "It is gone"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn abandon(
    State(app): State<App>,
    caller: Caller,
    Path(view): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    change(&app, &caller, &view, Change::Abandon).await
}

/// Drops the version that was live before.
#[utoipa::path(post, path = "/v1/views/{view}/confirm", tag = "Operations",
    operation_id = "confirm_rebuild",
    params(("view" = String, Path)),
    responses((status = 204, description = "The former version is gone"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn confirm(
    State(app): State<App>,
    caller: Caller,
    Path(view): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    change(&app, &caller, &view, Change::Confirm).await
}

/// Lets the version that was live before catch up and take its place again.
#[utoipa::path(post, path = "/v1/views/{view}/take-back", tag = "Operations",
    operation_id = "take_back_rebuild",
    params(("view" = String, Path)),
    responses((status = 202, body = ViewBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn take_back(
    State(app): State<App>,
    caller: Caller,
    Path(view): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    change(&app, &caller, &view, Change::TakeBack).await
}

async fn change(
    app: &App,
    caller: &Caller,
    name: &str,
    change: Change,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let view: &'static View =
        views::find(name).ok_or_else(|| Problem::missing("view_not_found", "no such view"))?;
    let number = match versions::change(app.realm.database(), view, change).await? {
        Ok(number) => number,
        Err(refusal) => {
            let code = match refusal {
                Refusal::NothingBuilding => "nothing_building",
                Refusal::NothingKept => "nothing_kept",
                Refusal::Building => "building",
            };
            return Err(Problem::conflict(code, refusal.to_string()));
        }
    };
    tracing::info!(view = name, version = number, ?change, "an admin changed a view");
    match change {
        Change::Build | Change::Stop | Change::TakeBack => {
            let all = versions::read(app.realm.pool()).await?;
            let about = all.iter().find(|v| v.view.name == name && v.version == number);
            let about = about.ok_or_else(|| Problem::missing("view_not_found", "no such view"))?;
            Ok((StatusCode::ACCEPTED, Json(ViewBody::from(about))).into_response())
        }
        Change::Abandon | Change::Confirm => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
