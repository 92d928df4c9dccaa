//! What has been found and is not undone yet: in memory, as metrics, and once in the log lines when
//! it appears and when it goes.

use std::collections::BTreeMap;

use domain::Timestamp;

use super::finding::{Check, Finding, Key, Severity, note_damage};
use super::scope::Scope;

/// Most findings that a node keeps. Where there are more, these say enough.
pub(super) const FINDINGS_MAX: usize = 1_000;

/// The findings of a node.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: BTreeMap<Key, (Finding, Scope)>,
}

impl Board {
    /// Puts a confirmed finding up. False: it is there already, or there is no room.
    pub(crate) fn put(&mut self, mut finding: Finding, scope: Scope, now: Timestamp) -> bool {
        let key = finding.key();
        if self.entries.contains_key(&key) || self.entries.len() >= FINDINGS_MAX {
            return false;
        }
        finding.since.get_or_insert(now);
        let (check, view, positions) = (finding.check.as_str(), finding.view, &finding.positions);
        let (user_no, advice) = (finding.user_no.map(|user| user.0), finding.advice());
        match finding.check.severity() {
            Severity::Critical => {
                tracing::error!(check, view, user_no, ?positions, advice, "inconsistent");
            }
            Severity::Warning => {
                tracing::warn!(check, view, user_no, ?positions, advice, "needs looking after");
            }
        }
        self.entries.insert(key, (finding, scope));
        self.show(&[]);
        true
    }

    /// What was looked at again: whatever of that scope was not found goes.
    pub(crate) fn settle(&mut self, scope: &Scope, found: &[Key]) {
        let gone: Vec<Key> = self
            .entries
            .iter()
            .filter(|(key, (_, of))| of == scope && !found.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            if let Some((finding, _)) = self.entries.remove(key) {
                let (check, view, positions) =
                    (finding.check.as_str(), finding.view, &finding.positions);
                let user_no = finding.user_no.map(|user| user.0);
                tracing::info!(check, view, user_no, ?positions, "consistent again");
            }
        }
        if !gone.is_empty() {
            self.show(&gone);
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Every scope of which there is a finding, once.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        let mut scopes: Vec<Scope> = Vec::new();
        for (_, scope) in self.entries.values() {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        scopes
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = self.entries.values().map(|(found, _)| found.clone()).collect();
        note_damage(&mut findings);
        findings
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= FINDINGS_MAX
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The worst of them.
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.entries.values().map(|(finding, _)| finding.check.severity()).max()
    }

    /// Counts by check, those that have just become none included.
    fn show(&self, gone: &[Key]) {
        let mut counts: BTreeMap<Check, u32> = gone.iter().map(|key| (key.0, 0)).collect();
        for (check, ..) in self.entries.keys() {
            *counts.entry(*check).or_default() += 1;
        }
        for (check, count) in counts {
            metrics::gauge!("rollcall_findings", "check" => check.as_str()).set(f64::from(count));
        }
    }
}

/// Every check is in the metrics from the start: who alerts on it should not wonder.
pub(crate) fn show_all() {
    for check in Check::ALL {
        metrics::gauge!("rollcall_findings", "check" => check.as_str()).set(0.0);
    }
}
