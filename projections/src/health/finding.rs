//! What a check finds, and what can be found at all.

use std::collections::HashSet;

use domain::{Position, Timestamp, UserId, UserNo};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Answers are right; something needs looking after.
    Warning,
    /// An answer may be wrong, or will be.
    Critical,
}

impl Severity {
    /// The shown name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What can be folded anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The user's present.
    Present,
    /// The user's part of a view.
    View,
    /// The view's sums over everybody.
    Sums,
    /// Nothing: the log itself was changed.
    Log,
    /// Nothing: it is the machine's.
    None,
}

/// Everything that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// A status, and no live session behind it.
    OnlineWithoutSession,
    /// `offline`, and a live session.
    OfflineWithSession,
    /// A lease, an activity or a claim that ended, and nobody recorded it.
    OverdueLease,
    /// The sweeper will not look at a session in time.
    UnwatchedDeadline,
    /// `current_status` is not the fold of the user's log.
    PresentUnlikeLog,
    /// `live_session` is not the fold of the user's log.
    SessionUnlikeLog,
    /// A user's sequence has a hole, a number twice, or does not follow position.
    Sequence,
    /// An event's statuses are not those that the rules give.
    EventUnlikeRules,
    /// An event that this release cannot read.
    EventUnreadable,
    /// A user's own history runs backwards.
    HistoryBackwards,
    /// `recorded_at` does not follow position.
    RecordedBackwards,
    /// An event happened after it was recorded.
    RecordedEarly,
    /// Two events at one position.
    PositionTwice,
    /// An event above the log's head.
    PositionBeyondHead,
    /// A session ended, and its name may be used again.
    EndForgotten,
    /// A row about an event that is not there.
    Orphan,
    /// Two statuses at one time.
    SpanOverlap,
    /// No status at some time.
    SpanHole,
    /// The last span is not the present.
    SpanEnd,
    /// `status_span` is not the fold of the log.
    SpanUnlikeLog,
    /// `session_span` is not the fold of the log.
    SessionSpanUnlikeLog,
    /// The sums of `occupancy` are not how many there are.
    OccupancyUnlikePresent,
    /// `status_daily` is not the fold of the log.
    DailyUnlikeLog,
    /// A view is behind the log.
    ViewLagging,
    /// A view does not move, and the log does.
    ViewStuck,
    /// An event that a view could not take.
    DeadLetter,
    /// This machine's clock and the database's differ.
    ClockSkew,
    /// The database's clock was set back behind the log.
    ClockSetBack,
    /// The log will soon have no leaf for its next positions.
    LeavesRunningOut,
    /// A leaf of the log that is no part of it any more.
    LeafDetached,
    /// There is a standby, and commits do not wait for it.
    NotSynchronous,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::OnlineWithoutSession,
        Self::OfflineWithSession,
        Self::OverdueLease,
        Self::UnwatchedDeadline,
        Self::PresentUnlikeLog,
        Self::SessionUnlikeLog,
        Self::Sequence,
        Self::EventUnlikeRules,
        Self::EventUnreadable,
        Self::HistoryBackwards,
        Self::RecordedBackwards,
        Self::RecordedEarly,
        Self::PositionTwice,
        Self::PositionBeyondHead,
        Self::EndForgotten,
        Self::Orphan,
        Self::SpanOverlap,
        Self::SpanHole,
        Self::SpanEnd,
        Self::SpanUnlikeLog,
        Self::SessionSpanUnlikeLog,
        Self::OccupancyUnlikePresent,
        Self::DailyUnlikeLog,
        Self::ViewLagging,
        Self::ViewStuck,
        Self::DeadLetter,
        Self::ClockSkew,
        Self::ClockSetBack,
        Self::LeavesRunningOut,
        Self::LeafDetached,
        Self::NotSynchronous,
    ];

    /// The shown name; alerts are written against it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnlineWithoutSession => "online_without_session",
            Self::OfflineWithSession => "offline_with_session",
            Self::OverdueLease => "overdue_lease",
            Self::UnwatchedDeadline => "unwatched_deadline",
            Self::PresentUnlikeLog => "present_unlike_log",
            Self::SessionUnlikeLog => "session_unlike_log",
            Self::Sequence => "sequence",
            Self::EventUnlikeRules => "event_unlike_rules",
            Self::EventUnreadable => "event_unreadable",
            Self::HistoryBackwards => "history_backwards",
            Self::RecordedBackwards => "recorded_backwards",
            Self::RecordedEarly => "recorded_early",
            Self::PositionTwice => "position_twice",
            Self::PositionBeyondHead => "position_beyond_head",
            Self::EndForgotten => "end_forgotten",
            Self::Orphan => "orphan",
            Self::SpanOverlap => "span_overlap",
            Self::SpanHole => "span_hole",
            Self::SpanEnd => "span_end",
            Self::SpanUnlikeLog => "span_unlike_log",
            Self::SessionSpanUnlikeLog => "session_span_unlike_log",
            Self::OccupancyUnlikePresent => "occupancy_unlike_present",
            Self::DailyUnlikeLog => "daily_unlike_log",
            Self::ViewLagging => "view_lagging",
            Self::ViewStuck => "view_stuck",
            Self::DeadLetter => "dead_letter",
            Self::ClockSkew => "clock_skew",
            Self::ClockSetBack => "clock_set_back",
            Self::LeavesRunningOut => "leaves_running_out",
            Self::LeafDetached => "leaf_detached",
            Self::NotSynchronous => "not_synchronous",
        }
    }

    /// How bad it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Orphan
            | Self::ViewLagging
            | Self::ClockSkew
            | Self::ClockSetBack
            | Self::NotSynchronous => Severity::Warning,
            Self::OnlineWithoutSession
            | Self::OfflineWithSession
            | Self::OverdueLease
            | Self::UnwatchedDeadline
            | Self::PresentUnlikeLog
            | Self::SessionUnlikeLog
            | Self::Sequence
            | Self::EventUnlikeRules
            | Self::EventUnreadable
            | Self::HistoryBackwards
            | Self::RecordedBackwards
            | Self::RecordedEarly
            | Self::PositionTwice
            | Self::PositionBeyondHead
            | Self::EndForgotten
            | Self::SpanOverlap
            | Self::SpanHole
            | Self::SpanEnd
            | Self::SpanUnlikeLog
            | Self::SessionSpanUnlikeLog
            | Self::OccupancyUnlikePresent
            | Self::DailyUnlikeLog
            | Self::ViewStuck
            | Self::DeadLetter
            | Self::LeavesRunningOut
            | Self::LeafDetached => Severity::Critical,
        }
    }

    /// What `doctor --repair` does about it.
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::OnlineWithoutSession
            | Self::OfflineWithSession
            | Self::OverdueLease
            | Self::UnwatchedDeadline
            | Self::PresentUnlikeLog
            | Self::SessionUnlikeLog
            | Self::EndForgotten
            | Self::Orphan => Remedy::Present,
            Self::SpanOverlap
            | Self::SpanHole
            | Self::SpanEnd
            | Self::SpanUnlikeLog
            | Self::SessionSpanUnlikeLog
            | Self::DailyUnlikeLog
            | Self::DeadLetter => Remedy::View,
            Self::OccupancyUnlikePresent => Remedy::Sums,
            Self::Sequence
            | Self::EventUnlikeRules
            | Self::EventUnreadable
            | Self::HistoryBackwards
            | Self::RecordedBackwards
            | Self::RecordedEarly
            | Self::PositionTwice
            | Self::PositionBeyondHead => Remedy::Log,
            Self::ViewLagging
            | Self::ViewStuck
            | Self::ClockSkew
            | Self::ClockSetBack
            | Self::LeavesRunningOut
            | Self::LeafDetached
            | Self::NotSynchronous => Remedy::None,
        }
    }

    /// What to do about it, where the log that decides it is as `append` wrote it.
    const fn advice(self) -> &'static str {
        match self {
            Self::OnlineWithoutSession
            | Self::OfflineWithSession
            | Self::UnwatchedDeadline
            | Self::PresentUnlikeLog
            | Self::SessionUnlikeLog
            | Self::EndForgotten
            | Self::Orphan => "the log decides: `rollcall doctor --repair` folds this user anew",
            Self::SpanOverlap
            | Self::SpanHole
            | Self::SpanEnd
            | Self::SpanUnlikeLog
            | Self::SessionSpanUnlikeLog
            | Self::DailyUnlikeLog => {
                "the log decides: `rollcall doctor --repair` folds this user's part of it anew"
            }
            Self::OccupancyUnlikePresent => {
                "`rollcall doctor --repair`, or a rebuild of the view, counts anew from the log"
            }
            Self::Sequence
            | Self::EventUnlikeRules
            | Self::HistoryBackwards
            | Self::RecordedBackwards
            | Self::RecordedEarly
            | Self::PositionTwice
            | Self::PositionBeyondHead => {
                "the log was changed past `append`, which nothing repairs: find out who did, and \
                 compare these positions with a backup"
            }
            Self::EventUnreadable => {
                "written by a newer release, or changed past `append`: run the newest release, \
                 else compare this position with a backup"
            }
            Self::OverdueLease => "see in the log lines why nobody sweeps or appends",
            Self::ViewLagging => "wait; if it stays so, look for a long transaction or a slow disk",
            Self::ViewStuck => {
                "look in the log lines for the view's name, and in pg_locks for who holds its row \
                 of view_version"
            }
            Self::DeadLetter => {
                "read `dead_letter`, mend the cause, then `rollcall doctor --repair`"
            }
            Self::ClockSkew => "synchronise both machines' clocks (NTP); tokens have 5 s of leeway",
            Self::ClockSetBack => "the log's time stands still until the clock has caught up",
            Self::LeavesRunningOut => "see in the log lines why no leaves can be made ahead",
            Self::LeafDetached => {
                "attach the leaf again, or, if it holds heartbeats past retention, drop it"
            }
            Self::NotSynchronous => {
                "set synchronous_standby_names, or a failover loses what was acknowledged"
            }
        }
    }
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which check found it.
    pub check: Check,
    /// In which view.
    pub view: Option<&'static str>,
    /// About whom.
    pub user_no: Option<UserNo>,
    /// The outside name. Never in a log line.
    pub user_id: Option<UserId>,
    /// What must be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// Since when, as far as the data tells; else since it was first found. By the log's clock.
    pub since: Option<Timestamp>,
    /// Events that it is about.
    pub positions: Vec<Position>,
    /// What tells it from others of its check about the same user: a session, a position.
    pub subject: String,
    /// The log that decides it is damaged itself, so that nothing is folded from it.
    pub undecided: bool,
}

