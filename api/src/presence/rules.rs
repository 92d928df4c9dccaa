//! The rules of a policy, as they go over the wire.

use domain::automation::{Action, Condition, Rule, SourcePattern};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::problem::Problem;
use crate::shapes::StatusName;

/// When a status has lasted for so long, then this, once a stretch.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleBody {
    /// 1 to 64 of the characters of a `user_id`; it acts as `rule:<name>`.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    when: ConditionBody,
    then: ActionBody,
}

/// A status that lasts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionBody {
    status: StatusName,
    /// Without a break: 1 s to 30 days.
    #[schema(minimum = 1_000, maximum = 2_592_000_000_u64)]
    for_ms: u64,
}

/// What a rule does.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionBody {
    /// Takes the claims of a source back: `manual`, `system:<name>`, all that begin: `system:*`.
    ClearClaims(String),
    /// Tells that webhook `rollcall.rule_matched`, with the event with which the status began.
    Webhook(Uuid),
}

impl From<&Rule> for RuleBody {
    fn from(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            when: ConditionBody { status: rule.when.status.into(), for_ms: rule.when.for_ms },
            then: match &rule.then {
                Action::ClearClaims(pattern) => ActionBody::ClearClaims(pattern.0.clone()),
                Action::Webhook(id) => ActionBody::Webhook(*id),
            },
        }
    }
}

impl From<RuleBody> for Rule {
    fn from(rule: RuleBody) -> Self {
        Self {
            name: rule.name,
            when: Condition { status: rule.when.status.into(), for_ms: rule.when.for_ms },
            then: match rule.then {
                ActionBody::ClearClaims(pattern) => Action::ClearClaims(SourcePattern(pattern)),
                ActionBody::Webhook(id) => Action::Webhook(id),
            },
        }
    }
}

/// 404 `webhook_not_found`, where a rule would tell one that there is not.
pub(super) async fn check_webhooks(app: &App, rules: &[RuleBody]) -> Result<(), Problem> {
    for rule in rules {
        match rule.then {
            ActionBody::Webhook(id) => {
                app.webhook(id).await?;
            }
            ActionBody::ClearClaims(_) => {}
        }
    }
    Ok(())
}
