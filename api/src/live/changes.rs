//! `GET /v1/changes`: the long poll.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::Position;
use projections::history;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::change::ChangeBody;
use super::hub::Joined;
use super::listening::Listening;
use super::watch::{Named, Viewer, Watched};
use crate::app::App;
use crate::auth::Caller;
use crate::extract::{Json, Query};
use crate::limits::{MISSED_MAX, POLL_WAIT_MAX};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusBody;

/// Which changes are meant, and how long to wait for one.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangesQuery {
    /// Changes above this position; not given: everybody's status as of now.
    #[param(minimum = 0)]
    since: Option<i64>,
    /// How long to wait for the first change, in milliseconds: at most 30000.
    #[param(maximum = 30000)]
    wait_ms: Option<u64>,
    /// These users only, separated by commas; at most 1000.
    users: Option<String>,
    /// The members of these groups, separated by commas.
    groups: Option<String>,
}

/// What happened, or everybody as of now.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what is written without it")]
pub struct ChangesBody<'a> {
    /// Changes, oldest first; with `full`, statuses.
    items: Vec<ChangeOrStatus<'a>>,
    /// What to ask for next, as `since`.
    position: Position,
    /// The items are the statuses of all who are asked for, not what changed.
    full: bool,
}

/// One item.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes what is written without it")]
enum ChangeOrStatus<'a> {
    Change(ChangeBody<'a>),
    Status(StatusBody),
}

/// Changes of status after a position; waits for the first one if asked to.
#[utoipa::path(get, path = "/v1/changes", tag = "Live",
    operation_id = "get_changes",
    params(ChangesQuery),
    responses((status = 200, body = ChangesBody),
        (status = 410, description = "`cursor_expired`: the log has no such position yet",
            body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn changes(
    State(app): State<App>,
    caller: Caller,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<ChangesQuery>,
) -> Result<Response, Problem> {
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0));
    if wait > POLL_WAIT_MAX {
        let detail = format!("wait_ms is at most {}", POLL_WAIT_MAX.as_millis());
        return Err(Problem::rule("invalid_wait", detail));
    }
    let named = Named::of_query(query.users.as_deref(), query.groups.as_deref())?;
    let _place = app.live.places.take(&caller, peer.ip())?;
    let watched = app.watched(&caller, named.as_ref()).await?;
    let Some(since) = query.since else { return full(&app, &caller, &watched).await };
    app.resumable(since).await?;
    let viewer = Viewer::of(&caller);
    match app.live.hub.resume(&viewer, &watched, since, app.realm.position()).await? {
        Joined::TooFarBehind => full(&app, &caller, &watched).await,
        Joined::Listening(mut listening) => {
            let ended = app.auth.ends(&caller);
            let items = tokio::select! {
                items = gather(&mut listening, wait) => items,
                () = app.live.stopping.cancelled() => String::new(),
                _ = ended => return Err(Problem::token_revoked()),
            };
            let position = listening.position();
            if listening.too_slow().is_cancelled() {
                // More came at once than may wait.
                return full(&app, &caller, &watched).await;
            }
            Ok(json(format!(r#"{{"items":[{items}],"position":{position},"full":false}}"#)))
        }
    }
}

/// The items that are there, or the first that comes within `wait` and what comes with it.
async fn gather(listening: &mut Listening, wait: Duration) -> String {
    let mut items = String::new();
    let first = match listening.try_next() {
        Some(first) => Some(first),
        None => tokio::time::timeout(wait, listening.next()).await.ok().flatten(),
    };
    let mut next = first;
    let mut count = 0;
    while let Some(heard) = next {
        if !items.is_empty() {
            items.push(',');
        }
        heard.told.write_body(&mut items);
        count += 1;
        next = if count < MISSED_MAX { listening.try_next() } else { None };
    }
    items
}

async fn full(app: &App, caller: &Caller, watched: &Watched) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Everybody {
        items: Vec<StatusBody>,
        position: Position,
        full: bool,
    }
    let (items, position) = app.snapshot(caller, watched).await?;
    Ok(Json(Everybody { items, position, full: true }).into_response())
}

fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl App {
    /// Waits, bounded, until this node has come to a position to go on from. Errors: 410 where the
    /// log has not, as after a restored backup; 503 where only this node has not.
    pub async fn resumable(&self, since: Position) -> Result<(), Problem> {
        if since < 0 {
            return Err(Problem::invalid_parameter("a position is not negative"));
        }
        if since <= self.realm.position() {
            return Ok(());
        }
        if since > history::head(self.realm.pool()).await? {
            return Err(Problem::cursor_expired());
        }
        if self.realm.reached(since).await {
            Ok(())
        } else {
            Err(Problem::position_not_reached(self.realm.position()))
        }
    }
}
