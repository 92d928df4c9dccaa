//! What is said over a WebSocket: JSON text frames, `type` first.

use domain::{GroupName, Position, SessionId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::style::Style;
use crate::extract::parse_object;
use crate::limits::FRAME_BYTES_MAX;
use crate::problem::Problem;
use crate::shapes::{DeviceBody, Instant, StatusBody};

/// Longest `ref`, in bytes of JSON: it is sent back as it came.
const REF_BYTES_MAX: usize = 128;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ClientFrame {
    /// As the first frame: goes on with a session, and with what was missed since a position.
    Resume(Resume),
    /// As the first frame: opens a session at once, and says on what.
    Open {
        #[serde(default)]
        device: Option<DeviceBody>,
        #[serde(default)]
        idle_ms: u32,
    },
    /// A sign of life of the person's, which renews the lease.
    Heartbeat {
        #[serde(default)]
        idle_ms: u32,
    },
    /// Adds to the watch list; without users and groups: everybody.
    Watch {
        #[serde(default)]
        users: Option<Vec<String>>,
        #[serde(default)]
        groups: Option<Vec<String>>,
    },
    /// Takes off the watch list; without users and groups: everybody.
    Unwatch {
        #[serde(default)]
        users: Option<Vec<String>>,
        #[serde(default)]
        groups: Option<Vec<String>>,
    },
    /// What is sent to a group of the user's comes to this connection, too.
    Join { group: GroupName },
    /// Ends that.
    Leave { group: GroupName },
    /// To one user, or to a group of the user's.
    Send {
        #[serde(default)]
        to: Option<UserId>,
        #[serde(default)]
        group: Option<GroupName>,
        body: String,
    },
    /// To everybody who is live. Admins and services only.
    Broadcast {
        body: String,
        #[serde(default)]
        title: Option<String>,
    },
    /// The user has this message, on whichever device.
    Ack { id: Uuid },
    /// Asks for a `pong`.
    Ping {},
}

/// Which session is to go on, and from where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    pub(super) session_id: SessionId,
    #[serde(rename = "resume_token")]
    pub(super) token: String,
    #[serde(default)]
    pub(super) position: Option<Position>,
    /// On what the session is that is opened if that one is over.
    #[serde(default)]
    pub(super) device: Option<DeviceBody>,
    /// For how long the person has been idle then.
    #[serde(default)]
    pub(super) idle_ms: u32,
}

/// The words that [`ClientFrame`] knows, each with its fields.
const KNOWN: [(&str, &[&str]); 11] = [
    ("resume", &["session_id", "resume_token", "position"]),
    ("open", &["device", "idle_ms"]),
    ("heartbeat", &["idle_ms"]),
    ("watch", &["users", "groups"]),
    ("unwatch", &["users", "groups"]),
    ("join", &["group"]),
    ("leave", &["group"]),
    ("send", &["to", "group", "body"]),
    ("broadcast", &["body", "title"]),
    ("ack", &["id"]),
    ("ping", &[]),
];

/// A frame, with what its answer is to be called by.
#[derive(Debug)]
pub(super) struct Said {
    /// Sent back with `ack` and `error`.
    pub(super) reference: Option<Value>,
    pub(super) frame: Result<ClientFrame, Problem>,
}

impl Said {
    /// Reads one. Whatever is wrong with it, its `ref` is found if it has one.
    pub(super) fn read(text: &str, style: &Style) -> Self {
        debug_assert!(text.len() <= FRAME_BYTES_MAX, "the socket refuses longer ones");
        let mut fields = match parse_object::<serde_json::Map<String, Value>>(text.as_bytes()) {
            Ok(fields) => fields,
            Err(problem) => return Self { reference: None, frame: Err(problem) },
        };
        let reference = fields.remove("ref").filter(|reference| !reference.is_null());
        if let Some(reference) = &reference
            && (!(reference.is_string() || reference.is_number())
                || reference.to_string().len() > REF_BYTES_MAX)
        {
            let refused = Problem::rule("invalid_ref", "ref is a short string or a number");
            return Self { reference: None, frame: Err(refused) };
        }
        let word = fields.get("type").and_then(Value::as_str);
        let known = KNOWN.into_iter().find(|(known, _)| Some(*known) == word);
        let Some((_, known_fields)) = known else {
            let refused = Problem::rule("unknown_type", "there is no frame of this type");
            return Self { reference, frame: Err(refused) };
        };
        if let Style::Replaced(_) = style {
            be_lenient(&mut fields, known_fields);
        }
        // Once more from a text: its errors say what HTTP's say.
        let text = Value::Object(fields).to_string();
        Self { reference, frame: parse_object(text.as_bytes()) }
    }
}

/// Clients of the replaced system send fields of their own, and ids as numbers.
fn be_lenient(fields: &mut serde_json::Map<String, Value>, known: &[&str]) {
    fn name(value: &mut Value) {
        if value.is_u64() {
            *value = Value::String(value.to_string());
        }
    }
    fields.retain(|field, _| field == "type" || known.contains(&field.as_str()));
    if let Some(to) = fields.get_mut("to") {
        name(to);
    }
    if let Some(Value::Array(users)) = fields.get_mut("users") {
        users.iter_mut().for_each(name);
    }
}

