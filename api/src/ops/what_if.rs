//! What history would have been under another policy, to compare before changing it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::Position;
use domain::policy::PolicyPatch;
use projections::what_if::report::{self, Changed, Day, Pair, Report};
use projections::what_if::{self, Refusal, WhatIfView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path, Query};
use crate::presence::bulk::page_limit;
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, StatusName};

/// What of the policy is otherwise. Durations in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIfPolicy {
    /// How long a session lives after its latest heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u32>,
    /// From which `idle_ms` a heartbeat turns its session idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away_after_ms: Option<u32>,
    /// When interaction-driven sessions turn idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interaction_away_after_ms: Option<u32>,
    /// When interaction-driven sessions are over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interaction_lease_ms: Option<u32>,
}

impl WhatIfPolicy {
    /// As a change of the policy.
    pub fn patch(&self) -> PolicyPatch {
        PolicyPatch {
            lease_ms: self.lease_ms,
            away_after_ms: self.away_after_ms,
            interaction_away_after_ms: self.interaction_away_after_ms,
            interaction_lease_ms: self.interaction_lease_ms,
            ..PolicyPatch::default()
        }
    }

    fn of(patch: &PolicyPatch) -> Self {
        Self {
            lease_ms: patch.lease_ms,
            away_after_ms: patch.away_after_ms,
            interaction_away_after_ms: patch.interaction_away_after_ms,
            interaction_lease_ms: patch.interaction_lease_ms,
        }
    }
}

/// A question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIfRequest {
    /// 1 to 64 of `a-z 0-9 _ -`, beginning with a letter or digit.
    name: String,
    policy: WhatIfPolicy,
}

/// One what-if, and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfBody {
    name: String,
    policy: WhatIfPolicy,
    /// `building` or `done`.
    state: &'static str,
    /// From 0 to 1.
    progress: f64,
    /// Of the events at or below this position, as of `at`.
    position: Position,
    at: Instant,
    made_at: Instant,
}

impl From<&WhatIfView> for WhatIfBody {
    fn from(view: &WhatIfView) -> Self {
        Self {
            name: view.name.clone(),
            policy: WhatIfPolicy::of(view.patch()),
            state: if view.done { "done" } else { "building" },
            progress: view.progress,
            position: view.upto,
            at: Instant(view.upto_at),
            made_at: Instant(view.made_at),
        }
    }
}

/// All of them; there are few.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfsBody {
    items: Vec<WhatIfBody>,
}

/// A number as it was, and as it would have been.
#[derive(Debug, Serialize, ToSchema)]
pub struct PairBody {
    before: i64,
    after: i64,
}

impl From<Pair> for PairBody {
    fn from(pair: Pair) -> Self {
        Self { before: pair.before, after: pair.after }
    }
}

/// Time in one status, all users together.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfTime {
    /// The UTC day; none: over all days.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    status: StatusName,
    before_ms: i64,
    after_ms: i64,
}

/// A user whose history would be another.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfUser {
    user_id: String,
    /// How long the status would have been another.
    changed_ms: i64,
    changes: PairBody,
    flaps: PairBody,
}

/// How what would have been compares with what was; while it is being built, of users done so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfReport {
    #[serde(flatten)]
    about: WhatIfBody,
    /// Users compared.
    users: i64,
    /// Users whose history would be another.
    users_changed: i64,
    /// Changes of status.
    changes: PairBody,
    /// Statuses that lasted less than a minute.
    flaps: PairBody,
    /// Time in each status since each user's first event.
    totals: Vec<WhatIfTime>,
    /// The same by day, without `offline`; the latest 366 days.
    days: Vec<WhatIfTime>,
    /// Those whose status would have been another for the longest time.
    most_changed: Vec<WhatIfUser>,
}

