//! The policy: intervals, thresholds, retention, visibility.

use axum::extract::State;
use domain::automation::Rule;
use domain::policy::{PolicyPatch, Visibility};
use domain::{Policy, Position};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rules::{self, RuleBody};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery};
use crate::problem::{Problem, ProblemDocument};

/// The policy in force. Durations in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyBody {
    /// How often clients are told to send a heartbeat.
    heartbeat_ms: u32,
    /// How long a session lives after its latest heartbeat.
    lease_ms: u32,
    /// A heartbeat whose `idle_ms` is at least this turns its session idle.
    away_after_ms: u32,
    /// How long a dropped WebSocket may take to come back.
    grace_ms: u32,
    /// Interaction-driven sessions: idle this long after the latest interaction.
    interaction_away_after_ms: u32,
    /// Interaction-driven sessions: over this long after the latest interaction.
    interaction_lease_ms: u32,
    /// Heartbeats older than this are dropped, in days.
    heartbeat_retention_days: u32,
    /// Who sees whom.
    visibility: VisibilityName,
    /// What shall happen once a status has lasted for a while.
    rules: Vec<RuleBody>,
    position: Position,
}

/// Who sees whom.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VisibilityName {
    /// Every authenticated user sees every user.
    All,
    /// Users see the members of their own groups.
    Groups,
}

impl PolicyBody {
    fn of(policy: &Policy, position: Position) -> Self {
        Self {
            heartbeat_ms: policy.heartbeat_ms,
            lease_ms: policy.lease_ms,
            away_after_ms: policy.away_after_ms,
            grace_ms: policy.grace_ms,
            interaction_away_after_ms: policy.interaction_away_after_ms,
            interaction_lease_ms: policy.interaction_lease_ms,
            heartbeat_retention_days: policy.heartbeat_retention_days,
            visibility: match policy.visibility {
                Visibility::All => VisibilityName::All,
                Visibility::Groups => VisibilityName::Groups,
            },
            rules: policy.rules.iter().map(RuleBody::from).collect(),
            position,
        }
    }
}

/// What is to change; the rest stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    heartbeat_ms: Option<u32>,
    lease_ms: Option<u32>,
    away_after_ms: Option<u32>,
    grace_ms: Option<u32>,
    interaction_away_after_ms: Option<u32>,
    interaction_lease_ms: Option<u32>,
    heartbeat_retention_days: Option<u32>,
    visibility: Option<VisibilityName>,
    /// All rules, instead of those there were; at most 32.
    #[schema(max_items = 32)]
    rules: Option<Vec<RuleBody>>,
    /// As `GET` shows it: what was read may be sent back. Ignored.
    #[serde(rename = "position")]
    _position: Option<Position>,
}

impl From<PolicyRequest> for PolicyPatch {
    fn from(request: PolicyRequest) -> Self {
        Self {
            heartbeat_ms: request.heartbeat_ms,
            lease_ms: request.lease_ms,
            away_after_ms: request.away_after_ms,
            grace_ms: request.grace_ms,
            interaction_away_after_ms: request.interaction_away_after_ms,
            interaction_lease_ms: request.interaction_lease_ms,
            heartbeat_retention_days: request.heartbeat_retention_days,
            visibility: request.visibility.map(|visibility| match visibility {
                VisibilityName::All => Visibility::All,
                VisibilityName::Groups => Visibility::Groups,
            }),
            rules: request.rules.map(|rules| rules.into_iter().map(Rule::from).collect()),
        }
    }
}

/// The policy in force.
#[utoipa::path(get, path = "/v1/policy", tag = "Presence",
    operation_id = "get_policy",
    responses((status = 200, body = PolicyBody)))]
pub async fn get(State(app): State<App>, _caller: Caller, _: NoQuery) -> Json<PolicyBody> {
    Json(PolicyBody::of(&app.realm.policy(), app.realm.position()))
}

/// Changes the policy, on every node within a second. The change is an event.
#[utoipa::path(put, path = "/v1/policy", tag = "Presence",
    operation_id = "change_policy",
    request_body = PolicyRequest,
    responses((status = 200, body = PolicyBody),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json",
            description = "`webhook_not_found`: a rule would tell one that there is not"),
        (status = 422, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn put(
    State(app): State<App>,
    caller: Caller,
    _: NoQuery,
    Json(request): Json<PolicyRequest>,
) -> Result<Json<PolicyBody>, Problem> {
    caller.require(&[Role::Admin])?;
    rules::check_webhooks(&app, request.rules.as_deref().unwrap_or_default()).await?;
    let actor = app.actor(&caller).await?;
    let position = app.realm.change_policy(&request.into(), actor).await?;
    Ok(Json(PolicyBody::of(&app.realm.policy(), position)))
}
