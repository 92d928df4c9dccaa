//! Clients that connect to a WebSocket, and have presence as long as it lives.
//!
//! The connection is one of `GET /v1/ws`, with its session, its frames and its limits. Different
//! are how clients come in, and that they hear of others without asking: see `live/ws/style.rs`.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use domain::GroupName;
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::{Said, Shape};
use super::wire::WireId;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::Path;
use crate::live::ticket::TICKET_PREFIX;
use crate::live::ws::style::{Replaced, Style};
use crate::live::ws::{Upgrade, admit, begin_with, check_origin, expected, offered, place};
use crate::problem::Problem;
use crate::viewer::names_group;

/// How this system tells an error, before there is a connection.
pub(crate) const SHAPE: Shape = Shape::of::<WebsocketError>(|said: Said| {
    serde_json::Map::from_iter([
        ("error".to_owned(), said.code.into()),
        ("message".to_owned(), said.detail.into()),
    ])
});

/// An error as this system tells it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what the shape makes")]
pub(crate) struct WebsocketError {
    error: String,
    message: String,
}

/// How the adapter of WebSocket clients is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebsocketSettings {
    /// Whether a token may stand in the URL.
    pub url_token: bool,
    /// Whether everybody's presence is told, not that of group-mates alone.
    pub everybody: bool,
}

impl Default for WebsocketSettings {
    fn default() -> Self {
        Self { url_token: true, everybody: false }
    }
}

/// What comes by itself: whether somebody is there. All other frames are those of `rollcall.v1`.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what is written without it")]
pub(crate) struct PresenceFrame {
    /// `status_changed`
    #[serde(rename = "type")]
    kind: String,
    data: PresenceData,
}

#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what is written without it")]
struct PresenceData {
    user_id: WireId,
    /// Whatever the status, if it is not `offline`.
    is_online: bool,
}

/// Opens a WebSocket, and with it a session; tells whether the user and its group-mates are there.
#[utoipa::path(get, path = "/ws/user/", tag = "Replaced systems",
    operation_id = "websocket_user",
    security(("token" = []), ()),
    params(("token" = Option<String>, Query,
            description = "The JWT, where it can be sent in no other way; never logged. Can be \
                switched off: `--ws-url-token false`"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header,
            description = "`ticket.<value>` instead of a token")),
    responses((status = 101, body = PresenceFrame,
        description = "JSON text frames: `status_changed` as here, the others as in \
            `rollcall.v1`")))]
pub async fn user(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    connect(app, peer, &headers, query.as_deref(), upgrade, None).await
}

/// The same, and the session is in the group `consultation:{id}` for as long as it lives. Where a
/// service has said who belongs to the group, only they may come in.
#[utoipa::path(get, path = "/ws/consultation/{id}/", tag = "Replaced systems",
    operation_id = "websocket_consultation",
    security(("token" = []), ()),
    params(("id" = String, Path),
        ("token" = Option<String>, Query,
            description = "The JWT, where it can be sent in no other way; never logged"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header,
            description = "`ticket.<value>` instead of a token")),
    responses((status = 101, body = PresenceFrame,
        description = "JSON text frames: `status_changed` as here, the others as in \
            `rollcall.v1`")))]
pub async fn consultation(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    // All who come without an id would share a group.
    let group = Some(id).filter(|id| !id.is_empty()).map(|id| format!("consultation:{id}").parse());
    let group = group.and_then(Result::ok).ok_or_else(Problem::invalid_group)?;
    connect(app, peer, &headers, query.as_deref(), upgrade, Some(group)).await
}

async fn connect(
    app: App,
    peer: SocketAddr,
    headers: &HeaderMap,
    query: Option<&str>,
    upgrade: Upgrade,
    group: Option<GroupName>,
) -> Result<Response, Problem> {
    check_origin(headers, &app.live.allow_origins)?;
    let upgrade = expected(upgrade)?;
    let offered = offered(&upgrade);
    let elsewhere = headers.contains_key(header::AUTHORIZATION)
        || offered.iter().any(|value| value.starts_with(TICKET_PREFIX));
    let caller = match url_token(query) {
        Some(token) if !elsewhere && app.compat.websocket.url_token => {
            app.auth.admit_token(&token).await?
        }
        Some(_) | None => admit(&app, headers, &offered).await?,
    };
    let place = place(&app, &caller, peer)?;
    if let Some(group) = &group
        && !may_enter(&app, &caller, group).await?
    {
        return Err(Problem::not_a_member());
    }
    let everybody = app.compat.websocket.everybody;
    let style = Style::Replaced(Replaced { everybody, group });
    Ok(begin_with(upgrade, app, caller, place, style))
}

/// Said before there is a connection; what counts is said again when the session enters.
async fn may_enter(app: &App, caller: &Caller, group: &GroupName) -> Result<bool, Problem> {
    if caller.has_any(&[Role::Service, Role::Admin]) || names_group(caller, group) {
        return Ok(true);
    }
    let user = app.realm.names().find(&caller.user_id).await?;
    Ok(app.groups.is_open_to(group, user).await?)
}

fn url_token(query: Option<&str>) -> Option<String> {
    let mut fields = form_urlencoded::parse(query?.as_bytes());
    fields.find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
}
