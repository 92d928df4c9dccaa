//! The five statuses, the sources that may claim one, and the kinds of device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The effective status of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever: rename the variants, never their names.
pub enum Status {
    /// A live session is active, or a claim says so.
    Online,
    /// Live sessions, all of them idle, or a claim says so.
    Away,
    /// A claim says so.
    Busy,
    /// A claim says so: do not disturb.
    Dnd,
    /// No live session.
    #[default]
    Offline,
}

impl Status {
    /// All of them, in the order in which they are counted and listed.
    pub const ALL: [Self; 5] = [Self::Online, Self::Away, Self::Busy, Self::Dnd, Self::Offline];

    /// The stored and shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Dnd => "dnd",
            Self::Offline => "offline",
        }
    }

    /// Among system claims the one with the highest weight wins.
    pub(crate) const fn weight(self) -> u8 {
        match self {
            Self::Offline => 0,
            Self::Online => 1,
            Self::Away => 2,
            Self::Busy => 3,
            Self::Dnd => 4,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of the names of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a known {1}")]
pub struct UnknownName(pub String, pub &'static str);

impl FromStr for Status {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| UnknownName(text.to_owned(), "status"))
    }
}

/// The longest name of a system source, in bytes.
pub const SOURCE_NAME_LENGTH_MAX: usize = 128;

/// Who claims a status: `admin`, `manual` (the user), or `system:<name>` (a timer, a call).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// An administrator. Outranks everything but having no session.
    Admin,
    /// The user's own word.
    Manual,
    /// A system, by name.
    System(Box<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Manual => f.write_str("manual"),
            Self::System(name) => write!(f, "system:{name}"),
        }
    }
}

impl FromStr for Source {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match (text, text.strip_prefix("system:")) {
            ("admin", _) => Ok(Self::Admin),
            ("manual", _) => Ok(Self::Manual),
            (_, Some(name)) if is_plain_name(name) => Ok(Self::System(name.into())),
            _ => Err(UnknownName(text.to_owned(), "claim source")),
        }
    }
}

/// A name that systems give: 1 to 128 of the characters of a `user_id`, and `/`.
pub fn is_plain_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@:+|-/".contains(&b);
    !name.is_empty() && name.len() <= SOURCE_NAME_LENGTH_MAX && name.bytes().all(allowed)
}

impl TryFrom<String> for Source {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, UnknownName> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

/// What a session runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever.
pub enum DeviceKind {
    /// A browser.
    Web,
    /// A telephone or tablet.
    Mobile,
    /// An installed program.
    Desktop,
    /// A machine acting for a person.
    Service,
    /// Anything else, or unknown.
    #[default]
    Other,
}

impl DeviceKind {
    /// The stored and shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mobile => "mobile",
            Self::Desktop => "desktop",
            Self::Service => "service",
            Self::Other => "other",
        }
    }
}

impl FromStr for DeviceKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Web, Self::Mobile, Self::Desktop, Self::Service, Self::Other]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownName(text.to_owned(), "kind of device"))
    }
}
