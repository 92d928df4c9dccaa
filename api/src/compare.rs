//! Where a system that is being replaced and Rollcall disagree about somebody, and why that may be.

use std::collections::BTreeMap;

use clap::ValueEnum;
use domain::rules::{self, Rule};
use domain::shown::shown;
use domain::{Audience, Presence, Reason, Status, Timestamp};
use serde::Serialize;

use crate::import::Rejected;
use crate::import::status_csv::{Row, StatusCsv};
use crate::shapes::{Instant, StatusName};

/// Differences that a report names; the rest is counted.
pub const DIFFERENCES_NAMED_MAX: usize = 10_000;

/// In whose words statuses are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum CompareAs {
    /// Ours.
    #[default]
    Exact,
    /// The chat's, where `busy` and `dnd` are `online`.
    Chat,
    /// Polling's, where `busy` is `dnd`.
    Polling,
    /// Only whether somebody is offline; always so for a column `is_online`.
    Online,
}

/// What we know of one user.
#[derive(Debug)]
pub struct Ours<'a> {
    /// As of now.
    pub state: &'a Presence,
    /// When and why the latest session ended, where one did.
    pub ended: Option<(Timestamp, Reason)>,
}

/// Why the two may disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No login of this user ever reached us.
    NeverHere,
    /// Theirs has not heard of the user for longer than a lease, and says online still.
    StuckThere,
    /// Here the lease is over: no heartbeat came.
    LeaseOver,
    /// Here the session was ended.
    LoggedOut,
    /// The user is here, and theirs does not know.
    OnlyHere,
    /// Here a claim decides.
    ClaimHere,
    /// The user is there under both; they judge activity differently.
    OtherStatus,
    /// Theirs does not list the user.
    NotListed,
}

impl Why {
    const fn words(self) -> &'static str {
        match self {
            Self::NeverHere => "never logged in here: does the client talk to Rollcall yet?",
            Self::StuckThere => "stuck online there: not heard of for longer than a lease",
            Self::LeaseOver => "the lease is over here: no heartbeat came",
            Self::LoggedOut => "logged out here",
            Self::OnlyHere => "logged in here only",
            Self::ClaimHere => "a claim decides here",
            Self::OtherStatus => "here under both; a claim or the idle time is judged differently",
            Self::NotListed => "not listed there",
        }
    }
}

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Who.
    pub user_id: String,
    /// What they say; none: nothing.
    pub theirs: Option<StatusName>,
    /// When they last heard of the user.
    pub their_last_seen: Option<Instant>,
    /// What we say; none: never heard of.
    pub ours: Option<StatusName>,
    /// Since when we say so.
    pub since: Option<Instant>,
    /// When we last heard of the user.
    pub last_seen: Option<Instant>,
    /// Why, likely.
    pub code: Why,
    /// The same in words.
    pub why: &'static str,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |status: Option<StatusName>| status.map_or("-", |s| Status::from(s).as_str());
        let (theirs, ours) = (word(self.theirs), word(self.ours));
        write!(f, "{}\t{theirs}\t{ours}\t", self.user_id)?;
        match self.since {
            Some(Instant(since)) => write!(f, "{}", since.format("%FT%TZ"))?,
            None => f.write_str("-")?,
        }
        write!(f, "\t{}", self.why)
    }
}

/// What came of a comparison.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    /// Users looked at.
    pub compared: u64,
    /// Users about whom both say the same.
    pub same: u64,
    /// Users about whom they do not.
    pub different: u64,
    /// How many for which likely reason.
    pub by_code: BTreeMap<Why, u64>,
    /// At most 10,000 of them.
    pub differences: Vec<Difference>,
    /// Lines that could not be compared; at most 10,000 are named.
    pub rejected: Vec<Rejected>,
    /// All of them.
    pub rejected_count: u64,
}