/// What makes two findings the same one, at different times.
pub(crate) type Key = (Check, Option<&'static str>, Option<UserNo>, String);

impl Finding {
    pub(crate) fn new(check: Check, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check,
            view: None,
            user_no: None,
            user_id: None,
            expected: expected.into(),
            found: found.into(),
            since: None,
            positions: Vec::new(),
            subject: String::new(),
            undecided: false,
        }
    }

    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        if self.undecided {
            return "it may be right: the log that decides it was itself changed past `append`, so \
                    nothing is folded from it; compare the positions of that finding with a backup";
        }
        self.check.advice()
    }

    pub(crate) fn of(mut self, user: UserNo) -> Self {
        self.user_no = Some(user);
        self
    }

    /// Positions, without the 0 that stands for none.
    pub(crate) fn at(mut self, positions: impl IntoIterator<Item = Position>) -> Self {
        self.positions.extend(positions.into_iter().filter(|position| *position > 0));
        self.positions.sort_unstable();
        self.positions.dedup();
        self
    }

    pub(crate) fn about(mut self, subject: impl std::fmt::Display) -> Self {
        self.subject = format!("{subject}");
        self
    }

    pub(crate) fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    pub(crate) fn in_view(mut self, view: &'static str) -> Self {
        self.view = Some(view);
        self
    }

    pub(crate) fn key(&self) -> Key {
        (self.check, self.view, self.user_no, self.subject.clone())
    }
}

/// What is wrong with the log itself, of this user or of anybody: what a fold of it would lose.
pub(crate) fn damage(findings: &[Finding], user: Option<UserNo>) -> Option<&Finding> {
    let ours = |found: &&Finding| user.is_none() || found.user_no == user;
    findings.iter().filter(ours).find(|found| found.check.remedy() == Remedy::Log)
}

/// Tells of each of these, which were found together, whether the log can decide it.
pub(crate) fn note_damage(findings: &mut [Finding]) {
    let damages = findings.iter().filter(|found| found.check.remedy() == Remedy::Log);
    let whose: HashSet<Option<UserNo>> = damages.map(|found| found.user_no).collect();
    for found in findings {
        found.undecided = match found.check.remedy() {
            Remedy::Present | Remedy::View => {
                found.user_no.is_some() && whose.contains(&found.user_no)
            }
            Remedy::Sums => !whose.is_empty(),
            Remedy::Log | Remedy::None => false,
        };
    }
}
