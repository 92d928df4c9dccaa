//! One change of a status, as each audience is told of it: serialized once, shared by all.

use axum::extract::ws::Utf8Bytes;
use domain::shown::{shown, transition};
use domain::{Audience, Position, Status, UserId, UserNo};
use projections::feed::Transition;
use projections::roster::Entry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::shapes::{Instant, StatusName};

/// What a change's frame begins with; behind it come the members of [`ChangeBody`].
const FRAME_HEAD: &str = r#"{"type":"status_changed","#;

/// A status that began.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct ChangeBody<'a> {
    /// Whose.
    #[schema(value_type = String)]
    user_id: &'a UserId,
    /// The status from then on.
    status: StatusName,
    /// When it began.
    since: Instant,
    /// Latest accepted heartbeat or login of any session.
    last_seen: Option<Instant>,
    /// What the claim that decides says.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// For the user itself, services, auditors and admins: whether others are shown `offline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    invisible: Option<bool>,
    /// Its place in the log: to resume from.
    position: Position,
}

/// One change. What an audience is not to know of is not in it.
#[derive(Debug)]
pub struct Change {
    /// Its place in the log.
    pub position: Position,
    /// About whom.
    pub user_no: UserNo,
    /// About whom, by the outside name.
    pub user_id: UserId,
    entitled: Option<Told>,
    others: Option<Told>,
}

/// What one audience is told, as a WebSocket frame; the JSON object without `type` is a part of it.
#[derive(Debug, Clone)]
pub struct Told {
    frame: Utf8Bytes,
    online: bool,
}

impl Told {
    /// `{"type":"status_changed",...}`
    pub fn frame(&self) -> Utf8Bytes {
        self.frame.clone()
    }

    /// Whether the user is anything but `offline` from then on.
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// The members of the JSON object, with its closing brace.
    fn members(&self) -> &str {
        self.frame.as_str().strip_prefix(FRAME_HEAD).unwrap_or_default()
    }

    /// Appends the JSON object without `type`.
    pub fn write_body(&self, text: &mut String) {
        text.push('{');
        text.push_str(self.members());
    }
}

/// What a transition is, beside what the log says of it.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// Whether the user was invisible before it, and after it.
    pub invisible: [bool; 2],
    /// The text that is shown may have changed.
    pub text_changed: bool,
    /// The roster's text may be told with it. Not where the roster is already further on: a text
    /// belongs to the transition that it came with.
    pub text_known: bool,
}

impl Change {
    /// The change that a transition is to somebody; none, if it is none to anybody. The log knows
    /// neither names nor texts: those are the roster's, which may be further on. Its text is told
    /// only with the status that it belongs to.
    pub fn of(happened: &Transition, around: Around, entry: &Entry) -> Option<Self> {
        let told = |audience| told(happened, around, entry, audience);
        let (entitled, others) = (told(Audience::Entitled), told(Audience::Others));
        (entitled.is_some() || others.is_some()).then(|| Self {
            position: happened.position,
            user_no: happened.user_no,
            user_id: entry.user_id.clone(),
            entitled,
            others,
        })
    }

    /// What this audience is told; none, where nothing that it is shown has changed.
    pub fn told(&self, audience: Audience) -> Option<&Told> {
        match audience {
            Audience::Entitled => self.entitled.as_ref(),
            Audience::Others => self.others.as_ref(),
        }
    }
}

fn told(happened: &Transition, around: Around, entry: &Entry, audience: Audience) -> Option<Told> {
    let [from, to] = transition([happened.from, happened.to], around.invisible, audience);
    let hidden = audience == Audience::Others && around.invisible[1];
    let text_changed = around.text_changed && !hidden && to != Status::Offline;
    let veiled = audience == Audience::Entitled && around.invisible[0] != around.invisible[1];
    if from == to && !text_changed && !veiled {
        return None;
    }
    let now = shown(&entry.state, audience);
    let same = now.status == to;
    // What changes no status leaves its beginning as it was.
    let since = if from == to && same { now.since } else { happened.occurred_at };
    let body = ChangeBody {
        user_id: &entry.user_id,
        status: to.into(),
        since: Instant(since),
        last_seen: now.last_seen.map(Instant),
        text: now.text.as_deref().filter(|_| same && around.text_known),
        invisible: (audience == Audience::Entitled).then_some(around.invisible[1]),
        position: happened.position,
    };
    let body = serde_json::to_string(&body).ok()?;
    let members = body.strip_prefix('{')?;
    let frame = Utf8Bytes::from(format!("{FRAME_HEAD}{members}"));
    Some(Told { frame, online: to != Status::Offline })
}
