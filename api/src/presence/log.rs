//! The log.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use chrono::{DateTime, Utc};
use domain::{Position, Reason, UserId, UserNo};
use projections::log::{self, By, Filter, NAMES};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::bulk::page_limit;
use super::spans::window;
use super::status::no_store;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, Query};
use crate::formats::events::{self, EventForm};
use crate::formats::{Format, accept};
use crate::limits::{LOG_LOOK_EVERY, POLL_WAIT_MAX, USERS_MAX};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::EventBody;

/// The forms of a list of events.
pub(crate) const FORMS: [Format; 5] =
    [Format::Json, Format::Ndjson, Format::Csv, Format::CloudEvents, Format::Parquet];
/// Where to go on, of forms that have no place for it.
const NEXT: HeaderName = HeaderName::from_static("rollcall-next");
/// The log's newest position, likewise.
const HEAD: HeaderName = HeaderName::from_static("rollcall-head");
/// Being read is written down, and is no news to those who read.
const READING: &str = "audit_read";

/// Which of an event's two instants is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockName {
    /// When it happened.
    #[default]
    Occurred,
    /// When it was written down.
    Recorded,
}

/// Which part of the log. Lists are separated by commas.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Events above this position; beyond the head: 410 `cursor_expired`.
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    after: Position,
    /// Of these types, such as `session_opened,claim_set`.
    types: Option<String>,
    /// About these users, at most 1000. One never seen has no events.
    users: Option<String>,
    /// Ends for these reasons, such as `lost_carrier`.
    reasons: Option<String>,
    /// Caused by these users.
    actors: Option<String>,
    /// At this instant or later.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<DateTime<Utc>>,
    /// Before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<DateTime<Utc>>,
    /// The clock of `from` and `to`; the order is always that of positions.
    #[serde(default)]
    #[param(inline)]
    by: ClockName,
    /// At most so many: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// If there is nothing, wait so long for something: up to 30000 ms.
    #[serde(default)]
    #[param(maximum = 30000)]
    wait_ms: u64,
    /// Heartbeats too; `types=heartbeat` asks for them as well.
    #[serde(default)]
    heartbeats: bool,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

impl LogQuery {
    async fn filter(&self, app: &App) -> Result<Filter, Problem> {
        let (from, to) = window(self.from, self.to)?;
        Ok(Filter {
            heartbeats: self.heartbeats,
            types: self.types.as_deref().map(types).transpose()?,
            users: numbers(app, self.users.as_deref()).await?,
            reasons: self.reasons.as_deref().map(reasons).transpose()?,
            actors: numbers(app, self.actors.as_deref()).await?,
            by: match self.by {
                ClockName::Occurred => By::Occurred,
                ClockName::Recorded => By::Recorded,
            },
            from,
            to,
        })
    }
}

fn types(list: &str) -> Result<Vec<String>, Problem> {
    let known = |name: &str| {
        let known = NAMES.contains(&name);
        known.then(|| name.to_owned()).ok_or_else(|| unknown("types", &NAMES))
    };
    list.split(',').map(known).collect()
}

fn reasons(list: &str) -> Result<Vec<Reason>, Problem> {
    const KNOWN: [&str; 5] =
        ["user_request", "lost_carrier", "idle_timeout", "session_timeout", "admin_reset"];
    list.split(',').map(|name| name.parse().map_err(|_| unknown("reasons", &KNOWN))).collect()
}

fn unknown(parameter: &str, known: &[&str]) -> Problem {
    Problem::rule("invalid_value", format!("{parameter}: any of {}", known.join(",")))
}

async fn numbers(app: &App, list: Option<&str>) -> Result<Option<Vec<UserNo>>, Problem> {
    let Some(list) = list else { return Ok(None) };
    let names: Result<Vec<UserId>, _> = list.split(',').map(str::parse).collect();
    let names = names.map_err(|_| Problem::invalid_user_id())?;
    if names.len() > USERS_MAX {
        return Err(Problem::rule("too_many_users", format!("at most {USERS_MAX} users")));
    }
    Ok(Some(log::numbers(app.realm.pool(), &names).await?))
}

/// A part of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogBody {
    items: Vec<EventBody>,
    /// Where to go on: `after` of the next call. It moves on where nothing fits, too: a page looks
    /// through a bounded part of the log.
    next: Position,
    /// The log's newest position.
    head: Position,
}

/// Events in position order. As JSON, NDJSON, CSV, Parquet or a batch of `CloudEvents`, by
/// `Accept`; in all forms but JSON, `next` and `head` stand in the headers `Rollcall-Next` and
/// `Rollcall-Head`.
#[utoipa::path(get, path = "/v1/log", tag = "History",
    operation_id = "read_log",
    params(LogQuery),
    responses((status = 200, body = LogBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 406, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 410, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn log(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Auditor, Role::Admin])?;
    let format = accept::choose(&headers, &FORMS)?;
    let limit = page_limit(query.limit)?;
    let wait = Duration::from_millis(query.wait_ms);
    if wait > POLL_WAIT_MAX {
        let longest = POLL_WAIT_MAX.as_millis();
        return Err(Problem::rule("invalid_wait", format!("wait_ms is at most {longest}")));
    }
    if query.after < 0 {
        return Err(Problem::invalid_parameter("after is a position, 0 or above"));
    }
    let filter = query.filter(&app).await?;
    app.at_least(query.min_position).await?;
    let page = waited(&app, &filter, query.after, limit, wait).await?;
    let items: Vec<EventBody> = page.events.into_iter().map(EventBody::from).collect();
    let Some(form) = EventForm::of(format) else {
        return Ok(no_store(Json(LogBody { items, next: page.next, head: page.head })));
    };
    let mut answer = format.answer("log", events::file(form, &items)?);
    answer.headers_mut().insert(NEXT, HeaderValue::from(page.next));
    answer.headers_mut().insert(HEAD, HeaderValue::from(page.head));
    Ok(answer)
}

/// The next page; where it has nothing new, the first one within `wait` that has.
async fn waited(
    app: &App,
    filter: &Filter,
    after: Position,
    limit: usize,
    wait: Duration,
) -> Result<log::Page, Problem> {
    let deadline = Instant::now() + wait;
    let mut after = after;
    loop {
        let page = log::page(app.realm.pool(), filter, after, limit).await?;
        if after > page.head {
            return Err(Problem::cursor_expired());
        }
        let news = page.events.iter().any(|event| event.name != READING);
        // Not yet at the head: there may be more, and the caller had better go on at once.
        if news || page.next < page.head || Instant::now() >= deadline {
            return Ok(page);
        }
        // What was read until here need not be read again, unless it is to be answered.
        if page.events.is_empty() {
            after = page.next;
        }
        let moved = async {
            app.realm.roster().reached(page.head + 1).await;
            // Where heartbeats move the log all the time, not at each of them.
            tokio::time::sleep(LOG_LOOK_EVERY).await;
        };
        tokio::select! {
            // Over or not: the last look decides.
            _ = tokio::time::timeout_at(deadline, moved) => {}
            () = app.live.stopping.cancelled() => return Ok(page),
        }
    }
}
