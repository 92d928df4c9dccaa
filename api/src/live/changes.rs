//! `GET /v1/changes`: the long poll.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::{Policy, Position};
use projections::history;
use projections::realm::Consistency;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::change::ChangeBody;
use super::hub::Joined;
use super::listening::Listening;
use super::watch::{Circles, Named, Watched};
use crate::app::App;
use crate::auth::Caller;
use crate::extract::{Json, Query};
use crate::limits::{GROUPS_LOOK_EVERY, MISSED_MAX, POLL_WAIT_MAX};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::StatusBody;
use crate::viewer::Viewer;

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
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
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

/// One item. To those who are told the truth a status says all that a change does, and more: so it
/// is any of the two, and no derived `oneOf`.
#[derive(Serialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes what is written without it")]
enum ChangeOrStatus<'a> {
    Change(ChangeBody<'a>),
    Status(StatusBody),
}

impl PartialSchema for ChangeOrStatus<'_> {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(ChangeBody::name()))
            .item(Ref::from_schema_name(StatusBody::name()))
            .into()
    }
}

impl ToSchema for ChangeOrStatus<'_> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ChangeBody::name().into_owned(), ChangeBody::schema()));
        schemas.push((StatusBody::name().into_owned(), StatusBody::schema()));
        ChangeBody::schemas(schemas);
        StatusBody::schemas(schemas);
    }
}

/// Changes of status after a position; waits for the first one if asked to.
#[utoipa::path(get, path = "/v1/changes", tag = "Live",
    operation_id = "get_changes",
    params(ChangesQuery),
    responses((status = 200, body = ChangesBody),
        (status = 403, description = "`forbidden`: `groups` names those that the caller does not, \
                or no longer, belong to; ask without them",
            body = ProblemDocument<'static>, content_type = "application/problem+json"),
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
    // Who does not wait is a reader like any other.
    let waits = query.since.is_some() && !wait.is_zero();
    let _place = waits.then(|| app.live.places.take(&caller, peer.ip())).transpose()?;
    let consistency = app.at_least(query.min_position).await?;
    let mut policy = app.realm.policy_changes();
    let watched = app.watched(&caller, named.as_ref()).await?;
    let viewer = app.viewer(&caller).await?;
    let Some(since) = query.since else {
        return full(&app, &viewer, &watched, consistency).await;
    };
    app.resumable(since).await?;
    let joined = app.live.hub.resume(&viewer, &watched, since, app.realm.position()).await?;
    let Joined::Listening(mut listening) = joined else {
        return full(&app, &viewer, &watched, consistency).await;
    };
    let groups = named.as_ref().map(|named| named.groups.clone()).unwrap_or_default();
    let circles = Circles { groups, own: false };
    let ended = app.auth.ends(&caller);
    let items = tokio::select! {
        items = gather(&mut listening, wait, &app, &caller, &circles, &mut policy) => items?,
        () = app.live.stopping.cancelled() => Some(String::new()),
        _ = ended => return Err(Problem::token_revoked()),
    };
    let position = listening.position();
    match items {
        Some(items) if !listening.too_slow().is_cancelled() => {
            Ok(json(format!(r#"{{"items":[{items}],"position":{position},"full":false}}"#)))
        }
        // More came at once than may wait, or others may be seen now.
        Some(_) | None => {
            let watched = app.watched(&caller, named.as_ref()).await?;
            full(&app, &app.viewer(&caller).await?, &watched, consistency).await
        }
    }
}

/// The items that are there, or the first that comes within `wait` and what comes with it. None:
/// somebody may be seen now, or has come into a group, of whom no change tells.
async fn gather(
    listening: &mut Listening,
    wait: Duration,
    app: &App,
    caller: &Caller,
    circles: &Circles,
    policy: &mut watch::Receiver<Arc<Policy>>,
) -> Result<Option<String>, Problem> {
    let until = Instant::now() + wait;
    let mut next = listening.try_next();
    while next.is_none() {
        let changing = !circles.is_empty() || listening.is_limited();
        let look_at = Instant::now() + GROUPS_LOOK_EVERY;
        tokio::select! {
            biased;
            heard = listening.next() => match heard {
                Some(heard) => next = Some(heard),
                None => break,
            },
            () = sleep_until(until) => break,
            Ok(()) = policy.changed() => {}
            () = sleep_until(look_at), if changing => {}
        }
        if next.is_none() && app.look_again(caller, circles, listening).await?.came.is_some() {
            return Ok(None);
        }
    }
    let mut items = String::new();
    let mut count = 0;
    while let Some(heard) = next {
        if !items.is_empty() {
            items.push(',');
        }
        heard.told.write_body(&mut items);
        count += 1;
        next = if count < MISSED_MAX { listening.try_next() } else { None };
    }
    Ok(Some(items))
}

async fn full(
    app: &App,
    viewer: &Viewer,
    watched: &Watched,
    consistency: Consistency,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Everybody {
        items: Vec<StatusBody>,
        position: Position,
        full: bool,
    }
    let (items, position) = app.snapshot(viewer, watched, consistency).await?;
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
