//! The presence policy: event-sourced with stock postgres-es, relayed into the log.
//!
//! The relay resumes after the last event relayed, so a change that was committed just before a
//! crash still reaches the trail; `append` relays each event once, whoever sends it how often.

use std::sync::Arc;

use cqrs_es::persist::GenericQuery;
use domain::aggregate::{PolicyAggregate, PolicyCommand, PolicyEvent};
use domain::policy::PolicyPatch;
use domain::{Policy, Position, UserNo};
use postgres_es::{PostgresCqrs, PostgresViewRepository, postgres_cqrs};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};

use crate::Error;
use crate::batch::SystemEvent;
use crate::queue::{Job, Queue};

/// The policy's name as an aggregate: a realm has one.
const AGGREGATE_ID: &str = "presence";
/// Its name as a source of relayed events.
const SOURCE: &str = "policy";
/// Changes that others made at the same time, before it is given up.
const ATTEMPTS_MAX: usize = 5;

type PolicyViews = PostgresViewRepository<PolicyView, PolicyAggregate>;

/// What `policy_view` shows: the policy in force.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct PolicyView {
    policy: Option<Policy>,
}

impl cqrs_es::View<PolicyAggregate> for PolicyView {
    fn update(&mut self, event: &cqrs_es::EventEnvelope<PolicyAggregate>) {
        let PolicyEvent::Changed { policy, .. } = &event.payload;
        self.policy = Some(policy.clone());
    }
}

/// Changes the policy.
pub struct Policies {
    cqrs: PostgresCqrs<PolicyAggregate>,
    pool: PgPool,
    queue: Queue,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Policies")
    }
}

impl Policies {
    /// Over one realm.
    pub fn new(pool: PgPool, queue: Queue) -> Self {
        let views = Arc::new(PolicyViews::new("policy_view", pool.clone()));
        let mut query = GenericQuery::<PolicyViews, PolicyView, PolicyAggregate>::new(views);
        query.use_error_handler(Box::new(
            |error| tracing::warn!(%error, "policy_view lags behind until the next change"),
        ));
        let cqrs = postgres_cqrs(pool.clone(), vec![Box::new(query)], ());
        Self { cqrs, pool, queue }
    }

    /// Puts a policy in force where there is none.
    pub async fn seed(&self, policy: Policy) -> Result<(), Error> {
        self.execute(|| PolicyCommand::Seed(policy.clone())).await
    }

    /// Changes the policy in force, and answers once that stands in the log.
    pub async fn change(
        &self,
        patch: &PolicyPatch,
        actor: UserNo,
    ) -> Result<Option<Position>, Error> {
        let command = || PolicyCommand::Change { patch: patch.clone(), actor: Some(actor) };
        self.execute(command).await?;
        self.relay().await
    }

    async fn execute(&self, command: impl Fn() -> PolicyCommand) -> Result<(), Error> {
        use cqrs_es::AggregateError::{
            AggregateConflict, DatabaseConnectionError, DeserializationError, UnexpectedError,
            UserError,
        };
        for _ in 0..ATTEMPTS_MAX {
            match self.cqrs.execute(AGGREGATE_ID, command()).await {
                Ok(()) => return Ok(()),
                Err(AggregateConflict) => {}
                Err(UserError(refusal)) => return Err(refusal.into()),
                Err(
                    DatabaseConnectionError(error)
                    | DeserializationError(error)
                    | UnexpectedError(error),
                ) => return Err(Error::Database(sqlx::Error::Protocol(error.to_string()))),
            }
        }
        Err(Error::Overtaken(ATTEMPTS_MAX))
    }

    /// Relays what the log does not have yet; the position after the last, if there was any.
    pub async fn relay(&self) -> Result<Option<Position>, Error> {
        let rows: Vec<(i64, Value)> = sqlx::query_as(
            "select sequence, payload from events
             where aggregate_type = 'policy' and aggregate_id = $1
               and sequence > coalesce((select number from relay where source = $2), 0)
             order by sequence",
        )
        .bind(AGGREGATE_ID)
        .bind(SOURCE)
        .fetch_all(&self.pool)
        .await?;
        let mut position = None;
        for (number, payload) in rows {
            let PolicyEvent::Changed { policy, actor } = decode(payload)?;
            let data = serde_json::json!({ "policy": policy, "number": number });
            let event = SystemEvent { name: "policy_changed", source: SOURCE, number, actor, data };
            position = Some(self.queue.ask(|reply| Job::System(event, reply)).await?);
        }
        Ok(position)
    }
}

fn decode(payload: Value) -> Result<PolicyEvent, Error> {
    serde_json::from_value(payload).map_err(|error| Error::Undecodable(error.to_string()))
}

/// The policy in force.
pub(crate) async fn read(executor: impl PgExecutor<'_>) -> Result<Option<Policy>, Error> {
    let payload: Option<Value> = sqlx::query_scalar(
        "select payload from events where aggregate_type = 'policy' and aggregate_id = $1
         order by sequence desc limit 1",
    )
    .bind(AGGREGATE_ID)
    .fetch_optional(executor)
    .await?;
    let Some(payload) = payload else { return Ok(None) };
    let PolicyEvent::Changed { policy, .. } = decode(payload)?;
    Ok(Some(policy))
}
