//! The same heartbeat by stock postgres-es: an aggregate a session, one view by `GenericQuery`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::GenericQuery;
use cqrs_es::{Aggregate, AggregateError, DomainEvent, EventEnvelope, View};
use postgres_es::{PostgresCqrs, PostgresViewRepository, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgPool};

use crate::Failure;

/// From so many idle milliseconds on, somebody is away.
const AWAY_AFTER_MS: u32 = 300_000;
/// How often a command is tried again that others have overtaken.
const ATTEMPTS_MAX: usize = 16;
/// The name of the view's table.
const VIEW: &str = "session_view";

/// A request's body.
#[derive(Debug, Deserialize)]
pub(super) struct Beat {
    idle_ms: u32,
}

impl Beat {
    /// What that makes of the person.
    pub(super) fn status(&self) -> &'static str {
        if self.idle_ms < AWAY_AFTER_MS { "online" } else { "away" }
    }
}

/// One session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Session {
    open: bool,
    last_seen: Option<DateTime<Utc>>,
}

enum SessionCommand {
    Beat { idle_ms: u32, at: DateTime<Utc> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum SessionEvent {
    Opened { at: DateTime<Utc> },
    Beaten { idle_ms: u32, at: DateTime<Utc> },
}

#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the session is closed")
    }
}

impl std::error::Error for Closed {}

impl DomainEvent for SessionEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Opened { .. } => "session_opened".to_owned(),
            Self::Beaten { .. } => "heartbeat".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Session {
    const TYPE: &'static str = "session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = Closed;
    type Services = ();

    async fn handle(
        &mut self,
        SessionCommand::Beat { idle_ms, at }: SessionCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Closed> {
        if !self.open {
            return Err(Closed);
        }
        sink.write(SessionEvent::Beaten { idle_ms, at }, self).await;
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        self.open = true;
        match event {
            SessionEvent::Opened { at } | SessionEvent::Beaten { at, .. } => {
                self.last_seen = Some(at);
            }
        }
    }
}

/// What is shown of a session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SessionView {
    status: String,
    last_seen: Option<DateTime<Utc>>,
}

impl View<Session> for SessionView {
    fn update(&mut self, event: &EventEnvelope<Session>) {
        let (idle_ms, at) = match event.payload {
            SessionEvent::Opened { at } => (0, at),
            SessionEvent::Beaten { idle_ms, at } => (idle_ms, at),
        };
        Beat { idle_ms }.status().clone_into(&mut self.status);
        self.last_seen = Some(at);
    }
}

type Views = PostgresViewRepository<SessionView, Session>;

/// postgres-es' own tables, with everybody logged in.
pub(super) async fn prepare(pool: &PgPool, sessions: &[String]) -> Result<(), Failure> {
    pool.execute(
        "create table events (
            aggregate_type text not null,
            aggregate_id   text not null,
            sequence       bigint check (sequence >= 0) not null,
            event_type     text not null,
            event_version  text not null,
            payload        json not null,
            metadata       json not null,
            primary key (aggregate_type, aggregate_id, sequence)
        )",
    )
    .await?;
    pool.execute(
        "create table session_view (
            view_id text not null primary key,
            version bigint check (version >= 0) not null,
            payload json not null
        )",
    )
    .await?;
    let (opened, at) = (SessionEvent::Opened { at: Utc::now() }, Some(Utc::now()));
    sqlx::query(
        "insert into events select 'session', id, 1, 'session_opened', '1', $2, '{}'
         from unnest($1::text[]) id",
    )
    .bind(sessions)
    .bind(serde_json::to_value(opened)?)
    .execute(pool)
    .await?;
    let view = SessionView { status: "online".to_owned(), last_seen: at };
    sqlx::query("insert into session_view select id, 1, $2 from unnest($1::text[]) id")
        .bind(sessions)
        .bind(serde_json::to_value(view)?)
        .execute(pool)
        .await?;
    Ok(())
}

/// One route.
pub(super) fn router(pool: PgPool) -> Router {
    let views = Arc::new(Views::new(VIEW, pool.clone()));
    let query = GenericQuery::<Views, SessionView, Session>::new(views);
    let cqrs = Arc::new(postgres_cqrs(pool, vec![Box::new(query)], ()));
    Router::new().route("/v1/sessions/{id}/heartbeat", post(heartbeat)).with_state(cqrs)
}

/// The answer is made of what was asked: reading the view again would cost another query.
async fn heartbeat(
    State(cqrs): State<Arc<PostgresCqrs<Session>>>,
    Path(session): Path<String>,
    Json(beat): Json<Beat>,
) -> Result<Json<SessionView>, StatusCode> {
    let at = Utc::now();
    for _ in 0..ATTEMPTS_MAX {
        let command = SessionCommand::Beat { idle_ms: beat.idle_ms, at };
        match cqrs.execute(&session, command).await {
            Ok(()) => {
                let status = beat.status().to_owned();
                return Ok(Json(SessionView { status, last_seen: Some(at) }));
            }
            Err(AggregateError::AggregateConflict) => {}
            Err(AggregateError::UserError(Closed)) => return Err(StatusCode::GONE),
            Err(_) => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
    Err(StatusCode::CONFLICT)
}
