//! Many statuses at once: by name, by status, counted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use domain::{Position, UserId, UserNo};
use projections::realm::{Consistency, Seen};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::as_of::{self, Moment};
use super::status::no_store;
use crate::app::{App, ReadQuery};
use crate::auth::{Caller, Role};
use crate::extract::{Json, JsonUpTo, NoQuery, Query};
use crate::limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, QUERY_BYTES_MAX, USERS_MAX};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, Page, StatusBody, StatusName};

/// Which statuses are meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ManyQuery {
    /// These users, separated by commas; at most 1000.
    users: Option<String>,
    /// Everybody who is shown with this status, by `user_id`.
    #[param(inline)]
    status: Option<StatusName>,
    /// Items of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Everybody at that instant rather than now: for auditors and admins. Goes with `known_at`,
    /// `limit` and `cursor` only; in an order of our own.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<DateTime<Utc>>,
    /// With `at`: as it was known at this instant, by when it was written down.
    #[param(value_type = Option<String>, format = DateTime)]
    known_at: Option<DateTime<Utc>>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// The statuses of users asked for by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct ManyBody {
    items: Vec<StatusBody>,
    /// Those never seen, or not to be seen by the caller.
    #[schema(value_type = Vec<String>)]
    unknown: Vec<UserId>,
    position: Position,
    server_time: Instant,
}

/// Users by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManyRequest {
    /// At most 1000.
    users: Vec<String>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// What a list of statuses looks like: by name, or by page.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes two answers of one call")]
enum StatusesOrPage {
    ByName(ManyBody),
    Page(Page<StatusBody>),
}

/// Many statuses by name, or a list by status.
#[utoipa::path(get, path = "/v1/status", tag = "Presence",
    operation_id = "get_statuses",
    params(ManyQuery),
    responses((status = 200, description = "With `users`: items, unknown, position, server_time. \
            Else a page of statuses.", body = StatusesOrPage),
        (status = 304, description = "As the given ETag has it"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn many(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ManyQuery>,
) -> Result<Response, Problem> {
    let consistency = app.at_least(query.min_position).await?;
    if let Some(moment) = Moment::parse(query.at, query.known_at)? {
        caller.require(&[Role::Auditor, Role::Admin])?;
        if query.users.is_some() || query.status.is_some() {
            return Err(Problem::invalid_parameter("at goes without users and status"));
        }
        let limit = page_limit(query.limit)?;
        let page = as_of::everybody(&app, moment, limit, query.cursor.as_deref()).await?;
        return Ok(no_store(Json(page)));
    }
    let Some(users) = query.users else { return list(&app, &caller, &query).await };
    if query.status.is_some() || query.cursor.is_some() || query.limit.is_some() {
        return Err(Problem::invalid_parameter("users goes without status, limit and cursor"));
    }
    let users = users.split(',').filter(|user| !user.is_empty());
    by_name(&app, &caller, &headers, users, consistency).await
}

/// Many statuses by name, for lists too long for a URL.
#[utoipa::path(post, path = "/v1/status/query", tag = "Presence",
    operation_id = "query_statuses",
    request_body = ManyRequest,
    responses((status = 200, body = ManyBody), (status = 304, description = "As the given ETag"),
        (status = 413, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn query(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    JsonUpTo(request): JsonUpTo<QUERY_BYTES_MAX, ManyRequest>,
) -> Result<Response, Problem> {
    let consistency = app.at_least(request.min_position).await?;
    let users = request.users.iter().map(String::as_str);
    by_name(&app, &caller, &headers, users, consistency).await
}

async fn by_name<'a>(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    users: impl Iterator<Item = &'a str>,
    consistency: Consistency,
) -> Result<Response, Problem> {
    let users: Result<Vec<UserId>, _> = users.map(str::parse).collect();
    let mut users = users.map_err(|_| Problem::invalid_user_id())?;
    let mut met = std::collections::HashSet::with_capacity(users.len());
    users.retain(|user| met.insert(user.clone()));
    if users.len() > USERS_MAX {
        let detail = format!("at most {USERS_MAX} users at once");
        return Err(Problem::rule("too_many_users", detail));
    }
    let numbers = app.realm.names().find_all(&users).await?;
    // A number that nobody has: looked up like the others, and found nowhere.
    let numbers: Vec<UserNo> = numbers.into_iter().map(Option::unwrap_or_default).collect();
    let viewer = app.viewer(caller).await?;
    let look = |seen: Seen<'_>| viewer.status(seen);
    let found = app.realm.look(&numbers, consistency, look).await?;
    let mut items = Vec::with_capacity(users.len());
    let mut unknown = Vec::new();
    for (user, status) in users.into_iter().zip(found) {
        match status.flatten() {
            Some(status) => items.push(status),
            None => unknown.push(user),
        }
    }
    let tag = etag(&items, &unknown);
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|given| matches(given, &tag));
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
        (header::ETAG, HeaderValue::from_str(&tag).map_err(Problem::internal)?),
    ];
    if same {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let (position, server_time) = (app.realm.position(), Instant(app.realm.now()));
    Ok((headers, Json(ManyBody { items, unknown, position, server_time })).into_response())
}

/// Weak, over what is shown but `last_seen` and what moves with it. Every node makes the same.
fn etag(items: &[StatusBody], unknown: &[UserId]) -> String {
    let mut hasher = DefaultHasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.write(bytes);
        hasher.write_u8(0);
    };
    for item in items {
        let mut item = item.clone();
        item.last_seen = None;
        if let Some(truth) = &mut item.truth {
            truth.last_activity = None;
        }
        put(&serde_json::to_vec(&item).unwrap_or_default());
    }
    for user in unknown {
        put(user.as_str().as_bytes());
    }
    format!("W/\"{:016x}\"", hasher.finish())
}

/// RFC 9110, 13.1.2: weak comparison, a list, or `*`.
pub(crate) fn matches(given: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = given.to_str().unwrap_or_default();
    given.trim() == "*" || given.split(',').any(|other| opaque(other) == opaque(tag))
}

async fn list(app: &App, caller: &Caller, query: &ManyQuery) -> Result<Response, Problem> {
    let limit = page_limit(query.limit)?;
    let after = query.cursor.as_deref().map(str::parse::<UserId>).transpose();
    let after = after.map_err(|_| Problem::invalid_parameter("cursor is none of ours"))?;
    app.realm.refresh_doubtful().await?;
    let wanted: Option<domain::Status> = query.status.map(domain::Status::from);
    // One more than the page; the last by name gives way to whoever comes before it.
    let mut first: BTreeMap<UserId, StatusBody> = BTreeMap::new();
    let viewer = app.viewer(caller).await?;
    app.realm.each(|seen| {
        let full = first.len() > limit;
        if after.as_ref().is_some_and(|after| seen.user_id <= after)
            || full && first.last_key_value().is_some_and(|(last, _)| seen.user_id >= last)
        {
            return;
        }
        let Some(status) = viewer.listed(seen) else { return };
        if wanted.is_none_or(|wanted| wanted == status) {
            first.extend(viewer.status(seen).map(|status| (seen.user_id.clone(), status)));
            if first.len() > limit + 1 {
                first.pop_last();
            }
        }
    });
    let mut found: Vec<StatusBody> = first.into_values().collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).map(|status| status.user_id.to_string());
    Ok(no_store(Json(Page { items: found, next_cursor: last })))
}

