//! Names of users, groups, sessions and places in the log, parsed once at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest outside name of a user, in characters.
pub const USER_ID_LENGTH_MAX: usize = 128;

/// The outside name of a user: 1 to 128 of `A-Z a-z 0-9 . _ @ : + | -`.
///
/// Cheap to clone: every node keeps one copy of each name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Arc<str>);

impl UserId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user_id is 1 to 128 of A-Z a-z 0-9 . _ @ : + | -")]
pub struct InvalidUserId;

impl FromStr for UserId {
    type Err = InvalidUserId;

    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        if is_name(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidUserId) }
    }
}

/// What a user and a group may be called.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@:+|-".contains(&b);
    (1..=USER_ID_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

impl TryFrom<String> for UserId {
    type Error = InvalidUserId;

    fn try_from(text: String) -> Result<Self, InvalidUserId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a group: 1 to 128 of the same characters as a [`UserId`]. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`GroupName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a group is 1 to 128 of A-Z a-z 0-9 . _ @ : + | -")]
pub struct InvalidGroupName;

impl FromStr for GroupName {
    type Err = InvalidGroupName;

    fn from_str(text: &str) -> Result<Self, InvalidGroupName> {
        if is_name(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidGroupName) }
    }
}

impl TryFrom<String> for GroupName {
    type Error = InvalidGroupName;

    fn try_from(text: String) -> Result<Self, InvalidGroupName> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Our own number of a user: the only thing about a person that the log holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UserNo(pub i64);

impl fmt::Display for UserNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One device's login. Version 7 where Rollcall makes it; a client may bring any UUID.
pub type SessionId = uuid::Uuid;

/// An event's place in the one log. Commit order = position order; holes mean nothing; 0 = before
/// all.
pub type Position = i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_character_is_accepted_up_to_the_limit() {
        assert!("Ana.B_9@x:y+z|w-v".parse::<UserId>().is_ok());
        assert!("consultation:42".parse::<GroupName>().is_ok());
        assert!("a".repeat(USER_ID_LENGTH_MAX).parse::<UserId>().is_ok());
    }

    #[test]
    fn empty_long_and_foreign_characters_are_refused() {
        for text in ["", "a b", "a/b", "ä", "a\0", "a%2", &"a".repeat(USER_ID_LENGTH_MAX + 1)] {
            assert_eq!(text.parse::<UserId>(), Err(InvalidUserId), "{text:?}");
            assert_eq!(text.parse::<GroupName>(), Err(InvalidGroupName), "{text:?}");
        }
    }
}
