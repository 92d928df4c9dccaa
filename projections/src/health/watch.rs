//! Views that fall behind, or stand still while the log moves. Measured on this machine's own
//! watch, so that no clock that jumps makes a view look late.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use domain::Position;

use super::finding::{Check, Finding};
use crate::follow::versions::{State, Version};

/// A view that lacks what the log had so long ago lags.
pub const LAG_MAX: Duration = Duration::from_secs(10);
/// A view that lacks what the log had so long ago, and has not moved since, is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(12);

/// How far a version is: its position, and the last user who is in, if not everybody is.
type Stand = (Position, Option<i64>);

/// What was seen of the log and of the views.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    heads: VecDeque<(Instant, Position)>,
    moved: HashMap<(&'static str, i32), (Instant, Stand)>,
}

impl Watch {
    /// Notes where the views stand, and says which of them do not keep up.
    pub(crate) fn look(&mut self, versions: &[Version], at: Instant) -> Vec<Finding> {
        let head = versions.iter().map(|version| version.head).max().unwrap_or_default();
        self.heads.push_back((at, head));
        // One that is older than asked for is kept: it answers what stood there by then.
        while self.heads.get(1).is_some_and(|(seen, _)| at - *seen >= STUCK_AFTER) {
            self.heads.pop_front();
        }
        let known = |version: &Version| (version.view.name, version.version);
        self.moved.retain(|key, _| versions.iter().any(|version| known(version) == *key));
        let mut findings = Vec::new();
        for version in versions.iter().filter(|version| version.state.follows()) {
            let stands = (version.position, version.filling.map(|filling| filling.to));
            let moved = self.moved.entry(known(version)).or_insert((at, stands));
            if moved.1 != stands {
                *moved = (at, stands);
            }
            let still = at - moved.0;
            let lacks = |ago: Duration| {
                let seen = self.heads.iter().rev().find(|(seen, _)| at - *seen >= ago);
                seen.is_some_and(|(_, head)| version.lacks(*head))
            };
            let check = if still >= STUCK_AFTER && lacks(STUCK_AFTER) {
                Check::ViewStuck
            } else if version.state == State::Live && lacks(LAG_MAX) {
                Check::ViewLagging
            } else {
                continue;
            };
            findings.push(behind(check, version));
        }
        findings
    }
}

/// A view that is not where it should be.
pub(super) fn behind(check: Check, version: &Version) -> Finding {
    let expected = format!("version {} at position {}", version.version, version.head);
    let found = format!("at position {}, {} ms behind", version.position, version.lag_ms);
    Finding::new(check, expected, found)
        .at([version.position, version.head])
        .about(version.version)
        .in_view(version.view.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(position: Position, head: Position) -> Version {
        Version {
            view: &crate::views::VIEWS[0],
            version: 1,
            state: State::Live,
            position,
            filling: None,
            head,
            lag_ms: 0,
            moved_at: domain::Timestamp::UNIX_EPOCH,
            waiting: 0,
        }
    }

    fn checks(watch: &mut Watch, position: Position, head: Position, at: Instant) -> Vec<Check> {
        let findings = watch.look(&[version(position, head)], at);
        findings.into_iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn a_view_at_rest_with_the_log_is_neither_late_nor_stuck() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for second in 0..60 {
            assert_eq!(checks(&mut watch, 7, 7, start + Duration::from_secs(second)), []);
        }
    }

    #[test]
    fn a_view_that_moves_behind_lags_and_one_that_stands_is_stuck() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(checks(&mut watch, 1, 100, at(0)), []);
        assert_eq!(checks(&mut watch, 2, 100, at(9)), [], "so late it may be");
        assert_eq!(checks(&mut watch, 3, 200, at(10)), [Check::ViewLagging]);
        assert_eq!(checks(&mut watch, 3, 200, at(21)), [Check::ViewLagging]);
        assert_eq!(checks(&mut watch, 3, 200, at(22)), [Check::ViewStuck]);
        assert_eq!(checks(&mut watch, 200, 200, at(23)), []);
    }

    #[test]
    fn after_a_look_away_it_is_measured_anew() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert_eq!(checks(&mut watch, 5, 5, start), []);
        let later = start + Duration::from_hours(1);
        assert_eq!(checks(&mut watch, 5, 900, later), [], "it was at what was known then");
    }
}
