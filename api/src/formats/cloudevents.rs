//! Events as `CloudEvents` 1.0 (JSON event format).

use serde::Serialize;
use utoipa::ToSchema;

use crate::shapes::{EventBody, Instant};

/// One event in the envelope of `CloudEvents`.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudEvent<'a> {
    specversion: &'static str,
    /// The position: unique within the source.
    id: String,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: Instant,
    datacontenttype: &'static str,
    #[schema(value_type = EventBody)]
    data: &'a EventBody,
}

impl<'a> From<&'a EventBody> for CloudEvent<'a> {
    fn from(event: &'a EventBody) -> Self {
        Self {
            specversion: "1.0",
            id: event.position.to_string(),
            source: "/v1/log",
            kind: format!("rollcall.{}", event.name),
            subject: event.user_id.as_ref().map(domain::UserId::as_str),
            time: event.occurred_at,
            datacontenttype: "application/json",
            data: event,
        }
    }
}
