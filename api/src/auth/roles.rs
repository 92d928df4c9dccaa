//! What a caller may be. Roles are additive: none contains another.

use std::fmt;
use std::str::FromStr;

/// One role out of a token's `roles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// A person: may act for itself.
    User = 1,
    /// A backend: may act for sessions of others, guard, send; not rate limited.
    Service = 1 << 1,
    /// May read the trail of everybody.
    Auditor = 1 << 2,
    /// May read projections.
    Analyst = 1 << 3,
    /// May change policy and other people's status; reads the trail too.
    Admin = 1 << 4,
}

impl Role {
    /// All roles, in the order of the API's description.
    pub const ALL: [Self; 5] =
        [Self::User, Self::Service, Self::Auditor, Self::Analyst, Self::Admin];

    /// The word in a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Auditor => "auditor",
            Self::Analyst => "analyst",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of `user`, `service`, `auditor`, `analyst`, `admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of user, service, auditor, analyst, admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// A set of roles in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct RoleSet(u8);

impl RoleSet {
    /// No role: may read what any valid token may.
    pub const EMPTY: Self = Self(0);

    /// This set and `role`.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role as u8)
    }

    /// Whether `role` is in the set.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role as u8 != 0
    }

    /// Whether the two sets share a role.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The roles of the set, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }

    /// The known ones among `words`; unknown ones are other systems' business.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        words.into_iter().filter_map(|word| word.parse().ok()).collect()
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn unknown_roles_are_ignored() {
        let roles = RoleSet::from_words(["root", "auditor", "ADMIN", ""]);
        assert_eq!(roles.iter().collect::<Vec<_>>(), [Role::Auditor]);
    }

    #[test]
    fn no_role_contains_another() {
        for one in Role::ALL {
            for other in Role::ALL {
                assert_eq!(RoleSet::EMPTY.with(one).has(other), one == other);
            }
        }
    }

    #[test]
    fn every_role_is_read_back_from_its_word() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
    }
}
