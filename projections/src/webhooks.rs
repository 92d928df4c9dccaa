//! Webhook endpoints: event-sourced with stock postgres-es, with their secrets kept apart.
//!
//! `webhook_view` is for people with SQL; what is answered and done stands on the events alone, so
//! that a view which a crash left behind misleads nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use cqrs_es::persist::GenericQuery;
use domain::webhook::{Endpoint, Webhook, WebhookCommand, WebhookEvent, WebhookRefusal};
use domain::{Position, Timestamp, UserNo};
use postgres_es::{PostgresCqrs, PostgresViewRepository, postgres_cqrs};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Error, history};

/// Most endpoints of a realm: each reads the log for itself.
pub const ENDPOINTS_MAX: usize = 100;
/// How long the former secret signs besides the new one.
pub const FORMER_SIGNS_FOR: Duration = Duration::from_hours(24);
/// Changes that others made at the same time, before it is given up.
const ATTEMPTS_MAX: usize = 5;

type WebhookViews = PostgresViewRepository<WebhookView, Webhook>;

/// What `webhook_view` shows.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct WebhookView {
    webhook: Webhook,
}

impl cqrs_es::View<Webhook> for WebhookView {
    fn update(&mut self, event: &cqrs_es::EventEnvelope<Webhook>) {
        self.webhook.apply(&event.payload);
    }
}

/// An endpoint that there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// Its name.
    pub id: Uuid,
    /// What it is.
    pub endpoint: Endpoint,
    /// Its state, with why it is told nothing.
    pub webhook: Webhook,
    /// The checkpoint: what it is to be told of the log up to here stands in `webhook_delivery`.
    pub position: Position,
}

/// Who changes something, and when.
#[derive(Debug, Clone, Copy)]
pub struct By {
    /// Who; nobody, for what an endpoint brought upon itself.
    pub actor: Option<UserNo>,
    /// The database's now.
    pub at: Timestamp,
}

/// What a delivery is signed with, the newest first. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(pub Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Changes endpoints, and knows them.
pub struct Webhooks {
    cqrs: PostgresCqrs<Webhook>,
    pool: PgPool,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// Over one realm.
    pub fn new(pool: PgPool) -> Self {
        let views = Arc::new(WebhookViews::new("webhook_view", pool.clone()));
        let mut query = GenericQuery::<WebhookViews, WebhookView, Webhook>::new(views);
        query.use_error_handler(Box::new(
            |error| tracing::warn!(%error, "webhook_view lags behind until the next change"),
        ));
        let cqrs = postgres_cqrs(pool.clone(), vec![Box::new(query)], ());
        Self { cqrs, pool }
    }

    /// Makes an endpoint that is told what comes after now. None: there are [`ENDPOINTS_MAX`].
    pub async fn create(
        &self,
        endpoint: Endpoint,
        secret: &str,
        by: By,
    ) -> Result<Option<Uuid>, Error> {
        endpoint.check()?;
        if self.all().await?.len() >= ENDPOINTS_MAX {
            return Ok(None);
        }
        let id = Uuid::now_v7();
        // Before the event: an endpoint that exists has a secret and a place in the log.
        let head = history::head(&self.pool).await?;
        sqlx::query("insert into webhook_secret (webhook_id, secret) values ($1, $2)")
            .bind(id)
            .bind(secret)
            .execute(&self.pool)
            .await?;
        sqlx::query("insert into webhook_cursor (webhook_id, position) values ($1, $2)")
            .bind(id)
            .bind(head)
            .execute(&self.pool)
            .await?;
        self.execute(id, WebhookCommand::Create(endpoint), by).await?;
        Ok(Some(id))
    }

    /// Changes what an endpoint is, and whether it is told.
    pub async fn change(
        &self,
        id: Uuid,
        endpoint: Option<Endpoint>,
        enabled: Option<bool>,
        by: By,
    ) -> Result<(), Error> {
        self.execute(id, WebhookCommand::Change { endpoint, enabled }, by).await
    }