impl WhatIfReport {
    /// Of that one.
    pub fn of(view: &WhatIfView, report: Report) -> Self {
        let day = |Day { day, status, ms }| WhatIfTime {
            day: Some(day.to_string()),
            status: StatusName::from(status),
            before_ms: ms.before,
            after_ms: ms.after,
        };
        let user = |Changed { user_id, changed_ms, changes, flaps }| WhatIfUser {
            user_id: user_id.as_str().to_owned(),
            changed_ms,
            changes: changes.into(),
            flaps: flaps.into(),
        };
        let total = |(status, ms): (domain::Status, Pair)| WhatIfTime {
            day: None,
            status: status.into(),
            before_ms: ms.before,
            after_ms: ms.after,
        };
        Self {
            about: view.into(),
            users: report.users,
            users_changed: report.users_changed,
            changes: report.changes.into(),
            flaps: report.flaps.into(),
            totals: report.totals.into_iter().map(total).collect(),
            days: report.days.into_iter().map(day).collect(),
            most_changed: report.most_changed.into_iter().map(user).collect(),
        }
    }
}

/// Asks what history would have been under another policy. A node works it off, from the log as it
/// stands now; the same question again changes nothing. At most 8 at one time.
#[utoipa::path(post, path = "/v1/what-if", tag = "Operations", operation_id = "ask_what_if",
    request_body = WhatIfRequest,
    responses((status = 202, body = WhatIfBody),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn ask(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<WhatIfRequest>,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let name = &request.name;
    if !what_if::is_name(name) {
        let detail = "a name is 1 to 64 of a-z 0-9 _ -, beginning with a letter or digit";
        return Err(Problem::rule("invalid_name", detail));
    }
    let pool = app.realm.pool();
    if let Err(refusal) = what_if::create(pool, name, &request.policy.patch()).await? {
        let code = match refusal {
            Refusal::Exists => "what_if_exists",
            Refusal::TooMany => "too_many_what_ifs",
        };
        return Err(Problem::conflict(code, refusal.to_string()));
    }
    let view = found(&app, name).await?;
    Ok((StatusCode::ACCEPTED, Json(WhatIfBody::from(&view))).into_response())
}

/// All what-ifs, and how far each is.
#[utoipa::path(get, path = "/v1/what-if", tag = "Operations", operation_id = "list_what_ifs",
    responses((status = 200, body = WhatIfsBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
) -> Result<Json<WhatIfsBody>, Problem> {
    caller.require(&[Role::Auditor, Role::Admin])?;
    let views = what_if::list(app.realm.pool()).await?;
    Ok(Json(WhatIfsBody { items: views.iter().map(WhatIfBody::from).collect() }))
}

/// How many users to name.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhatIfQuery {
    /// Users most changed: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// How what would have been compares with what was.
#[utoipa::path(get, path = "/v1/what-if/{name}", tag = "Operations",
    operation_id = "compare_what_if",
    params(("name" = String, Path), WhatIfQuery),
    responses((status = 200, body = WhatIfReport),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn compare(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<WhatIfQuery>,
) -> Result<Json<WhatIfReport>, Problem> {
    caller.require(&[Role::Auditor, Role::Admin])?;
    let limit = page_limit(query.limit)?;
    let view = found(&app, &name).await?;
    let report = report::read(app.realm.pool(), &name, limit as i64).await?;
    Ok(Json(WhatIfReport::of(&view, report)))
}

/// Drops one. Its rows go in small steps; until then its name is taken.
#[utoipa::path(delete, path = "/v1/what-if/{name}", tag = "Operations",
    operation_id = "drop_what_if",
    params(("name" = String, Path)),
    responses((status = 204, description = "It is gone"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn forget(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    caller.require(&[Role::Admin])?;
    if what_if::forget(app.realm.pool(), &name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found())
    }
}

async fn found(app: &App, name: &str) -> Result<WhatIfView, Problem> {
    what_if::find(app.realm.pool(), name).await?.ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::missing("what_if_not_found", "there is no what-if of that name")
}