/// What the server says. Changes come as they were serialized for all: see `change.rs`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ServerFrame<'a> {
    /// The session is open.
    Hello {
        session_id: SessionId,
        resume_token: &'a str,
        heartbeat_interval_ms: u32,
        lease_ms: u32,
        position: Position,
        /// The session that was asked for goes on.
        resumed: bool,
        server_time: Instant,
    },
    /// The statuses of those newly watched.
    Snapshot { items: &'a [StatusBody], position: Position },
    /// Done.
    Ack {
        #[serde(rename = "ref")]
        reference: &'a Value,
        /// What was sent has this name.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Uuid>,
    },
    /// Refused.
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a Value>,
        code: &'a str,
        detail: &'a str,
        #[serde(flatten)]
        more: &'a serde_json::Map<String, Value>,
    },
    /// The answer to `ping`: everything watched up to the position was sent.
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a Value>,
        position: Position,
    },
}

impl<'a> ServerFrame<'a> {
    /// What HTTP would say as a problem.
    pub(super) fn refusal(reference: Option<&'a Value>, problem: &'a Problem) -> Self {
        let (code, detail) = (problem.code(), problem.detail());
        Self::Error { reference, code, detail, more: problem.extensions() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::style::Replaced;
    use super::*;

    #[test]
    fn a_frame_is_read_with_its_ref_and_refused_with_it() {
        let said = Said::read(r#"{"type":"heartbeat","idle_ms":7,"ref":"a"}"#, &Style::Rollcall);
        assert_eq!(said.reference, Some("a".into()));
        assert!(matches!(said.frame.unwrap(), ClientFrame::Heartbeat { idle_ms: 7 }));
        for (text, code) in [
            (r#"{"type":"heartbeat","idle":7,"ref":1}"#, "unknown_field"),
            (r#"{"type":"heartbeat","idle_ms":"7","ref":1}"#, "invalid_field"),
            (r#"{"type":"heartbeat","idle_ms":-7,"ref":1}"#, "invalid_value"),
            (r#"{"type":"resume","ref":1}"#, "missing_field"),
            (r#"{"type":"nonsense","ref":1}"#, "unknown_type"),
            (r#"{"ref":1}"#, "unknown_type"),
        ] {
            let said = Said::read(text, &Style::Rollcall);
            assert_eq!((said.reference, said.frame.unwrap_err().code()), (Some(1.into()), code));
        }
        for text in ["", "{", "[]", "7", "\"ping\"", r#"{"type":"ping"} {}"#] {
            assert_eq!(
                Said::read(text, &Style::Rollcall).frame.unwrap_err().status(),
                400,
                "{text}"
            );
        }
        let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(200));
        for text in [long.as_str(), r#"{"type":"ping","ref":{}}"#] {
            assert_eq!(
                Said::read(text, &Style::Rollcall).frame.unwrap_err().code(),
                "invalid_ref",
                "{text}"
            );
        }
    }

    #[test]
    fn the_replaced_systems_clients_may_say_more_and_write_ids_as_numbers() {
        let style = Style::Replaced(Replaced { everybody: false, group: None });
        let text = r#"{"type":"send","to":5,"body":"hi","room":7,"ref":1}"#;
        let Ok(ClientFrame::Send { to, .. }) = Said::read(text, &style).frame else { panic!() };
        assert_eq!(to.unwrap().as_str(), "5");
        assert_eq!(Said::read(text, &Style::Rollcall).frame.unwrap_err().code(), "unknown_field");
    }

    #[test]
    fn the_readme_names_every_frame_with_all_its_members() {
        let readme = include_str!("../../../../README.md");
        let said = |word: &str, members: &[&str], row: usize| {
            let word = format!("`{word}`");
            let named = |line: &&str| line.split('|').nth(1).unwrap_or("").contains(&word);
            let rows: Vec<&str> = readme.lines().filter(named).collect();
            let row = rows.get(row).unwrap_or_else(|| panic!("{word} is not in README"));
            for member in members {
                assert!(row.contains(&format!("`{member}")), "{word}: {member}: {row}");
            }
        };
        for (word, members) in KNOWN {
            said(word, members, 0);
        }
        let (id, time) = (Uuid::nil(), Instant(domain::Timestamp::default()));
        let (reference, more) = (Value::from(1), serde_json::Map::new());
        let hello = ServerFrame::Hello {
            session_id: id,
            resume_token: "",
            heartbeat_interval_ms: 1,
            lease_ms: 1,
            position: 1,
            resumed: false,
            server_time: time,
        };
        let (code, detail, reference) = ("", "", &reference);
        let error = ServerFrame::Error { reference: Some(reference), code, detail, more: &more };
        for (frame, row) in [
            (hello, 0),
            (ServerFrame::Snapshot { items: &[], position: 1 }, 0),
            (ServerFrame::Ack { reference, id: Some(id) }, 1),
            (error, 0),
            (ServerFrame::Pong { reference: Some(reference), position: 1 }, 0),
        ] {
            let frame = serde_json::to_value(&frame).unwrap();
            let members = frame.as_object().unwrap().keys().map(String::as_str);
            let members: Vec<&str> = members.filter(|member| *member != "type").collect();
            said(frame["type"].as_str().unwrap(), &members, row);
        }
    }

    #[test]
    fn the_type_comes_first() {
        let frame = ServerFrame::Pong { reference: None, position: 7 };
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(text, r#"{"type":"pong","position":7}"#);
    }
}
