//! Health, metrics, and the call that does nothing.

pub mod health;
pub mod views;
pub mod what_if;

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, OptionalJson};
use crate::presence::heartbeat::BeatBody;
use crate::problem::{Problem, ProblemDocument};

/// One word.
#[derive(Debug, Serialize, ToSchema)]
pub struct OkBody {
    status: &'static str,
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "Operations", security(()),
    responses((status = 200, body = OkBody)))]
pub async fn healthz() -> Json<OkBody> {
    Json(OkBody { status: "ok" })
}

/// The node may serve: it follows the log, and the log grows. 503 otherwise.
#[utoipa::path(get, path = "/readyz", tag = "Operations", security(()),
    responses((status = 200, body = OkBody),
        (status = 503, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn readyz(State(app): State<App>) -> Result<Json<OkBody>, Problem> {
    if app.realm.is_ready() {
        Ok(Json(OkBody { status: "ok" }))
    } else {
        Err(Problem::unavailable(
            "not_ready",
            "this node cannot follow the log, or nobody can append to it",
        ))
    }
}

/// Prometheus metrics: from this machine, or for an admin.
#[utoipa::path(get, path = "/metrics", tag = "Operations", security((), ("token" = [])),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 401, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn metrics(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Option<Caller>,
) -> Result<Response, Problem> {
    if !peer.ip().to_canonical().is_loopback() {
        caller.ok_or_else(Problem::unauthenticated)?.require(&[Role::Admin])?;
    }
    metrics::gauge!("rollcall_queue_depth").set(app.realm.queue_depth() as f64);
    metrics::gauge!("rollcall_log_position").set(app.realm.position() as f64);
    metrics::gauge!("rollcall_live_sessions").set(app.realm.roster().sessions_count() as f64);
    metrics::gauge!("rollcall_users").set(app.realm.roster().users_count() as f64);
    if let Some(ago) = app.realm.roster().heard_ago() {
        metrics::gauge!("rollcall_log_heard_seconds_ago").set(ago.as_secs_f64());
    }
    let text = app.metrics.render();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((StatusCode::OK, kind, text).into_response())
}

/// Does nothing, through everything a heartbeat goes through but the log: what the machine and the
/// edge can do at most.
#[utoipa::path(post, path = "/noop", tag = "Operations", request_body = Option<BeatBody>,
    responses((status = 200, body = OkBody)))]
pub async fn noop(_caller: Caller, _: NoQuery, _body: OptionalJson<BeatBody>) -> Json<OkBody> {
    Json(OkBody { status: "ok" })
}
