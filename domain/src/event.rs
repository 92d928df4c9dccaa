//! What the log holds of one user. Stored names are explicit and for ever.

use serde::{Deserialize, Serialize};

use crate::{DeviceKind, Position, SessionId, Source, Status, Timestamp, UserNo};

/// The stored names of all events, the system's own at the end. `event_type` in the schema is the
/// same list.
pub const NAMES: [&str; 19] = [
    "session_opened",
    "session_resumed",
    "heartbeat",
    "session_closed",
    "session_expired",
    "activity_changed",
    "claim_set",
    "claim_cleared",
    "claim_expired",
    "visibility_changed",
    "action_allowed",
    "action_refused",
    "corrected",
    "user_erased",
    "service_resumed",
    "timeline_changed",
    "policy_changed",
    "partition_dropped",
    "audit_read",
];
/// The only event that is no transition.
pub const HEARTBEAT: &str = "heartbeat";

/// Why something ended. After RADIUS' Acct-Terminate-Cause (RFC 2866, 5.10) where one fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever.
pub enum Reason {
    /// The person logged out.
    UserRequest,
    /// The client fell silent, or its connection broke.
    LostCarrier,
    /// Nobody touched an interaction-driven client.
    IdleTimeout,
    /// The token that the session stood on ended.
    SessionTimeout,
    /// An administrator ended it.
    AdminReset,
}

impl Reason {
    /// The stored and shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserRequest => "user_request",
            Self::LostCarrier => "lost_carrier",
            Self::IdleTimeout => "idle_timeout",
            Self::SessionTimeout => "session_timeout",
            Self::AdminReset => "admin_reset",
        }
    }
}

impl std::str::FromStr for Reason {
    type Err = crate::status::UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use Reason::{AdminReset, IdleTimeout, LostCarrier, SessionTimeout, UserRequest};
        [UserRequest, LostCarrier, IdleTimeout, SessionTimeout, AdminReset]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| crate::status::UnknownName(text.to_owned(), "reason"))
    }
}

/// Why a guard refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever.
pub enum GuardRefusal {
    /// The status is none of those required.
    StatusRefused,
    /// The claim is there although it must not be, or the other way round.
    ClaimConflict,
    /// Something happened since the caller looked.
    SequenceChanged,
}

/// One thing that happened to one user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened (`occurred_at`).
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// What happened. `rename`s are stored for ever: rename the variants, never these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Body {
    /// A login.
    #[serde(rename = "session_opened")]
    SessionOpened {
        /// Which session.
        session: SessionId,
        /// What it runs on.
        kind: DeviceKind,
        /// How long it lives after its latest heartbeat.
        lease_ms: u32,
        /// How long the person had been idle at login.
        idle_ms: u32,
        /// Whether it counts as active.
        active: bool,
        /// Set for an interaction-driven session: idle this long after the latest interaction.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        away_after_ms: Option<u32>,
        /// History from elsewhere: no lease, no part of the present.
        #[serde(default, skip_serializing_if = "is_false")]
        imported: bool,
    },
    /// A dropped connection came back within its grace.
    #[serde(rename = "session_resumed")]
    SessionResumed {
        /// Which session.
        session: SessionId,
    },
    /// A sign of life. The only event that is no transition and takes no sequence.
    #[serde(rename = "heartbeat")]
    Heartbeat {
        /// Which session.
        session: SessionId,
        /// How long the person had been idle when it was sent.
        idle_ms: u32,
        /// History from elsewhere.
        #[serde(default, skip_serializing_if = "is_false")]
        imported: bool,
    },
    /// A logout, or an end that somebody asked for.
    #[serde(rename = "session_closed")]
    SessionClosed {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: Reason,
        /// History from elsewhere.
        #[serde(default, skip_serializing_if = "is_false")]
        imported: bool,
    },
    /// The lease ended by itself. `at` is the deadline.
    #[serde(rename = "session_expired")]
    SessionExpired {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: Reason,
        /// History from elsewhere.
        #[serde(default, skip_serializing_if = "is_false")]
        imported: bool,
    },
    /// A session turned active or idle.
    #[serde(rename = "activity_changed")]
    ActivityChanged {
        /// Which session.
        session: SessionId,
        /// Active from here on, or idle.
        active: bool,
    },
    /// Somebody asserted a status.
    #[serde(rename = "claim_set")]
    ClaimSet {
        /// Who asserts.
        source: Source,
        /// What.
        status: Status,
        /// Counts only while a session is active.
        #[serde(default, skip_serializing_if = "is_false")]
        while_active: bool,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    /// A claim was taken back.
    #[serde(rename = "claim_cleared")]
    ClaimCleared {
        /// Whose.
        source: Source,
    },
    /// A claim ended by itself. `at` is its `expires_at`.
    #[serde(rename = "claim_expired")]
    ClaimExpired {
        /// Whose.
        source: Source,
    },
    /// The user went invisible or came back.
    #[serde(rename = "visibility_changed")]
    VisibilityChanged {
        /// Invisible from here on, or not.
        invisible: bool,
    },
    /// A guard let an action through.
    #[serde(rename = "action_allowed")]
    ActionAllowed {
        /// Which action.
        action: String,
        /// What was required.
        require: Vec<Status>,
        /// The status without the claims that the guard overlooked, where that is another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beneath: Option<Status>,
    },
    /// A guard refused an action.
    #[serde(rename = "action_refused")]
    ActionRefused {
        /// Which action.
        action: String,
        /// What was required.
        require: Vec<Status>,
        /// Why.
        code: GuardRefusal,
        /// The status without the claims that the guard overlooked, where that is another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beneath: Option<Status>,
    },
    /// An auditor's note that an earlier event is not to be believed.
    #[serde(rename = "corrected")]
    Corrected {
        /// The event that it points at.
        corrects: Position,
    },
    /// The person was erased from everything but the log's numbers.
    #[serde(rename = "user_erased")]
    UserErased {},
}

/// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Body {
    /// The stored name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionResumed { .. } => "session_resumed",
            Self::Heartbeat { .. } => "heartbeat",
            Self::SessionClosed { .. } => "session_closed",
            Self::SessionExpired { .. } => "session_expired",
            Self::ActivityChanged { .. } => "activity_changed",
            Self::ClaimSet { .. } => "claim_set",
            Self::ClaimCleared { .. } => "claim_cleared",
            Self::ClaimExpired { .. } => "claim_expired",
            Self::VisibilityChanged { .. } => "visibility_changed",
            Self::ActionAllowed { .. } => "action_allowed",
            Self::ActionRefused { .. } => "action_refused",
            Self::Corrected { .. } => "corrected",
            Self::UserErased {} => "user_erased",
        }
    }

    /// Everything but a heartbeat is a transition and takes the user's next sequence.
    pub const fn is_transition(&self) -> bool {
        !matches!(self, Self::Heartbeat { .. })
    }

    /// The session that it is about, if any.
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::SessionOpened { session, .. }
            | Self::SessionResumed { session }
            | Self::Heartbeat { session, .. }
            | Self::SessionClosed { session, .. }
            | Self::SessionExpired { session, .. }
            | Self::ActivityChanged { session, .. } => Some(*session),
            Self::ClaimSet { .. }
            | Self::ClaimCleared { .. }
            | Self::ClaimExpired { .. }
            | Self::VisibilityChanged { .. }
            | Self::ActionAllowed { .. }
            | Self::ActionRefused { .. }
            | Self::Corrected { .. }
            | Self::UserErased {} => None,
        }
    }

    /// History from elsewhere: no part of the present.
    pub const fn imported(&self) -> bool {
        match self {
            Self::SessionOpened { imported, .. }
            | Self::Heartbeat { imported, .. }
            | Self::SessionClosed { imported, .. }
            | Self::SessionExpired { imported, .. } => *imported,
            Self::SessionResumed { .. }
            | Self::ActivityChanged { .. }
            | Self::ClaimSet { .. }
            | Self::ClaimCleared { .. }
            | Self::ClaimExpired { .. }
            | Self::VisibilityChanged { .. }
            | Self::ActionAllowed { .. }
            | Self::ActionRefused { .. }
            | Self::Corrected { .. }
            | Self::UserErased {} => false,
        }
    }
}

/// What decides an event's `occurred_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The instant at which the server took the command in. Only `append` knows it exactly.
    Intake,
    /// A lapse: the deadline, which `append` checks against its own rows.
    Deadline,
    /// An imported event: as its source says.
    Exact,
}

/// An event that a decision made, with what the log stores beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The event; of [`When::Intake`], its `at` is provisional until `append` answers.
    pub event: Event,
    /// What decides its `at`.
    pub when: When,
    /// The user's gapless count of transitions; the count so far, for a heartbeat.
    pub sequence: i64,
    /// The status before it.
    pub from: Status,
    /// The status after it.
    pub to: Status,
    /// Who caused it; nobody, for a lapse.
    pub actor: Option<UserNo>,
}
