//! What can be asked for, what comes of it, and why it may be refused.

use crate::automation::SourcePattern;
use crate::event::{GuardRefusal, Reason};
use crate::{DeviceKind, SessionId, Source, Status, Timestamp};

/// What somebody asks of one user's presence.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A login. Repeatable: the same open session answers again without an event.
    Open(Open),
    /// A dropped connection comes back.
    Resume {
        /// Which session.
        session: SessionId,
    },
    /// A sign of life that may turn the session active or idle.
    Heartbeat {
        /// Which session.
        session: SessionId,
        /// How long the person has been idle.
        idle_ms: u32,
    },
    /// A logout. Repeatable: one event.
    Close {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
    /// Ends a session of which nothing was heard since; nothing, if something was. Repeatable.
    CloseSilent {
        /// Which session.
        session: SessionId,
        /// Its latest sign of life that the asker knows of.
        last_seen: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// Ends all live sessions.
    CloseAll {
        /// Why.
        reason: Reason,
    },
    /// Asserts a status.
    SetClaim(SetClaim),
    /// Takes a claim back. Repeatable: one event.
    ClearClaim {
        /// Whose.
        source: Source,
    },
    /// Takes the claims back that a rule means, if the user's status is still the one that began
    /// then; else nothing. Repeatable.
    ClearClaims(ClearClaims),
    /// Goes invisible, or comes back. Repeatable.
    SetVisibility {
        /// Invisible from here on, or not.
        invisible: bool,
    },
    /// Checks the status, records the decision, and claims, all at once.
    Guard(Guard),
    /// Records what time has done by itself. Sweeping twice changes nothing.
    Settle,
    /// One line of history from elsewhere.
    Import(ImportLine),
    /// Ends the imported sessions that were left open.
    ImportEnd,
}

/// What a rule asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ClearClaims {
    /// Whose claims.
    pub pattern: SourcePattern,
    /// The status that has lasted.
    pub status: Status,
    /// When it began.
    pub since: Timestamp,
}

/// A login.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The session's name.
    pub session: SessionId,
    /// What it runs on.
    pub kind: DeviceKind,
    /// How long the person has been idle.
    pub idle_ms: u32,
    /// Activity is what the person does, not what a heartbeat says.
    pub interaction_driven: bool,
}

/// Asserts a status.
#[derive(Debug, Clone, PartialEq)]
pub struct SetClaim {
    /// Who asserts.
    pub source: Source,
    /// What. `offline` is refused.
    pub status: Status,
    /// Counts only while a session is active.
    pub while_active: bool,
    /// When it ends by itself.
    pub expires: Option<Expiry>,
    /// What the source says about it.
    pub text: Option<String>,
}

/// When a claim ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At an instant.
    At(Timestamp),
    /// So many milliseconds after the command was taken in.
    AfterMs(u64),
}

/// "Is the status one of these? Then record that the action was allowed."
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    /// The action's name.
    pub action: String,
    /// The statuses that allow it.
    pub require: Vec<Status>,
    /// A claim that is set or cleared with it.
    pub claim: Option<GuardClaim>,
    /// Refused unless this is the user's sequence.
    pub if_sequence: Option<i64>,
    /// Claims of sources that begin so are overlooked: the status without them allows, too. A
    /// timer that makes its user busy must not stand in its own way.
    pub overlook: Option<&'static str>,
}

/// The claim of a guard.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardClaim {
    /// Whose.
    pub source: Source,
    /// Set to this, or cleared.
    pub status: Option<Status>,
    /// What must be there before.
    pub expect: Option<Expect>,
}

/// What a guard expects of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The source claims nothing.
    Absent,
    /// The source claims something.
    Present,
}

/// One line of history from elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportLine {
    /// What happened.
    pub what: ImportedChange,
    /// The session's name there.
    pub session: SessionId,
    /// When it happened there.
    pub at: Timestamp,
}

/// What an imported line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportedChange {
    /// A login on a device of that kind.
    Opened(DeviceKind),
    /// A sign of life.
    Heartbeat,
    /// A logout.
    Closed(Reason),
    /// A time-out.
    Expired(Reason),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The session is open; `existed` if it already was.
    Opened {
        /// No second event was written.
        existed: bool,
    },
    /// Done, with as many events as it took; none, if it already was so.
    Done,
    /// Sessions were ended; none, if they already were.
    Closed {
        /// How many this command ended.
        count: usize,
    },
    /// A guard decided.
    Guarded {
        /// Allowed, or why not.
        verdict: Result<(), GuardRefusal>,
        /// The status that it saw.
        status: Status,
    },
    /// The rules say no. What time did by itself is recorded all the same.
    Refused(Refusal),
}

/// Why the rules say no.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The session is over, or never was this user's.
    #[error("the session is over; log in again")]
    SessionClosed,
    /// Another user's session has that name.
    #[error("another user has a session of that name")]
    SessionTaken,
    /// Too many live sessions.
    #[error("a user may have at most {} live sessions", crate::presence::SESSIONS_MAX)]
    TooManySessions,
    /// Too many claims.
    #[error("a user may have at most {} claims", crate::presence::CLAIMS_MAX)]
    TooManyClaims,
    /// `offline` cannot be claimed.
    #[error("offline cannot be claimed: a user is offline without a live session")]
    ClaimOffline,
    /// The claim would be over before it began.
    #[error("the claim's end must lie in the future, within 10 years")]
    ClaimExpiryOutOfRange,
    /// An imported line lies before the user's last imported event.
    #[error("the line lies before this user's last imported event")]
    OutOfOrder,
    /// An imported line lies at or after the user's first own transition.
    #[error("the line lies at or after this user's first own transition")]
    OverlapsHistory,
    /// An imported line lies before [`EARLIEST`](crate::import::EARLIEST).
    #[error("the line lies before 1970-01-01T00:00:00Z")]
    BeforeEpoch,
    /// An imported line lies in the future.
    #[error("the line lies in the future")]
    InTheFuture,
    /// An imported login of a session that is open.
    #[error("the imported session is already open")]
    AlreadyOpen,
    /// An imported line about a session that is not open.
    #[error("the imported session is not open")]
    NotOpen,
}
