//! `GET /v1/ws`: the WebSocket, subprotocol `rollcall.v1`. The connection is a session.
//!
//! - [`frames`]: what is said; [`wire`]: how it is sent and how a connection ends
//! - [`login`]: the session behind it, from its opening or resumption to its end or grace
//! - [`begin`], [`connection`]: from the first frame to the last; [`watching`]: the watch list

pub mod begin;
pub mod connection;
pub mod frames;
pub mod login;
pub mod watching;
pub mod wire;

use std::net::SocketAddr;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::ticket::{self, TICKET_PREFIX};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::NoQuery;
use crate::limits::FRAME_BYTES_MAX;
use crate::problem::{Problem, ProblemDocument};

/// The subprotocol.
pub const PROTOCOL: &str = "rollcall.v1";
/// Bytes read at once: frames are short, and there are many connections.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Opens a WebSocket, and with it a session.
#[utoipa::path(get, path = "/v1/ws", tag = "Live",
    operation_id = "open_socket",
    security(("token" = []), ()),
    params(("Sec-WebSocket-Protocol" = Option<String>, Header,
        description = "`rollcall.v1`, and `ticket.<value>` where no Authorization can be sent")),
    responses((status = 101, description = "JSON text frames from here on, `type` first"),
        (status = 400, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`origin_refused`, or a role is missing",
            body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn open(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    _: NoQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    check_origin(&headers, &app.live.allow_origins)?;
    let upgrade = upgrade.map_err(|rejection| {
        Problem::bad_request("websocket_expected", format!("no WebSocket: {rejection}"))
    })?;
    let offered: Vec<&str> =
        upgrade.requested_protocols().filter_map(|value| value.to_str().ok()).collect();
    let ticket = offered.iter().find_map(|value| value.strip_prefix(TICKET_PREFIX));
    // Whoever offers nothing at all is no browser, and is taken at its word.
    if !offered.is_empty() && !offered.contains(&PROTOCOL) {
        let detail = format!("offer the subprotocol {PROTOCOL}");
        return Err(Problem::bad_request("unknown_subprotocol", detail));
    }
    let caller = admit(&app, &headers, ticket).await?;
    caller.require(&[Role::User, Role::Service, Role::Admin])?;
    let place = app.live.places.take(&caller, peer.ip())?;
    Ok(upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .on_upgrade(move |socket| connection::serve(app, caller, socket, place)))
}

async fn admit(app: &App, headers: &HeaderMap, ticket: Option<&str>) -> Result<Caller, Problem> {
    match ticket {
        Some(ticket) if !headers.contains_key(header::AUTHORIZATION) => {
            ticket::redeem(app, ticket).await
        }
        Some(_) | None => app.auth.admit(headers).await,
    }
}

/// Browsers say whose page it is; others say nothing. Errors: 403 `origin_refused`.
fn check_origin(headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let listed = allowed.iter().any(|known| known == "*" || known == origin);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let own = host.is_some_and(|host| {
        authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    });
    if listed || own {
        return Ok(());
    }
    let detail = "pages of this origin may not connect; see --allow-origin";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", detail))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_listed_or_the_servers_own_or_absent() {
        let allowed = [HeaderValue::from_static("https://chat.example")];
        let check = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("rollcall.example:8080"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            check_origin(&headers, &allowed).is_ok()
        };
        assert!(check(None) && check(Some("https://chat.example")));
        assert!(check(Some("http://rollcall.example:8080")));
        for origin in ["https://evil.example", "null", "", "http://rollcall.example", "://"] {
            assert!(!check(Some(origin)), "{origin}");
        }
    }
}
