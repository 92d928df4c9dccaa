//! The adapter to cqrs-es. It holds no rule.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome, Refusal};
use crate::decide::{Context, decide};
use crate::policy::{PolicyPatch, PolicyRefusal};
use crate::webhook::{Webhook, WebhookCommand, WebhookEvent, WebhookRefusal};
use crate::{Event, Policy, Presence, Silences, Timestamp, UserNo};

/// The version of every stored event so far. A changed shape gets the next one and an upcaster.
pub const EVENT_VERSION: &str = "1";

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        self.body.name().to_owned()
    }

    fn event_version(&self) -> String {
        EVENT_VERSION.to_owned()
    }
}

/// What a decision stands on beside the state, owned, as the framework passes it.
#[derive(Debug, Clone)]
pub struct Services {
    /// The instant of the decision.
    pub now: Timestamp,
    /// Intervals and thresholds.
    pub policy: Policy,
    /// Our outages.
    pub silences: Silences,
    /// Who asks.
    pub actor: Option<UserNo>,
}

impl Aggregate for Presence {
    const TYPE: &'static str = "presence";
    type Command = Command;
    type Event = Event;
    type Error = Refusal;
    type Services = Services;

    async fn handle(
        &mut self,
        command: Command,
        services: &Services,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        let context = Context {
            now: services.now,
            taken_at: services.now,
            policy: &services.policy,
            silences: &services.silences,
            actor: services.actor,
        };
        let decision = decide(self.clone(), &command, &context);
        for recorded in decision.events {
            sink.write(recorded.event, self).await;
        }
        match decision.outcome {
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Opened { .. }
            | Outcome::Done
            | Outcome::Closed { .. }
            | Outcome::Guarded { .. } => Ok(()),
        }
    }

    fn apply(&mut self, event: Event) {
        Self::apply(self, &event);
    }
}

/// The policy as an event-sourced aggregate: who changed which interval is in the trail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyAggregate {
    /// The policy in force; none before the database was seeded.
    pub policy: Option<Policy>,
}

/// A change of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum PolicyEvent {
    /// The whole policy as it stands from here on.
    #[serde(rename = "policy_changed")]
    Changed {
        /// The policy.
        policy: Policy,
        /// Who changed it; nobody, at the first start.
        actor: Option<UserNo>,
    },
}

impl DomainEvent for PolicyEvent {
    fn event_type(&self) -> String {
        "policy_changed".to_owned()
    }

    fn event_version(&self) -> String {
        EVENT_VERSION.to_owned()
    }
}

/// What can be asked of the policy.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyCommand {
    /// Changes the policy in force. No event if it is so already.
    Change {
        /// What is to change.
        patch: PolicyPatch,
        /// Who asks.
        actor: Option<UserNo>,
    },
    /// Puts a policy in force where there is none.
    Seed(Policy),
}

impl Aggregate for PolicyAggregate {
    const TYPE: &'static str = "policy";
    type Command = PolicyCommand;
    type Event = PolicyEvent;
    type Error = PolicyRefusal;
    type Services = ();

    async fn handle(
        &mut self,
        command: PolicyCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), PolicyRefusal> {
        let (policy, actor) = match command {
            PolicyCommand::Change { patch, actor } => {
                (patch.applied_to(&self.policy.clone().unwrap_or_default()), actor)
            }
            PolicyCommand::Seed(_) if self.policy.is_some() => return Ok(()),
            PolicyCommand::Seed(policy) => (policy, None),
        };
        policy.check()?;
        if self.policy.as_ref() != Some(&policy) {
            sink.write(PolicyEvent::Changed { policy, actor }, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, PolicyEvent::Changed { policy, .. }: PolicyEvent) {
        self.policy = Some(policy);
    }
}

impl DomainEvent for WebhookEvent {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        EVENT_VERSION.to_owned()
    }
}

impl Aggregate for Webhook {
    const TYPE: &'static str = "webhook";
    type Command = WebhookCommand;
    type Event = WebhookEvent;
    type Error = WebhookRefusal;
    type Services = ();

    async fn handle(
        &mut self,
        command: WebhookCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), WebhookRefusal> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: WebhookEvent) {
        Self::apply(self, &event);
    }
}
