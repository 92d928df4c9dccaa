//! Acts by the policy's rules. Every node does; none is the leader.

use std::sync::Arc;
use std::time::Duration;

use domain::Command;
use domain::automation::{Action, Rule};
use domain::command::ClearClaims;
use projections::automation::{self, Due};
use projections::follow::page::Step;
use projections::{Asked, Error, Executed, Realm};
use tokio_util::sync::CancellationToken;

use crate::sweeper::BEHIND;

/// Between two looks, where there are rules.
pub const PAUSE: Duration = Duration::from_millis(250);
/// Between two looks, where there are none.
const PAUSE_WITHOUT_RULES: Duration = Duration::from_secs(1);

/// Acts by the rules, on one node.
#[derive(Debug)]
pub struct Ruler {
    realm: Arc<Realm>,
}

impl Ruler {
    /// Over one realm.
    pub fn new(realm: Arc<Realm>) -> Self {
        Self { realm }
    }

    /// Acts until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.step().await {
                Ok(true) => Duration::ZERO,
                Ok(false) if self.realm.policy().rules.is_empty() => PAUSE_WITHOUT_RULES,
                Ok(false) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "acting by rules");
                    PAUSE_WITHOUT_RULES
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once, and acts; whether there is more to read.
    async fn step(&self) -> Result<bool, Error> {
        let pool = self.realm.pool();
        if automation::follow(pool).await? == Step::More {
            return Ok(true);
        }
        let policy = self.realm.policy();
        if policy.rules.is_empty() {
            return Ok(false);
        }
        // As far behind as what ends by itself is recorded: whoever came back in time has.
        let due = automation::claim(pool, &policy.rules, self.realm.now() - BEHIND).await?;
        for due in &due {
            let rule = policy.rules.iter().find(|rule| rule.name == due.rule);
            let Some(rule) = rule else { continue };
            if let Err(error) = self.act(rule, due).await {
                let (rule, user_no) = (&rule.name, due.user());
                tracing::warn!(rule, %user_no, %error, "acting by a rule: it will be due again");
            }
        }
        Ok(false)
    }

    async fn act(&self, rule: &Rule, due: &Due) -> Result<(), Error> {
        let (pool, status) = (self.realm.pool(), rule.when.status);
        match &rule.then {
            Action::Webhook(webhook) => {
                automation::tell(pool, due, status, *webhook).await?;
                Ok(())
            }
            Action::ClearClaims(pattern) => {
                let clear = ClearClaims { pattern: pattern.clone(), status, since: due.since };
                let Some(actor) = rule.actor() else { return Ok(()) };
                let actor = self.realm.names().number(&actor).await?;
                // A node that dies between the two lines leaves it to another one, whom the log
                // tells that it is done.
                let key = Some(format!("rule:{}:{}", rule.name, due.position));
                let asked = Asked { key, ..Asked::by(Some(actor)) };
                let command = Command::ClearClaims(clear);
                match self.realm.execute(due.user(), &command, asked).await? {
                    Executed::Done(_) | Executed::KeyKnown | Executed::SessionEnded => {}
                }
                automation::done(pool, due).await
            }
        }
    }
}
