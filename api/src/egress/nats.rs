//! Egress to NATS `JetStream`. `Nats-Msg-Id` is the position, by which the stream drops what comes
//! twice within its window.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{ConnectOptions, HeaderMap, header};
use domain::Position;
use projections::history::LoggedEvent;
use projections::log::{self, Filter, Page};
use projections::{Error, Realm, egress};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::EgressSettings;
use crate::formats::cloudevents::CloudEvent;
use crate::shapes::EventBody;

/// Events under way to the stream at one time.
const PAGE: usize = 256;
/// How long the stream remembers ids, where we make it: longer than a node's lease.
const DUPLICATES_FOR: Duration = Duration::from_mins(10);
/// How long a page may take until all of it is confirmed.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the log.
const POLL: Duration = Duration::from_millis(250);
/// Between two attempts while somebody cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The media type of a `CloudEvent` in JSON (structured mode).
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// Hands the log on, from one node.
#[derive(Debug)]
pub struct Egress {
    realm: Arc<Realm>,
    settings: EgressSettings,
    target: String,
    node: Uuid,
}

/// Why a page was not handed on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] Error),
    #[error("NATS: {0}")]
    Nats(#[from] async_nats::Error),
    #[error("an event is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the stream did not confirm in time")]
    Late,
}

impl Egress {
    /// Over one realm.
    pub fn new(realm: Arc<Realm>, settings: EgressSettings) -> Self {
        let target = format!("nats:{}", settings.stream);
        Self { realm, settings, target, node: Uuid::now_v7() }
    }

    /// Hands on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut context: Option<jetstream::Context> = None;
        loop {
            let pause = match self.step(&mut context).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "handing the log on; it waits");
                    context = None;
                    RETRY_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = egress::release(self.realm.pool(), self.node).await {
            tracing::warn!(%error, "giving the egress back: others wait for the end of its lease");
        }
    }

    /// One page, if this node has the lease; whether there is more.
    async fn step(&self, context: &mut Option<jetstream::Context>) -> Result<bool, Failure> {
        let pool = self.realm.pool();
        let Some(from) = egress::take(pool, &self.target, self.node).await? else {
            return Ok(false);
        };
        let Page { events, next, head } = log::page(pool, &Filter::default(), from, PAGE).await?;
        if from >= head {
            return Ok(false);
        }
        if !events.is_empty() {
            let context = match context {
                Some(context) => context,
                None => context.insert(self.connect().await?),
            };
            let published = self.publish(context, events);
            tokio::time::timeout(PAGE_TIME_MAX, published).await.map_err(|_| Failure::Late)??;
        }
        egress::confirm(pool, &self.target, self.node, next).await?;
        metrics::gauge!("rollcall_egress_position").set(next as f64);
        Ok(next < head)
    }

    async fn connect(&self) -> Result<jetstream::Context, Failure> {
        let options = ConnectOptions::new().name("rollcall");
        let client = options
            .connect(self.settings.url.as_str())
            .await
            .map_err(|error| Failure::Nats(error.into()))?;
        let context = jetstream::new(client);
        let wanted = stream::Config {
            name: self.settings.stream.clone(),
            subjects: vec![format!("{}.>", self.settings.subject)],
            duplicate_window: DUPLICATES_FOR,
            ..stream::Config::default()
        };
        let made = context.get_or_create_stream(wanted).await;
        made.map_err(|error| Failure::Nats(error.into()))?;
        Ok(context)
    }

    /// Sends a page in order, then waits until all of it is confirmed.
    async fn publish(
        &self,
        context: &jetstream::Context,
        events: Vec<LoggedEvent>,
    ) -> Result<(), Failure> {
        let mut confirmed = Vec::with_capacity(events.len());
        for event in events {
            let event = EventBody::from(event);
            let position: Position = event.position;
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, position.to_string().as_str());
            headers.insert("Content-Type", CLOUD_EVENT);
            let subject = format!("{}.{}", self.settings.subject, event.name);
            let body = serde_json::to_vec(&CloudEvent::from(&event))?;
            let sent = context.publish_with_headers(subject, headers, body.into()).await;
            confirmed.push(sent.map_err(|error| Failure::Nats(error.into()))?);
        }
        for confirmation in confirmed {
            confirmation.await.map_err(|error| Failure::Nats(error.into()))?;
        }
        Ok(())
    }
}
