//! Webhook endpoints: where transitions are told, and which. Pure; the address itself is checked
//! where addresses are known.

use serde::{Deserialize, Serialize};

use crate::event::{HEARTBEAT, NAMES};
use crate::{GroupName, Status, UserNo};

/// Most users, groups or event types that one filter may name.
pub const FILTER_MAX: usize = 1_000;
/// Longest address of an endpoint, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Which transitions an endpoint is told of: those that pass every list. An empty list lets all
/// pass, except that the system's own events must be named by type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Types of events, by their stored names.
    pub event_types: Vec<String>,
    /// Users, by number: a person can be erased from what is kept elsewhere, not from here.
    pub users: Vec<UserNo>,
    /// Groups whose members count as named, as of when the event is read.
    pub groups: Vec<GroupName>,
    /// The status before.
    pub from_status: Vec<Status>,
    /// The status after.
    pub to_status: Vec<Status>,
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where events are posted to.
    pub url: String,
    /// Which ones.
    pub filter: Filter,
}

/// Why an endpoint is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever.
pub enum DisabledBy {
    /// An administrator said so.
    Admin,
    /// It answered 410.
    Gone,
}

/// One endpoint's state, the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Webhook {
    /// What it is; none before its creation and after its end.
    pub endpoint: Option<Endpoint>,
    /// Why it is told nothing.
    pub disabled: Option<DisabledBy>,
}

/// What happened to an endpoint. Who did it and when is in the stored events' metadata. The secret
/// is in none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")] // Stored for ever: rename the variants, never these.
pub enum WebhookEvent {
    /// It was made.
    #[serde(rename = "webhook_created")]
    Created {
        /// What it is.
        endpoint: Endpoint,
    },
    /// It is this from here on.
    #[serde(rename = "webhook_changed")]
    Changed {
        /// What it is.
        endpoint: Endpoint,
    },
    /// It is told again.
    #[serde(rename = "webhook_enabled")]
    Enabled {},
    /// It is told nothing from here on.
    #[serde(rename = "webhook_disabled")]
    Disabled {
        /// Why.
        by: DisabledBy,
    },
    /// It has a new secret.
    #[serde(rename = "webhook_secret_rotated")]
    SecretRotated {},
    /// It is no more.
    #[serde(rename = "webhook_deleted")]
    Deleted {},
}

/// What can be asked of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookCommand {
    /// Makes it.
    Create(Endpoint),
    /// Makes it this. No event if it is so already.
    Change {
        /// What it shall be; none: as it is.
        endpoint: Option<Endpoint>,
        /// Told from here on, or not; none: as it is.
        enabled: Option<bool>,
    },
    /// Gives it a new secret.
    RotateSecret,
    /// It said that it is gone.
    Disable(DisabledBy),
    /// Ends it.
    Delete,
}

/// Why the rules say no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookRefusal {
    /// There is none of that name.
    #[error("there is no such webhook")]
    NotFound,
    /// There is one already.
    #[error("there is a webhook of that name already")]
    Exists,
    /// The address is too long.
    #[error("a webhook's url has at most {URL_BYTES_MAX} bytes")]
    UrlTooLong,
    /// A list of the filter is too long.
    #[error("{0} names at most {FILTER_MAX}")]
    TooMany(&'static str),
    /// A type of event that there is not, or that is no transition.
    #[error("{0:?} is no type of event that a webhook can be told of")]
    UnknownType(String),
}

impl WebhookEvent {
    /// The stored name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "webhook_created",
            Self::Changed { .. } => "webhook_changed",
            Self::Enabled {} => "webhook_enabled",
            Self::Disabled { .. } => "webhook_disabled",
            Self::SecretRotated {} => "webhook_secret_rotated",
            Self::Deleted {} => "webhook_deleted",
        }
    }
}

impl Endpoint {
    /// Refuses what is too long and what can never happen.
    pub fn check(&self) -> Result<(), WebhookRefusal> {
        if self.url.len() > URL_BYTES_MAX {
            return Err(WebhookRefusal::UrlTooLong);
        }
        let lengths = [
            ("event_types", self.filter.event_types.len()),
            ("users", self.filter.users.len()),
            ("groups", self.filter.groups.len()),
            ("from_status", self.filter.from_status.len()),
            ("to_status", self.filter.to_status.len()),
        ];
        if let Some((name, _)) = lengths.into_iter().find(|(_, length)| *length > FILTER_MAX) {
            return Err(WebhookRefusal::TooMany(name));
        }
        // Everything but heartbeats.
        let told = |name: &str| name != HEARTBEAT && NAMES.contains(&name);
        match self.filter.event_types.iter().find(|name| !told(name)) {
            Some(unknown) => Err(WebhookRefusal::UnknownType(unknown.clone())),
            None => Ok(()),
        }
    }
}