    /// Gives an endpoint a new secret; the former one signs besides for [`FORMER_SIGNS_FOR`].
    pub async fn rotate(&self, id: Uuid, secret: &str, by: By) -> Result<(), Error> {
        self.execute(id, WebhookCommand::RotateSecret, by).await?;
        sqlx::query(
            "update webhook_secret set former = secret, secret = $2,
                    former_until = log_clock() + $3 * interval '1 second'
              where webhook_id = $1",
        )
        .bind(id)
        .bind(secret)
        .bind(FORMER_SIGNS_FOR.as_secs() as i64)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The endpoint said that it is gone: it is told nothing until an admin says otherwise.
    pub async fn gone(&self, id: Uuid, at: Timestamp) -> Result<(), Error> {
        let command = WebhookCommand::Disable(domain::webhook::DisabledBy::Gone);
        self.execute(id, command, By { actor: None, at }).await
    }

    /// Ends an endpoint, with all that it was still to be told.
    pub async fn delete(&self, id: Uuid, by: By) -> Result<(), Error> {
        let ended = self.execute(id, WebhookCommand::Delete, by).await;
        // Also where a former attempt stopped half way.
        if matches!(ended, Ok(()) | Err(Error::Webhook(WebhookRefusal::NotFound))) {
            for table in ["webhook_cursor", "webhook_secret"] {
                sqlx::query(&format!("delete from {table} where webhook_id = $1"))
                    .bind(id)
                    .execute(&self.pool)
                    .await?;
            }
        }
        ended
    }

    /// One endpoint.
    pub async fn find(&self, id: Uuid) -> Result<Option<Registered>, Error> {
        Ok(self.all().await?.into_iter().find(|registered| registered.id == id))
    }

    /// All endpoints, oldest first.
    pub async fn all(&self) -> Result<Vec<Registered>, Error> {
        let rows: Vec<(Uuid, Position, Value)> = sqlx::query_as(
            "select c.webhook_id, c.position, e.payload::jsonb from webhook_cursor c
               join events e on e.aggregate_type = 'webhook'
                            and e.aggregate_id = c.webhook_id::text
              order by c.webhook_id, e.sequence",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut folded: Vec<(Uuid, Position, Webhook)> = Vec::new();
        for (id, position, payload) in rows {
            let event: WebhookEvent = serde_json::from_value(payload)
                .map_err(|error| Error::Undecodable(error.to_string()))?;
            if folded.last().is_none_or(|(last, ..)| *last != id) {
                folded.push((id, position, Webhook::default()));
            }
            if let Some((.., webhook)) = folded.last_mut() {
                webhook.apply(&event);
            }
        }
        let there = |(id, position, webhook): (Uuid, Position, Webhook)| {
            let endpoint = webhook.endpoint.clone()?;
            Some(Registered { id, endpoint, webhook, position })
        };
        Ok(folded.into_iter().filter_map(there).collect())
    }

    /// What its deliveries are signed with now.
    pub async fn secrets(&self, id: Uuid) -> Result<Secrets, Error> {
        let found: Option<(String, Option<String>)> = sqlx::query_as(
            "select secret, case when former_until > log_clock() then former end
               from webhook_secret where webhook_id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(Secrets(found.map_or_else(Vec::new, |(secret, former)| {
            std::iter::once(secret).chain(former).collect()
        })))
    }

    async fn execute(&self, id: Uuid, command: WebhookCommand, by: By) -> Result<(), Error> {
        use cqrs_es::AggregateError::{
            AggregateConflict, DatabaseConnectionError, DeserializationError, UnexpectedError,
            UserError,
        };
        let mut metadata =
            HashMap::from([("at".to_owned(), by.at.to_rfc3339_opts(SecondsFormat::Micros, true))]);
        if let Some(actor) = by.actor {
            metadata.insert("actor".to_owned(), actor.to_string());
        }
        let id = id.to_string();
        for _ in 0..ATTEMPTS_MAX {
            let (command, metadata) = (command.clone(), metadata.clone());
            match self.cqrs.execute_with_metadata(&id, command, metadata).await {
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
}
