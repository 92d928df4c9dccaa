//! Reads the log for every endpoint and has it told. Every node has one; none is the leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::Position;
use projections::deliveries::{self, Attempted, Claimed, Then};
use projections::follow::page::Step;
use projections::webhooks::{Secrets, Webhooks};
use projections::{Error, Realm, history};
use serde::Serialize;
use tokio::task::Id;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::desk::{AT_ONCE_MAX, Desk, Reached};
use super::schedule;
use super::sender::{ATTEMPT_MAX, Answered, Letter, Sender};
use crate::shapes::{EventBody, Instant as WireInstant};

/// Between two looks at the log, at repeated attempts, and at what endpoints there are.
pub const POLL: Duration = Duration::from_millis(250);
/// Between two looks at the pending of an endpoint of which nothing was due.
const REST: Duration = Duration::from_secs(1);
/// Between two attempts while the database cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a node that stops waits until answers are noted.
const NOTED_WITHIN: Duration = Duration::from_secs(2);
/// The status by which an endpoint says that it wants nothing more.
const GONE: u16 = 410;

/// What an endpoint hears.
#[derive(Debug, Serialize)]
pub struct Told<'a> {
    /// `rollcall.` and the event's stored name; `rollcall.rule_matched` where a rule wants it told.
    #[serde(rename = "type")]
    kind: String,
    /// When it happened.
    timestamp: WireInstant,
    /// Which rule wants it told.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    /// The event.
    data: &'a EventBody,
}

impl<'a> Told<'a> {
    fn of(event: &'a EventBody, rule: &'a str) -> Self {
        let rule = Some(rule).filter(|rule| !rule.is_empty());
        let name = if rule.is_some() { "rule_matched" } else { event.name.as_str() };
        Self { kind: format!("rollcall.{name}"), timestamp: event.occurred_at, rule, data: event }
    }
}

/// `webhook-id`: one name for an event at an endpoint, however often it is told.
pub fn letter_id(webhook: Uuid, position: Position, rule: &str) -> String {
    let rule = if rule.is_empty() { String::new() } else { format!("_{rule}") };
    format!("msg_{}_{position}{rule}", webhook.simple())
}

/// The courier of one node.
#[derive(Debug, Clone)]
pub struct Courier {
    realm: Arc<Realm>,
    webhooks: Arc<Webhooks>,
    sender: Sender,
    node: Uuid,
    stop: CancellationToken,
}

impl Courier {
    /// Over one realm, until `stop`.
    pub fn new(
        realm: Arc<Realm>,
        webhooks: Arc<Webhooks>,
        sender: Sender,
        stop: CancellationToken,
    ) -> Self {
        Self { realm, webhooks, sender, node: Uuid::now_v7(), stop }
    }

