//! When a token ends while its bearer is connected: by its age, or because it was revoked.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Auth, Caller, Identity, RoleSet};
use crate::problem::Problem;

/// The runtime's timers do not reach further; a token that lives longer is looked at again.
const SLEEP_MAX: Duration = Duration::from_hours(24);

/// Why a token is not believed any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    /// Its `exp` has passed.
    Expired,
    /// Somebody revoked it.
    Revoked,
}

/// What is kept of a token that a ticket stands for.
#[derive(Serialize, Deserialize)]
struct Stored {
    user_id: domain::UserId,
    roles: Vec<String>,
    username: Option<String>,
    groups: Vec<String>,
    token_key: String,
    expires_at: chrono::DateTime<Utc>,
}

impl Caller {
    /// What [`Auth::admit_stored`] makes the caller of again.
    pub fn to_stored(&self) -> serde_json::Value {
        let stored = Stored {
            user_id: self.user_id.clone(),
            roles: self.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            username: self.username.clone(),
            groups: self.groups.clone(),
            token_key: self.token_key.clone(),
            expires_at: self.expires_at,
        };
        // Texts, instants and lists always serialize.
        serde_json::to_value(stored).unwrap_or_default()
    }
}

impl Auth {
    /// The caller of whom something was stored; takes one request out of its rate limit.
    ///
    /// Errors: 401 `token_expired`, `token_revoked`; 429.
    pub fn admit_stored(&self, stored: serde_json::Value) -> Result<Caller, Problem> {
        let stored: Stored = serde_json::from_value(stored).map_err(Problem::internal)?;
        let caller = Caller(Arc::new(Identity {
            subject_hash: self.subject_hash(&stored.user_id),
            roles: RoleSet::from_words(stored.roles.iter().map(String::as_str)),
            user_id: stored.user_id,
            username: stored.username,
            groups: stored.groups,
            token_key: stored.token_key,
            expires_at: stored.expires_at,
        }));
        self.still_good(&caller, Utc::now())?;
        self.limits().check(&caller)?;
        Ok(caller)
    }

    /// Completes when the caller's token is not believed any longer.
    pub fn ends(&self, caller: &Caller) -> BoxFuture<'static, TokenEnd> {
        let watch = self.revocations.watch(&caller.token_key);
        let expires_at = caller.refused_anyway_after();
        Box::pin(async move {
            tokio::select! {
                () = watch.revoked() => TokenEnd::Revoked,
                () = passed(expires_at) => TokenEnd::Expired,
            }
        })
    }
}

async fn passed(at: chrono::DateTime<Utc>) {
    while let Ok(left) = (at - Utc::now()).to_std() {
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}
