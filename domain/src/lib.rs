//! Rollcall's rules, pure: what a status is, what a command leads to, what time does by itself.
//!
//! *Absent here, on purpose:* I/O, SQL, HTTP, clocks and random numbers. Time is an argument, and
//! so is every identifier; the same events always fold to the same [`Presence`].
//!
//! In reading order:
//! - [`ids`]: users, groups, sessions, positions
//! - [`status`]: the five statuses and who may claim one
//! - [`silence`]: when a lease ends, given the stretches in which nobody was listening
//! - [`policy`]: intervals and thresholds, and which of them are refused
//! - [`event`]: what the log holds, with its stored names
//! - [`presence`]: one user's state, the fold of that user's events
//! - [`rules`]: the one function from state to status
//! - [`lapse`]: what time does by itself
//! - [`command`], [`decide`], [`guard`], [`import`]: from a command to events
//! - [`what_if`]: one user's history under another policy
//! - [`shown`]: what others may see; the only place that redacts
//! - [`aggregate`]: the adapter to cqrs-es, and nothing else

pub mod aggregate;
pub mod command;
pub mod decide;
pub mod event;
pub mod guard;
pub mod ids;
pub mod import;
pub mod lapse;
pub mod policy;
pub mod presence;
pub mod rules;
pub mod shown;
pub mod silence;
pub mod status;
pub mod what_if;

pub use command::{Command, Outcome, Refusal};
pub use decide::{Context, Decision};
pub use event::{Body, Event, Reason, Recorded, When};
pub use ids::{GroupName, Position, SessionId, UserId, UserNo};
pub use policy::Policy;
pub use presence::{Claim, Presence, Session};
pub use shown::{Audience, Shown};
pub use silence::{Silence, Silences};
pub use status::{DeviceKind, Source, Status};

/// An instant of the one clock there is, the database's, in UTC with microseconds.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
