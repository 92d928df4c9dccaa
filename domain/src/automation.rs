//! Automation: what shall happen once a status has lasted for a while. Part of the policy.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::UserId;
use crate::{Presence, Source, Status};

/// Most rules of a policy.
pub const RULES_MAX: usize = 32;
/// Longest name of a rule, in characters.
pub const NAME_LENGTH_MAX: usize = 64;
/// How long a status may have to last, in milliseconds: a second to 30 days.
pub const FOR_MS_RANGE: RangeInclusive<u64> = 1_000..=30 * 24 * 3_600_000;
/// What the name of the actor begins with in whose name a rule acts.
const ACTOR_PREFIX: &str = "rule:";

/// When a status has lasted for so long, then this, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What people call it, and by what it is remembered that it acted.
    pub name: String,
    /// When.
    pub when: Condition,
    /// What.
    pub then: Action,
}

/// A status that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which one.
    pub status: Status,
    /// For how long, without a break.
    pub for_ms: u64,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // Stored for ever.
pub enum Action {
    /// Takes the claims of these sources back.
    ClearClaims(SourcePattern),
    /// Has a webhook told of the event with which the status began.
    Webhook(Uuid),
}

/// One source, or with a `*` at its end all systems whose names begin so: `system:*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourcePattern(pub String);

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleRefusal {
    /// Too many.
    #[error("at most {RULES_MAX} rules")]
    TooMany,
    /// A name that cannot be an actor's.
    #[error("a rule's name is 1 to {NAME_LENGTH_MAX} of A-Z a-z 0-9 . _ @ : + | -")]
    Name,
    /// Two of one name.
    #[error("two rules are named {0:?}")]
    Twice(String),
    /// A duration that no one can mean.
    #[error("for_ms of rule {0:?} must be between 1 s and 30 days")]
    ForMs(String),
    /// A pattern that is no source.
    #[error("clear_claims of rule {0:?} is neither a source nor `system:...*`")]
    Pattern(String),
}

impl SourcePattern {
    /// Whether a source is meant.
    pub fn matches(&self, source: &Source) -> bool {
        let source = source.to_string();
        match self.0.strip_suffix('*') {
            Some(prefix) => source.starts_with(prefix),
            None => source == self.0,
        }
    }

    /// Those of a user's sources that are meant.
    pub(crate) fn among(&self, state: &Presence) -> Vec<Source> {
        let sources = state.claims.iter().map(|claim| &claim.source);
        sources.filter(|source| self.matches(source)).cloned().collect()
    }

    fn is_valid(&self) -> bool {
        match self.0.strip_suffix('*') {
            // Something must follow for it to be a source's name.
            Some(prefix) if prefix.starts_with("system:") => {
                format!("{prefix}x").parse::<Source>().is_ok()
            }
            Some(_) => false,
            None => self.0.parse::<Source>().is_ok(),
        }
    }
}

impl Rule {
    /// In whose name it acts; none, where its name is refused by [`check`].
    pub fn actor(&self) -> Option<UserId> {
        format!("{ACTOR_PREFIX}{}", self.name).parse().ok()
    }
}

/// Refuses rules that are too many, ambiguous, or can do nothing.
pub fn check(rules: &[Rule]) -> Result<(), RuleRefusal> {
    if rules.len() > RULES_MAX {
        return Err(RuleRefusal::TooMany);
    }
    let mut names = HashSet::new();
    for rule in rules {
        if rule.name.is_empty() || rule.name.len() > NAME_LENGTH_MAX || rule.actor().is_none() {
            return Err(RuleRefusal::Name);
        }
        if !names.insert(rule.name.as_str()) {
            return Err(RuleRefusal::Twice(rule.name.clone()));
        }
        if !FOR_MS_RANGE.contains(&rule.when.for_ms) {
            return Err(RuleRefusal::ForMs(rule.name.clone()));
        }
        match &rule.then {
            Action::ClearClaims(pattern) if !pattern.is_valid() => {
                return Err(RuleRefusal::Pattern(rule.name.clone()));
            }
            Action::ClearClaims(_) | Action::Webhook(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn rule(name: &str, for_ms: u64, pattern: &str) -> Rule {
        Rule {
            name: name.to_owned(),
            when: Condition { status: Status::Offline, for_ms },
            then: Action::ClearClaims(SourcePattern(pattern.to_owned())),
        }
    }

    #[test]
    fn patterns_mean_one_source_or_systems_that_begin_so() {
        let matches = |pattern: &str, source: &str| {
            SourcePattern(pattern.to_owned()).matches(&source.parse().unwrap())
        };
        assert!(matches("system:*", "system:timer:42") && matches("system:t*", "system:t"));
        assert!(!matches("system:*", "manual") && !matches("system:timer", "system:timer:42"));
        assert!(matches("manual", "manual"));
    }

    #[test]
    fn rules_that_are_ambiguous_or_can_do_nothing_are_refused() {
        assert_eq!(check(&[rule("a", 1_000, "system:*"), rule("b", 1_000, "admin")]), Ok(()));
        let twice = [rule("a", 1_000, "system:*"), rule("a", 2_000, "admin")];
        assert_eq!(check(&twice), Err(RuleRefusal::Twice("a".to_owned())));
        assert_eq!(check(&[rule("", 1_000, "admin")]), Err(RuleRefusal::Name));
        assert_eq!(check(&[rule("a b", 1_000, "admin")]), Err(RuleRefusal::Name));
        assert_eq!(check(&[rule("a", 999, "admin")]), Err(RuleRefusal::ForMs("a".to_owned())));
        for pattern in ["*", "sys*", "m*", "manual*", "nobody", "system:", "system:a b*"] {
            let refused = Err(RuleRefusal::Pattern("a".to_owned()));
            assert_eq!(check(&[rule("a", 1_000, pattern)]), refused, "{pattern}");
        }
        let many: Vec<Rule> =
            (0..=RULES_MAX).map(|n| rule(&n.to_string(), 1_000, "admin")).collect();
        assert_eq!(check(&many), Err(RuleRefusal::TooMany));
    }

    #[test]
    fn a_rule_is_stored_as_people_write_it() {
        let text = concat!(
            r#"{"name":"a","when":{"status":"offline","for_ms":1000},"#,
            r#""then":{"clear_claims":"system:*"}}"#
        );
        assert_eq!(serde_json::to_string(&rule("a", 1_000, "system:*")).unwrap(), text);
        assert_eq!(serde_json::from_str::<Rule>(text).unwrap(), rule("a", 1_000, "system:*"));
    }
}