impl Webhook {
    /// What a command leads to; nothing, where it is so already.
    pub fn decide(&self, command: WebhookCommand) -> Result<Vec<WebhookEvent>, WebhookRefusal> {
        let Some(known) = &self.endpoint else {
            return match command {
                WebhookCommand::Create(endpoint) => {
                    endpoint.check()?;
                    Ok(vec![WebhookEvent::Created { endpoint }])
                }
                WebhookCommand::Change { .. }
                | WebhookCommand::RotateSecret
                | WebhookCommand::Disable(_)
                | WebhookCommand::Delete => Err(WebhookRefusal::NotFound),
            };
        };
        match command {
            WebhookCommand::Create(_) => Err(WebhookRefusal::Exists),
            WebhookCommand::Change { endpoint, enabled } => {
                let mut events = Vec::new();
                if let Some(endpoint) = endpoint.filter(|endpoint| endpoint != known) {
                    endpoint.check()?;
                    events.push(WebhookEvent::Changed { endpoint });
                }
                match (enabled, self.disabled) {
                    (Some(true), Some(_)) => events.push(WebhookEvent::Enabled {}),
                    (Some(false), None) => {
                        events.push(WebhookEvent::Disabled { by: DisabledBy::Admin });
                    }
                    (Some(true) | None, None) | (Some(false) | None, Some(_)) => {}
                }
                Ok(events)
            }
            WebhookCommand::RotateSecret => Ok(vec![WebhookEvent::SecretRotated {}]),
            WebhookCommand::Disable(_) if self.disabled.is_some() => Ok(Vec::new()),
            WebhookCommand::Disable(by) => Ok(vec![WebhookEvent::Disabled { by }]),
            WebhookCommand::Delete => Ok(vec![WebhookEvent::Deleted {}]),
        }
    }

    /// Takes an event in.
    pub fn apply(&mut self, event: &WebhookEvent) {
        match event {
            WebhookEvent::Created { endpoint } | WebhookEvent::Changed { endpoint } => {
                self.endpoint = Some(endpoint.clone());
            }
            WebhookEvent::Enabled {} => self.disabled = None,
            WebhookEvent::Disabled { by } => self.disabled = Some(*by),
            WebhookEvent::SecretRotated {} => {}
            WebhookEvent::Deleted {} => *self = Self::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint { url: url.to_owned(), filter: Filter::default() }
    }

    fn made() -> Webhook {
        Webhook { endpoint: Some(endpoint("https://a")), disabled: None }
    }

    fn change(endpoint: Option<Endpoint>, enabled: Option<bool>) -> WebhookCommand {
        WebhookCommand::Change { endpoint, enabled }
    }

    #[test]
    fn what_is_so_already_is_no_event() {
        let same = change(Some(endpoint("https://a")), Some(true));
        assert_eq!(made().decide(same), Ok(Vec::new()));
        let gone = Webhook { disabled: Some(DisabledBy::Gone), ..made() };
        assert_eq!(gone.decide(WebhookCommand::Disable(DisabledBy::Gone)), Ok(Vec::new()));
        assert_eq!(gone.decide(change(None, Some(false))), Ok(Vec::new()));
        assert_eq!(gone.decide(change(None, Some(true))), Ok(vec![WebhookEvent::Enabled {}]));
    }

    #[test]
    fn nothing_can_be_asked_of_what_is_deleted_or_never_was() {
        let mut webhook = made();
        webhook.apply(&webhook.decide(WebhookCommand::Delete).unwrap()[0]);
        assert_eq!(webhook, Webhook::default());
        for command in [
            change(None, Some(true)),
            WebhookCommand::RotateSecret,
            WebhookCommand::Disable(DisabledBy::Gone),
            WebhookCommand::Delete,
        ] {
            assert_eq!(webhook.decide(command), Err(WebhookRefusal::NotFound));
        }
    }

    #[test]
    fn filters_are_bounded_and_name_what_there_is() {
        let mut long = endpoint("https://a");
        long.filter.users = vec![UserNo(1); FILTER_MAX + 1];
        let refused = made().decide(change(Some(long), None));
        assert_eq!(refused, Err(WebhookRefusal::TooMany("users")));
        let mut unknown = endpoint("https://a");
        unknown.filter.event_types = vec!["heartbeat".to_owned()];
        assert!(matches!(unknown.check(), Err(WebhookRefusal::UnknownType(_))));
        let url = endpoint(&"x".repeat(URL_BYTES_MAX + 1));
        assert_eq!(url.check(), Err(WebhookRefusal::UrlTooLong));
    }
}