    /// Tells until it is to stop. What is not answered by then is given back: it is told again.
    pub async fn run(self) {
        let mut desk = Desk::default();
        let mut next = Instant::now();
        loop {
            let done = tokio::select! {
                () = self.stop.cancelled() => break,
                Some(done) = desk.sending.join_next_with_id() => Some(done),
                () = tokio::time::sleep_until(next) => None,
            };
            let asked = match done {
                Some(Ok((task, reached))) => {
                    self.returned(&mut desk, task, reached).await.map(|()| None)
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "an attempt of a webhook");
                    self.returned(&mut desk, error.id(), Reached::Unclear).await.map(|()| None)
                }
                None => self.round(&mut desk).await.map(Some),
            };
            match asked {
                Ok(None) => {}
                Ok(Some(pause)) => next = Instant::now() + pause,
                Err(error) => {
                    tracing::warn!(%error, "telling webhooks");
                    next = Instant::now() + RETRY_PAUSE;
                }
            }
        }
        // What was answered is noted still.
        let noted = async { while desk.sending.join_next().await.is_some() {} };
        if timeout(NOTED_WITHIN, noted).await.is_err() {
            tracing::warn!("attempts are not noted yet: they are told again");
            desk.sending.shutdown().await;
        }
        if let Err(error) = deliveries::release(self.realm.pool(), self.node).await {
            tracing::warn!(%error, "giving deliveries back: they wait for the end of their lease");
        }
    }

    /// Looks once at every endpoint; how long until the next look.
    async fn round(&self, desk: &mut Desk) -> Result<Duration, Error> {
        let all = self.webhooks.all().await?.into_iter();
        let enabled = all.filter(|registered| registered.webhook.disabled.is_none());
        desk.endpoints = enabled.map(|registered| (registered.id, registered)).collect();
        let now = Instant::now();
        desk.rests_until.retain(|id, until| *until > now && desk.endpoints.contains_key(id));
        desk.away.retain(|id, _| desk.endpoints.contains_key(id));
        let head = self.realm.position();
        let mut more = false;
        let behind: Vec<(Uuid, Position)> =
            desk.endpoints.values().map(|known| (known.id, known.position)).collect();
        for (id, position) in behind {
            if position < head {
                let Some(known) = desk.endpoints.get(&id) else { continue };
                let filter = &known.endpoint.filter;
                more |= deliveries::expand(self.realm.pool(), id, filter).await? == Step::More;
                desk.rests_until.remove(&id);
            }
            if !desk.rests_until.contains_key(&id) {
                self.fill(desk, id).await?;
            }
        }
        // Whoever writes comes first: the log is read no faster than it takes to work it off.
        Ok(if more { now.elapsed().min(POLL) } else { POLL })
    }

    /// One attempt has ended: where half of the places are free, the next ones begin.
    async fn returned(&self, desk: &mut Desk, task: Id, reached: Reached) -> Result<(), Error> {
        let Some(webhook) = desk.to.remove(&task) else { return Ok(()) };
        if desk.is_back(webhook, reached) {
            deliveries::wake(self.realm.pool(), webhook).await?;
            desk.away.remove(&webhook);
            desk.rests_until.remove(&webhook);
        }
        if desk.free_for(webhook) * 2 >= AT_ONCE_MAX {
            self.fill(desk, webhook).await
        } else {
            Ok(())
        }
    }

    /// Begins as many attempts as there are places.
    async fn fill(&self, desk: &mut Desk, webhook: Uuid) -> Result<(), Error> {
        let free = desk.free_for(webhook);
        let Some(known) = desk.endpoints.get(&webhook).filter(|_| free > 0) else { return Ok(()) };
        let pool = self.realm.pool();
        let claimed = deliveries::claim(pool, webhook, self.node, free).await?;
        if claimed.is_empty() {
            desk.rests_until.insert(webhook, Instant::now() + REST);
            return Ok(());
        }
        let positions: Vec<Position> = claimed.iter().map(|one| one.key.position).collect();
        let found = history::at_positions(pool, &positions).await?.into_iter();
        let events: HashMap<Position, EventBody> =
            found.map(|event| (event.position, EventBody::from(event))).collect();
        let secrets = Arc::new(self.webhooks.secrets(webhook).await?);
        let url: Arc<str> = known.endpoint.url.as_str().into();
        for one in claimed {
            let told = events.get(&one.key.position).map(|event| Told::of(event, &one.key.rule));
            let body = told.and_then(|told| serde_json::to_string(&told).ok());
            let (courier, url) = (self.clone(), Arc::clone(&url));
            let secrets = Arc::clone(&secrets);
            let attempt = async move { courier.attempt(&one, &url, body, &secrets).await };
            let task = desk.sending.spawn(attempt);
            desk.to.insert(task.id(), webhook);
        }
        Ok(())
    }

    async fn attempt(
        &self,
        one: &Claimed,
        url: &str,
        body: Option<String>,
        secrets: &Secrets,
    ) -> Reached {
        let answered = match body {
            Some(body) => {
                let id = letter_id(one.key.webhook, one.key.position, &one.key.rule);
                let letter = Letter { url, id: &id, body, secrets };
                tokio::select! {
                    biased;
                    answered = self.sender.post(letter, ATTEMPT_MAX) => Some(answered),
                    () = self.stop.cancelled() => return Reached::Unclear,
                }
            }
            None => None,
        };
        let attempted = attempted(one.attempt, answered.as_ref());
        let outcome = match attempted.then {
            Then::Delivered => "delivered",
            Then::Retry(_) => "failed",
            Then::Dead => "dead",
        };
        metrics::counter!("rollcall_webhook_attempts_total", "outcome" => outcome).increment(1);
        let webhook = one.key.webhook;
        if attempted.then == Then::Dead {
            let (position, error) = (one.key.position, &attempted.error);
            tracing::error!(%webhook, position, ?error, "given up; POST .../replay tells it again");
        }
        let noted = deliveries::settle(self.realm.pool(), one, self.node, &attempted).await;
        if let Err(error) = noted {
            tracing::warn!(%webhook, %error, "noting an attempt: it is told again");
        }
        if attempted.http_status == Some(GONE) {
            tracing::warn!(%webhook, "it answered 410: disabled");
            if let Err(error) = self.webhooks.gone(webhook, self.realm.now()).await {
                tracing::warn!(%webhook, %error, "disabling: it will be asked again");
            }
        }
        Reached::by(&attempted)
    }
}

/// What an answer means for the next attempt. Without one, the event is no more.
fn attempted(attempt: i32, answered: Option<&Answered>) -> Attempted {
    let Some(answered) = answered else {
        let error = Some("the log no longer has the event".to_owned());
        return Attempted { http_status: None, error, then: Then::Dead };
    };
    let then = match &answered.fault {
        None => Then::Delivered,
        Some(_) => schedule::wait(attempt, answered.retry_after).map_or(Then::Dead, Then::Retry),
    };
    Attempted { http_status: answered.status, error: answered.fault.clone(), then }
}