/// The limit of a page: 422 above the largest, and for 0.
pub(crate) fn page_limit(limit: Option<u32>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(LIST_LIMIT_DEFAULT);
    if limit == 0 || limit > LIST_LIMIT_MAX {
        let detail = format!("limit is 1 to {LIST_LIMIT_MAX}");
        return Err(Problem::rule("invalid_limit", detail));
    }
    Ok(limit as usize)
}

/// How many users are shown how.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CountsBody {
    online: usize,
    away: usize,
    busy: usize,
    dnd: usize,
    offline: usize,
}

impl CountsBody {
    pub(crate) fn add(&mut self, status: domain::Status) {
        match status {
            domain::Status::Online => self.online += 1,
            domain::Status::Away => self.away += 1,
            domain::Status::Busy => self.busy += 1,
            domain::Status::Dnd => self.dnd += 1,
            domain::Status::Offline => self.offline += 1,
        }
    }
}

/// Counts by status.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryBody {
    counts: CountsBody,
    /// Of users shown with another status than `offline`.
    live_sessions: usize,
    position: Position,
    server_time: Instant,
}

/// Counts users by status, and live sessions: of those whom the caller may see.
#[utoipa::path(get, path = "/v1/status/summary", tag = "Presence", params(ReadQuery),
    operation_id = "count_statuses",
    responses((status = 200, body = SummaryBody)))]
pub async fn summary(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Problem> {
    app.at_least(query.min_position).await?;
    app.realm.refresh_doubtful().await?;
    let viewer = app.viewer(&caller).await?;
    let mut counts = CountsBody::default();
    let mut live_sessions = 0;
    app.realm.each(|seen| {
        let Some(status) = viewer.counted(seen) else { return };
        counts.add(status);
        if status != domain::Status::Offline {
            live_sessions += seen.state.sessions.len();
        }
    });
    let (position, server_time) = (app.realm.position(), Instant(app.realm.now()));
    Ok(no_store(Json(SummaryBody { counts, live_sessions, position, server_time })))
}
