//! Intervals and thresholds. Changed at run time by an admin; every change is an event.

use serde::{Deserialize, Serialize};

/// Shortest and longest duration that any interval of the policy may have, in milliseconds.
pub const INTERVAL_MS_RANGE: std::ops::RangeInclusive<u32> = 100..=7 * 24 * 3_600_000;
/// Shortest time after which an interaction-driven session may turn idle, in milliseconds: an
/// interaction that waited before the log must still count when it gets there.
pub const INTERACTION_AWAY_MS_MIN: u32 = 1_000;

/// Who sees whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Every authenticated user sees every user.
    #[default]
    All,
    /// Users see the members of their own groups.
    Groups,
}

/// The presence policy. Durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)] // A newer release's fields are not ours to refuse.
pub struct Policy {
    /// How often clients are told to send a heartbeat.
    pub heartbeat_ms: u32,
    /// How long a session lives after its latest heartbeat.
    pub lease_ms: u32,
    /// A heartbeat whose `idle_ms` is at least this turns its session idle.
    pub away_after_ms: u32,
    /// How long a dropped WebSocket may take to come back.
    pub grace_ms: u32,
    /// Interaction-driven sessions: idle this long after the latest interaction.
    pub interaction_away_after_ms: u32,
    /// Interaction-driven sessions: over this long after the latest interaction.
    pub interaction_lease_ms: u32,
    /// Heartbeat partitions older than this are dropped, in days. Transitions are kept.
    pub heartbeat_retention_days: u32,
    /// Who sees whom.
    pub visibility: Visibility,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            heartbeat_ms: 30_000,
            lease_ms: 120_000,
            away_after_ms: 300_000,
            grace_ms: 15_000,
            interaction_away_after_ms: 120_000,
            interaction_lease_ms: 300_000,
            heartbeat_retention_days: 30,
            visibility: Visibility::All,
        }
    }
}

/// What of a policy is to change; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyPatch {
    /// See [`Policy`], as all of these.
    pub heartbeat_ms: Option<u32>,
    /// How long a session lives after its latest heartbeat.
    pub lease_ms: Option<u32>,
    /// From which `idle_ms` a heartbeat turns its session idle.
    pub away_after_ms: Option<u32>,
    /// How long a dropped WebSocket may take to come back.
    pub grace_ms: Option<u32>,
    /// When interaction-driven sessions turn idle.
    pub interaction_away_after_ms: Option<u32>,
    /// When interaction-driven sessions are over.
    pub interaction_lease_ms: Option<u32>,
    /// When heartbeat partitions are dropped, in days.
    pub heartbeat_retention_days: Option<u32>,
    /// Who sees whom.
    pub visibility: Option<Visibility>,
}

impl PolicyPatch {
    /// The policy with these changes.
    #[must_use]
    pub fn applied_to(&self, policy: &Policy) -> Policy {
        Policy {
            heartbeat_ms: self.heartbeat_ms.unwrap_or(policy.heartbeat_ms),
            lease_ms: self.lease_ms.unwrap_or(policy.lease_ms),
            away_after_ms: self.away_after_ms.unwrap_or(policy.away_after_ms),
            grace_ms: self.grace_ms.unwrap_or(policy.grace_ms),
            interaction_away_after_ms: self
                .interaction_away_after_ms
                .unwrap_or(policy.interaction_away_after_ms),
            interaction_lease_ms: self.interaction_lease_ms.unwrap_or(policy.interaction_lease_ms),
            heartbeat_retention_days: self
                .heartbeat_retention_days
                .unwrap_or(policy.heartbeat_retention_days),
            visibility: self.visibility.unwrap_or(policy.visibility),
        }
    }
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// A client that misses one heartbeat, or is a little late, would be logged out.
    #[error("lease_ms {lease_ms} is less than 2 * heartbeat_ms + 5000 = {least}")]
    LeaseTooShort {
        /// What was asked for.
        lease_ms: u32,
        /// The least that is accepted.
        least: u64,
    },
    /// Such a session would be over before it could turn away.
    #[error("interaction_lease_ms must be greater than interaction_away_after_ms")]
    InteractionLeaseTooShort,
    /// An interval that no one can mean.
    #[error("{0} is out of range: 100 ms (interactions: 1 s) to 7 days")]
    OutOfRange(&'static str),
    /// Retention that no one can mean.
    #[error("heartbeat_retention_days must be between 1 and 3650")]
    RetentionOutOfRange,
}

impl Policy {
    /// Refuses a policy under which an honest client would be logged out or nothing could happen.
    pub fn check(&self) -> Result<(), PolicyRefusal> {
        let intervals = [
            ("heartbeat_ms", self.heartbeat_ms),
            ("lease_ms", self.lease_ms),
            ("away_after_ms", self.away_after_ms),
            ("grace_ms", self.grace_ms),
            ("interaction_away_after_ms", self.interaction_away_after_ms),
            ("interaction_lease_ms", self.interaction_lease_ms),
        ];
        for (name, value) in intervals {
            if !INTERVAL_MS_RANGE.contains(&value) {
                return Err(PolicyRefusal::OutOfRange(name));
            }
        }
        if self.interaction_away_after_ms < INTERACTION_AWAY_MS_MIN {
            return Err(PolicyRefusal::OutOfRange("interaction_away_after_ms"));
        }
        let least = 2 * u64::from(self.heartbeat_ms) + 5_000;
        if u64::from(self.lease_ms) < least {
            return Err(PolicyRefusal::LeaseTooShort { lease_ms: self.lease_ms, least });
        }
        if self.interaction_lease_ms <= self.interaction_away_after_ms {
            return Err(PolicyRefusal::InteractionLeaseTooShort);
        }
        if !(1..=3650).contains(&self.heartbeat_retention_days) {
            return Err(PolicyRefusal::RetentionOutOfRange);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_is_accepted() {
        assert_eq!(Policy::default().check(), Ok(()));
    }

    #[test]
    fn a_lease_shorter_than_two_heartbeats_and_five_seconds_is_refused() {
        let policy = Policy { lease_ms: 64_999, ..Policy::default() };
        let refusal = PolicyRefusal::LeaseTooShort { lease_ms: 64_999, least: 65_000 };
        assert_eq!(policy.check(), Err(refusal));
        assert_eq!(Policy { lease_ms: 65_000, ..policy }.check(), Ok(()));
    }

    #[test]
    fn intervals_and_retention_have_a_range() {
        let policy = Policy { grace_ms: 0, ..Policy::default() };
        assert_eq!(policy.check(), Err(PolicyRefusal::OutOfRange("grace_ms")));
        let policy = Policy { heartbeat_retention_days: 0, ..Policy::default() };
        assert_eq!(policy.check(), Err(PolicyRefusal::RetentionOutOfRange));
    }
}
