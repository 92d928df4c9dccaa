//! How the node is, and whether what it serves is consistent.

use axum::extract::State;
use domain::Position;
use projections::follow::versions::Version;
use projections::health::{Finding, Severity, Survey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::{App, ENTITLED};
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::Instant;

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthBody {
    /// `ok`; `degraded`: this node may not serve, or something needs looking after; `red`: a view
    /// is stuck or has set an event aside, or something is inconsistent.
    status: &'static str,
    version: &'static str,
    /// Everything at or below it is in this node's memory.
    position: Position,
    /// How long ago this node last heard of the log.
    log_heard_ms_ago: Option<u64>,
    /// Jobs waiting before the log.
    queue_depth: usize,
    /// For services, auditors and admins: invisible users are among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<usize>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    live_sessions: Option<usize>,
    /// The database's clock less this node's, in milliseconds.
    clock_offset_ms: i64,
    /// The views, as this node saw them within the last few seconds.
    views: Vec<ViewHealth>,
    /// How many things are not as they must be: see `/v1/health/consistency`.
    findings: usize,
    server_time: Instant,
}

/// One version of a view.
#[derive(Debug, Serialize, ToSchema)]
pub struct ViewHealth {
    name: &'static str,
    version: i32,
    /// `live`, `building`, `stopped`, or `kept`: what was live before.
    state: &'static str,
    /// All events at or below it are in.
    position: Position,
    /// How long ago it was up to date, in milliseconds; 0 at the head.
    lag_ms: i64,
    /// Users set aside, because an event of theirs could not be taken in.
    waiting_users: i64,
}

impl From<&Version> for ViewHealth {
    fn from(version: &Version) -> Self {
        Self {
            name: version.view.name,
            version: version.version,
            state: version.state.as_str(),
            position: version.position,
            lag_ms: version.lag_ms,
            waiting_users: version.waiting,
        }
    }
}

/// How the node is. Answered from memory, so also while the database is away.
#[utoipa::path(get, path = "/v1/health", tag = "Operations",
    responses((status = 200, body = HealthBody)))]
pub async fn health(State(app): State<App>, caller: Caller, _: NoQuery) -> Json<HealthBody> {
    let realm = &app.realm;
    let heard = realm.roster().heard_ago();
    let entitled = caller.has_any(ENTITLED);
    let now = realm.now();
    let summary = app.health.summary();
    let waiting = summary.views.iter().any(|v| v.state.follows() && v.waiting > 0);
    let status = match summary.worst {
        Some(Severity::Critical) => "red",
        Some(Severity::Warning) | None if waiting => "red",
        Some(Severity::Warning) => "degraded",
        None if !realm.is_ready() => "degraded",
        None => "ok",
    };
    Json(HealthBody {
        status,
        version: env!("CARGO_PKG_VERSION"),
        position: realm.position(),
        log_heard_ms_ago: heard.map(|ago| ago.as_millis() as u64),
        queue_depth: realm.queue_depth(),
        users: entitled.then(|| realm.roster().users_count()),
        live_sessions: entitled.then(|| realm.roster().sessions_count()),
        clock_offset_ms: (now - chrono::Utc::now()).num_milliseconds(),
        views: summary.views.iter().map(ViewHealth::from).collect(),
        findings: summary.findings,
        server_time: Instant(now),
    })
}

/// What is not as it must be.
#[derive(Debug, Serialize, ToSchema)]
pub struct FindingsBody {
    findings: Vec<FindingBody>,
    /// The log's time as of which this holds.
    checked_at: Instant,
    /// Everything was looked at; users with more than 10,000 transitions by their last one only.
    complete: bool,
}

/// One thing that is not as it must be.
#[derive(Debug, Serialize, ToSchema)]
pub struct FindingBody {
    /// Which check found it.
    check: &'static str,
    /// `warning` or `critical`.
    severity: &'static str,
    /// In which view.
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<&'static str>,
    /// About whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    expected: String,
    found: String,
    /// Since when, as far as the data tells; else since it was first found.
    since: Instant,
    /// Events that it is about.
    positions: Vec<Position>,
    /// What to do.
    advice: &'static str,
}

impl From<&Finding> for FindingBody {
    fn from(finding: &Finding) -> Self {
        Self {
            check: finding.check.as_str(),
            severity: finding.check.severity().as_str(),
            view: finding.view,
            user_id: finding.user_id.as_ref().map(|user| user.as_str().to_owned()),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            since: Instant(finding.since.unwrap_or_default()),
            positions: finding.positions.clone(),
            advice: finding.advice(),
        }
    }
}

impl From<&Survey> for FindingsBody {
    fn from(survey: &Survey) -> Self {
        Self {
            findings: survey.findings.iter().map(FindingBody::from).collect(),
            checked_at: Instant(survey.checked_at),
            complete: survey.complete,
        }
    }
}

/// How to check.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConsistencyQuery {
    /// Check everything now, for at most 8 s, instead of saying what the checks that run all the
    /// time have found.
    #[serde(default)]
    pub fresh: bool,
}

/// Inconsistencies, by the checks that run all the time on every node, or by one made now.
#[utoipa::path(get, path = "/v1/health/consistency", tag = "Operations",
    params(ConsistencyQuery),
    responses((status = 200, body = FindingsBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn consistency(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ConsistencyQuery>,
) -> Result<Json<FindingsBody>, Problem> {
    caller.require(&[Role::Auditor, Role::Admin])?;
    if !query.fresh {
        return Ok(Json(FindingsBody::from(&app.health.latest())));
    }
    let survey = app.health.fresh(app.realm.database(), chrono::Utc::now).await?;
    let survey = survey.ok_or_else(|| {
        Problem::unavailable("check_under_way", "another such check is under way on this node")
    })?;
    Ok(Json(FindingsBody::from(&survey)))
}
