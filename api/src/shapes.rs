//! The objects of the HTTP contract, as they go over the wire.

use chrono::SecondsFormat;
use domain::{
    Audience, Claim, DeviceKind, Position, Session, Shown, Silences, Timestamp, UserId, lapse,
    shown,
};
use projections::history::LoggedEvent;
use projections::realm::Seen;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

/// An instant as RFC 3339 in UTC with microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Instant(pub Timestamp);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// One of the five statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusName {
    /// A live session is active, or a claim says so.
    Online,
    /// All live sessions are idle, or a claim says so.
    Away,
    /// A claim says so.
    Busy,
    /// A claim says so: do not disturb.
    Dnd,
    /// No live session.
    Offline,
}

impl From<domain::Status> for StatusName {
    fn from(status: domain::Status) -> Self {
        match status {
            domain::Status::Online => Self::Online,
            domain::Status::Away => Self::Away,
            domain::Status::Busy => Self::Busy,
            domain::Status::Dnd => Self::Dnd,
            domain::Status::Offline => Self::Offline,
        }
    }
}

impl From<StatusName> for domain::Status {
    fn from(status: StatusName) -> Self {
        match status {
            StatusName::Online => Self::Online,
            StatusName::Away => Self::Away,
            StatusName::Busy => Self::Busy,
            StatusName::Dnd => Self::Dnd,
            StatusName::Offline => Self::Offline,
        }
    }
}

/// A user's status.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StatusBody {
    /// The user's outside name.
    #[schema(value_type = String)]
    pub user_id: UserId,
    /// The status.
    pub status: StatusName,
    /// When the shown status began.
    pub since: Instant,
    /// Latest accepted heartbeat or login of any session.
    pub last_seen: Option<Instant>,
    /// What the claim that decides says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For the user itself, services, auditors and admins.
    #[serde(flatten)]
    #[schema(value_type = TruthBody)]
    pub truth: Option<TruthBody>,
}

/// What the user itself, services, auditors and admins see besides.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TruthBody {
    /// When the person last did something.
    pub last_activity: Option<Instant>,
    /// Count of live sessions.
    #[schema(required = false)]
    pub sessions: usize,
    /// Count of transitions.
    #[schema(required = false)]
    pub sequence: i64,
    /// Position of the last transition.
    #[schema(required = false, value_type = i64)]
    pub position: Position,
    /// Whether others are shown `offline`.
    #[schema(required = false)]
    pub invisible: bool,
    /// Claims not taken back.
    #[schema(required = false)]
    pub claims: Vec<ClaimBody>,
}

/// A claim.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClaimBody {
    /// `admin`, `manual` or `system:<name>`.
    pub source: String,
    /// The status claimed.
    pub status: StatusName,
    /// What the source says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Instant>,
}

impl From<&Claim> for ClaimBody {
    fn from(claim: &Claim) -> Self {
        Self {
            source: claim.source.to_string(),
            status: claim.status.into(),
            text: claim.text.clone(),
            expires_at: claim.expires_at.map(Instant),
        }
    }
}

impl StatusBody {
    /// A user as `audience` may see it: the only way a status leaves the server.
    pub fn of(seen: Seen<'_>, audience: Audience) -> Self {
        let Shown { status, since, last_seen, text, truth } = shown::shown(seen.state, audience);
        let truth = truth.map(|truth| TruthBody {
            last_activity: truth.last_activity.map(Instant),
            sessions: truth.sessions,
            sequence: truth.sequence,
            position: seen.position,
            invisible: truth.invisible,
            claims: truth.claims.iter().map(ClaimBody::from).collect(),
        });
        Self {
            user_id: seen.user_id.clone(),
            status: status.into(),
            since: Instant(since),
            last_seen: last_seen.map(Instant),
            text,
            truth,
        }
    }
}

/// What a session runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKindName {
    /// A browser.
    Web,
    /// A telephone or tablet.
    Mobile,
    /// An installed program.
    Desktop,
    /// A machine acting for a person.
    Service,
    /// Anything else.
    #[default]
    Other,
}

impl From<DeviceKind> for DeviceKindName {
    fn from(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Web => Self::Web,
            DeviceKind::Mobile => Self::Mobile,
            DeviceKind::Desktop => Self::Desktop,
            DeviceKind::Service => Self::Service,
            DeviceKind::Other => Self::Other,
        }
    }
}

impl From<DeviceKindName> for DeviceKind {
    fn from(kind: DeviceKindName) -> Self {
        match kind {
            DeviceKindName::Web => Self::Web,
            DeviceKindName::Mobile => Self::Mobile,
            DeviceKindName::Desktop => Self::Desktop,
            DeviceKindName::Service => Self::Service,
            DeviceKindName::Other => Self::Other,
        }
    }
}

/// A device, as its client named it at login.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceBody {
    /// The client's own name for it. Equal ids do not supersede each other.
    #[serde(default)]
    pub id: Option<String>,
    /// What it is.
    #[serde(default)]
    pub kind: DeviceKindName,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A live session.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SessionBody {
    /// Its name.
    pub session_id: Uuid,
    /// Whose it is.
    #[schema(value_type = String)]
    pub user_id: UserId,
    /// What it runs on.
    pub device: DeviceBody,
    /// The login.
    pub opened_at: Instant,
    /// The latest accepted heartbeat, or the login.
    pub last_seen: Instant,
    /// How long the person had been idle then.
    pub idle_ms: u32,
    /// When it is over without another heartbeat.
    pub expires_at: Instant,
}

impl SessionBody {
    /// A session with what its client said at login.
    pub fn of(
        user_id: &UserId,
        session: &Session,
        silences: &Silences,
        detail: Option<&Value>,
    ) -> Self {
        let text = |key: &str| {
            detail.and_then(|detail| detail.get(key)).and_then(Value::as_str).map(str::to_owned)
        };
        let kind = session.kind.into();
        Self {
            session_id: session.id,
            user_id: user_id.clone(),
            device: DeviceBody { id: text("device_id"), kind, label: text("label") },
            opened_at: Instant(session.opened_at),
            last_seen: Instant(session.last_seen),
            idle_ms: session.idle_ms,
            expires_at: Instant(lapse::lease_end(session, silences)),
        }
    }
}

/// One event of the log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventBody {
    /// Its place in the log.
    pub position: Position,
    /// Its stored name.
    #[serde(rename = "type")]
    pub name: String,
    /// About whom; not in system events, nor once erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user_id: Option<UserId>,
    /// The user's count of transitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// About which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// The status before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_status: Option<StatusName>,
    /// The status after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_status: Option<StatusName>,
    /// When it happened.
    pub occurred_at: Instant,
    /// When it was written down.
    pub recorded_at: Instant,
    /// Why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Who caused it; nobody, for what time does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub actor: Option<UserId>,
    /// What else it says.
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
}

impl From<LoggedEvent> for EventBody {
    fn from(event: LoggedEvent) -> Self {
        Self {
            position: event.position,
            name: event.name,
            user_id: event.user_id,
            sequence: event.sequence,
            session_id: event.session_id,
            from_status: event.from_status.map(StatusName::from),
            to_status: event.to_status.map(StatusName::from),
            occurred_at: Instant(event.occurred_at),
            recorded_at: Instant(event.recorded_at),
            reason: event.reason.map(domain::Reason::as_str),
            actor: event.actor,
            data: event.data,
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// What it holds.
    pub items: Vec<T>,
    /// Where the next page begins; null on the last.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}