impl Comparison {
    /// Compares one row with what we know, as of `now`; `lease_ms` is for who has no session here.
    pub fn row(
        &mut self,
        row: &Row,
        ours: Option<&Ours<'_>>,
        words: CompareAs,
        (now, lease_ms): (Timestamp, u32),
    ) {
        self.compared += 1;
        let status = ours.map_or(Status::Offline, |ours| truth(ours.state));
        let hidden = ours.is_some_and(|ours| ours.state.invisible);
        let theirs = said(row.status, words);
        // They may show the truth about an invisible user, or what others are shown.
        if theirs == said(status, words) || hidden && theirs == Status::Offline {
            self.same += 1;
            return;
        }
        let lease = chrono::TimeDelta::milliseconds(lease_ms.into());
        let stuck = row.last_seen.is_some_and(|seen| seen + lease < now);
        let code = match (ours, status) {
            (_, Status::Offline) if stuck => Why::StuckThere,
            (None, _) => Why::NeverHere,
            (Some(ours), Status::Offline) if ours.state.own_since.is_none() => Why::NeverHere,
            (Some(ours), Status::Offline) => match ours.ended {
                Some((_, Reason::LostCarrier | Reason::IdleTimeout)) | None => Why::LeaseOver,
                Some((_, Reason::UserRequest | Reason::SessionTimeout | Reason::AdminReset)) => {
                    Why::LoggedOut
                }
            },
            (Some(_), _) if row.status == Status::Offline => Why::OnlyHere,
            (Some(ours), _) => match rules::status(ours.state).1 {
                Rule::AdminClaim | Rule::ManualClaim | Rule::SystemClaim => Why::ClaimHere,
                Rule::NoLiveSession | Rule::SessionActive | Rule::AllSessionsIdle => {
                    Why::OtherStatus
                }
            },
        };
        let user = row.user_id.as_str();
        self.differ(user, Some((row.status, row.last_seen)), ours.map(|o| o.state), code);
    }

    /// Somebody whom they do not list, and who is here.
    pub fn not_listed(&mut self, user_id: &str, state: &Presence) {
        self.compared += 1;
        if truth(state) == Status::Offline || state.invisible {
            self.same += 1;
        } else {
            self.differ(user_id, None, Some(state), Why::NotListed);
        }
    }

    /// A line that could not be compared.
    pub fn reject(&mut self, rejected: Rejected) {
        self.rejected_count += 1;
        if self.rejected.len() < DIFFERENCES_NAMED_MAX {
            self.rejected.push(rejected);
        }
    }

    /// Whether everything was compared and nobody differs.
    pub fn agrees(&self) -> bool {
        self.different == 0 && self.rejected_count == 0
    }

    fn differ(
        &mut self,
        user_id: &str,
        theirs: Option<(Status, Option<Timestamp>)>,
        ours: Option<&Presence>,
        code: Why,
    ) {
        self.different += 1;
        *self.by_code.entry(code).or_default() += 1;
        if self.differences.len() >= DIFFERENCES_NAMED_MAX {
            return;
        }
        let ours = ours.map(|state| shown(state, Audience::Entitled));
        self.differences.push(Difference {
            user_id: user_id.to_owned(),
            theirs: theirs.map(|(status, _)| status.into()),
            their_last_seen: theirs.and_then(|(_, seen)| seen).map(Instant),
            ours: ours.as_ref().map(|shown| shown.status.into()),
            since: ours.as_ref().map(|shown| Instant(shown.since)),
            last_seen: ours.and_then(|shown| shown.last_seen).map(Instant),
            code,
            why: code.words(),
        });
    }
}

impl CompareAs {
    /// In the words that a table can have.
    #[must_use]
    pub fn for_table(self, table: &StatusCsv) -> Self {
        if table.two_valued { Self::Online } else { self }
    }
}

/// What whoever operates both systems may see.
fn truth(state: &Presence) -> Status {
    shown(state, Audience::Entitled).status
}

const fn said(status: Status, words: CompareAs) -> Status {
    match (words, status) {
        (CompareAs::Chat, Status::Busy | Status::Dnd)
        | (CompareAs::Online, Status::Away | Status::Busy | Status::Dnd) => Status::Online,
        (CompareAs::Polling, Status::Busy) => Status::Dnd,
        (CompareAs::Exact | CompareAs::Chat | CompareAs::Polling | CompareAs::Online, status) => {
            status
        }
    }
}
