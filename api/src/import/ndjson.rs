//! One JSON object a line: `type, user_id, session_id, occurred_at, reason?, device?`.

use chrono::{DateTime, Utc};
use domain::command::{ImportLine, ImportedChange};
use domain::{Reason, SessionId};
use serde::Deserialize;

use super::{Item, Rejected, reason_or};
use crate::shapes::DeviceBody;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsed {
    #[serde(rename = "type")]
    name: String,
    user_id: String,
    session_id: SessionId,
    occurred_at: DateTime<Utc>,
    reason: Option<String>,
    device: Option<DeviceBody>,
}

/// Understands one line.
pub fn parse(number: u64, text: &str) -> Result<Item, Rejected> {
    let rejected = |code, detail: String| Rejected::new(number, code, detail);
    let parsed: Parsed =
        serde_json::from_str(text).map_err(|error| rejected("malformed", error.to_string()))?;
    let user_id =
        parsed.user_id.parse().map_err(|error| rejected("invalid_user_id", format!("{error}")))?;
    let reason = |usual| {
        reason_or(parsed.reason.as_deref(), usual)
            .map_err(|error| rejected("invalid_reason", error))
    };
    let device = parsed.device.clone().unwrap_or_default();
    let what = match parsed.name.as_str() {
        "session_opened" => ImportedChange::Opened(device.kind.into()),
        "heartbeat" => ImportedChange::Heartbeat,
        "session_closed" => ImportedChange::Closed(reason(Reason::UserRequest)?),
        "session_expired" => ImportedChange::Expired(reason(Reason::LostCarrier)?),
        other => {
            let detail = format!(
                "{other:?}: session_opened, heartbeat, session_closed and session_expired can be \
                 imported"
            );
            return Err(rejected("unsupported_type", detail));
        }
    };
    let device_id = device.id.filter(|id| !id.contains('\0') && id.len() <= 1_024);
    // The log's clock ticks in microseconds.
    let at = DateTime::from_timestamp_micros(parsed.occurred_at.timestamp_micros());
    let at = at.ok_or_else(|| rejected("malformed", "occurred_at is out of range".to_owned()))?;
    let what = ImportLine { what, session: parsed.session_id, at };
    Ok(Item { line: number, user_id, what, then: None, device_id })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "01890000-0000-7000-8000-000000000001";

    fn line(name: &str, user: &str, more: &str) -> String {
        format!(
            "{{\"type\":\"{name}\",\"user_id\":\"{user}\",\"session_id\":\"{ID}\",\
             \"occurred_at\":\"2020-01-01T00:00:00Z\"{more}}}"
        )
    }

    #[test]
    fn a_login_and_a_logout_are_understood() {
        let login = line("session_opened", "ana", r#","device":{"id":"d","kind":"web"}"#);
        let item = parse(7, &login).unwrap();
        assert_eq!((item.line, item.device_id.as_deref()), (7, Some("d")));
        assert_eq!(item.what.what, ImportedChange::Opened(domain::DeviceKind::Web));
        let logout = line("session_closed", "ana", r#","reason":"admin_reset""#);
        let item = parse(8, &logout).unwrap();
        assert_eq!(item.what.what, ImportedChange::Closed(Reason::AdminReset));
    }

    #[test]
    fn every_wrong_line_names_what_is_wrong() {
        let code = |text: &str| parse(1, text).unwrap_err().code;
        assert_eq!(code("{"), "malformed");
        assert_eq!(code(&line("session_opened", "ana", r#","x":1"#)), "malformed");
        assert_eq!(code(&line("session_opened", "a b", "")), "invalid_user_id");
        assert_eq!(code(&line("claim_set", "ana", "")), "unsupported_type");
        assert_eq!(code(&line("session_closed", "ana", r#","reason":"?""#)), "invalid_reason");
    }
}
