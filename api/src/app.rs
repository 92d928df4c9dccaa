//! What every handler gets.

use std::sync::Arc;

use axum::extract::FromRef;
use domain::{Audience, UserId, UserNo};
use projections::groups::Groups;
use projections::health::Health;
use projections::mailman::Mailman;
use projections::realm::{Consistency, Seen};
use projections::{Error, Realm};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::{Auth, Caller, Role};
use crate::compat::Compat;
use crate::live::Live;
use crate::problem::Problem;
use crate::shapes::StatusBody;
use crate::telemetry::Metrics;

/// Roles that are told the truth about invisible users.
pub const ENTITLED: &[Role] = &[Role::Service, Role::Auditor, Role::Admin];

/// The node's state, cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The log and the present.
    pub realm: Arc<Realm>,
    /// Who belongs to which group.
    pub groups: Arc<Groups>,
    /// What is sent to users.
    pub mail: Arc<Mailman>,
    /// Tokens and rate limits.
    pub auth: Arc<Auth>,
    /// Live feeds.
    pub live: Arc<Live>,
    /// The process' metrics.
    pub metrics: Metrics,
    /// What the adapters remember.
    pub compat: Arc<Compat>,
    /// What the checks of consistency have found.
    pub health: Arc<Health>,
}

impl FromRef<App> for Arc<Auth> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.auth)
    }
}

impl App {
    /// What this caller may see of a user whom it acts for; of others [`Self::viewer`] knows.
    pub fn audience(caller: &Caller, user: &UserId) -> Audience {
        if caller.is(user) || caller.has_any(ENTITLED) {
            Audience::Entitled
        } else {
            Audience::Others
        }
    }

    /// The number of a user who was ever seen, else 404.
    pub async fn known_user(&self, user: &UserId) -> Result<UserNo, Problem> {
        let number = self.realm.names().find(user).await?;
        number.ok_or_else(Problem::user_not_found)
    }

    /// The number of the caller, made if there is none.
    pub async fn actor(&self, caller: &Caller) -> Result<UserNo, Problem> {
        Ok(self.realm.names().number(&caller.user_id).await?)
    }

    /// One user's status as this caller may see it, or 404.
    pub async fn status(
        &self,
        caller: &Caller,
        user: UserNo,
        consistency: Consistency,
    ) -> Result<StatusBody, Problem> {
        let viewer = self.viewer(caller).await?;
        let look = |seen: Seen<'_>| viewer.status(seen);
        let mut found = self.realm.look(&[user], consistency, look).await?;
        found.pop().flatten().flatten().ok_or_else(Problem::user_not_found)
    }

    /// Waits for a position that a client has seen elsewhere. From then on only the database knows
    /// every node's heartbeats, hence the consistency of what follows.
    pub async fn at_least(&self, min_position: Option<i64>) -> Result<Consistency, Problem> {
        let Some(position) = min_position else { return Ok(Consistency::Usual) };
        if self.realm.reached(position).await {
            Ok(Consistency::Strong)
        } else {
            Err(Problem::position_not_reached(self.realm.position()))
        }
    }
}

/// What every read takes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// Not before this position; waits up to 2 s.
    pub min_position: Option<i64>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        const SOON: std::time::Duration = std::time::Duration::from_secs(1);
        match error {
            Error::Overloaded => Self::overloaded(SOON),
            Error::Overtaken(_) => {
                Self::unavailable("overtaken", "others keep changing this user; try again")
            }
            Error::Refused => Self::rule("refused", "the database refuses this value"),
            Error::TooSlow => {
                Self::unavailable("too_slow", "this takes too long; ask about a smaller window")
            }
            Error::ShuttingDown => {
                Self::unavailable("shutting_down", "this node is shutting down; try another")
            }
            Error::Database(_) if error.is_transient() => {
                Self::unavailable("database_unavailable", "the database cannot be reached")
                    .caused_by(error)
            }
            Error::Policy(refusal) => Self::rule("policy_refused", refusal.to_string()),
            Error::Database(_)
            | Error::Migration(_)
            | Error::Unsupported(_)
            | Error::Undecodable(_) => Self::internal(error),
        }
    }
}
