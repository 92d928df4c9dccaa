//! One look at one scope, in one snapshot.
//!
//! The log, the present and each view's checkpoint are of one instant there, so that no write
//! meanwhile can look like an inconsistency.

use std::time::Duration;

use domain::{Position, Timestamp, UserNo};
use sqlx::{Connection, PgConnection};

use super::finding::{Check, Finding, note_damage};
use super::present::Time;
use super::scope::Scope;
use super::{log, present, signs, system, views};
use crate::follow::versions::{self, Version};
use crate::{Error, load, tail};

/// A slice that takes longer is given up until the next round.
pub const SLICE_TIME_MAX: Duration = Duration::from_secs(5);

/// How thorough a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Bounded in rows and time.
    Slice,
    /// Everybody, however long their log is.
    Whole,
}

/// What a look saw.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) findings: Vec<Finding>,
    /// The log's newest time in the snapshot.
    pub(crate) now: Timestamp,
    pub(crate) versions: Vec<Version>,
}

/// Looks at a scope.
pub(crate) async fn look(
    db: &mut PgConnection,
    scope: &Scope,
    depth: Depth,
) -> Result<Looked, Error> {
    let mut snapshot = db.begin().await?;
    sqlx::query("set transaction isolation level repeatable read, read only")
        .execute(&mut *snapshot)
        .await?;
    let limit_ms = if depth == Depth::Slice { SLICE_TIME_MAX.as_millis() } else { 0 };
    sqlx::query("select set_config('statement_timeout', $1, true)")
        .bind(limit_ms.to_string())
        .execute(&mut *snapshot)
        .await?;
    let (head, now) = tail::newest(&mut snapshot).await?.unwrap_or((0, Timestamp::UNIX_EPOCH));
    let time = Time { now, silences: load::silences(&mut *snapshot).await? };
    let versions = versions::read(&mut *snapshot).await?;
    let seen = Seen { head, time: &time, versions: &versions, depth };
    let mut findings = seen.check(&mut snapshot, scope).await?;
    note_damage(&mut findings);
    name(&mut snapshot, &mut findings).await?;
    snapshot.commit().await?;
    for finding in &mut findings {
        finding.since.get_or_insert(now);
    }
    Ok(Looked { findings, now, versions })
}

/// What a snapshot says of itself.
struct Seen<'a> {
    head: Position,
    time: &'a Time,
    versions: &'a [Version],
    depth: Depth,
}

impl Seen<'_> {
    async fn check(&self, db: &mut PgConnection, scope: &Scope) -> Result<Vec<Finding>, Error> {
        match *scope {
            Scope::System => system::check(db, self.head, self.time).await,
            Scope::Users { after, to } => {
                let deep = self.depth == Depth::Whole;
                let (mut findings, users) =
                    present::check(db, (after, to), self.time, deep).await?;
                let newest = (self.head, self.time.now);
                findings.extend(signs::check(db, (after, to), newest).await?);
                findings.extend(log::guard_keys(db, &users).await?);
                findings.extend(views::check(db, self.versions, &users).await?);
                Ok(findings)
            }
            Scope::Log { after, to } => log::check(db, (after, to)).await,
            Scope::Ended { after, to } => log::ended(db, (after, to)).await,
            Scope::Totals => views::totals(db, self.versions).await,
        }
    }
}

/// Gives users their outside names.
async fn name(db: &mut PgConnection, findings: &mut [Finding]) -> Result<(), Error> {
    let users: Vec<i64> = findings.iter().filter_map(|found| found.user_no).map(|u| u.0).collect();
    if users.is_empty() {
        return Ok(());
    }
    let names: Vec<(i64, String)> =
        sqlx::query_as("select user_no, user_id from account where user_no = any ($1)")
            .bind(users)
            .fetch_all(db)
            .await?;
    for (user, name) in names {
        for finding in findings.iter_mut().filter(|found| found.user_no == Some(UserNo(user))) {
            finding.user_id = name.parse().ok();
        }
    }
    Ok(())
}

/// Where to look again for one finding: as little as holds it.
pub(crate) fn home(finding: &Finding, scope: &Scope) -> Scope {
    match (scope, finding.user_no) {
        (Scope::Users { .. }, Some(UserNo(user))) => Scope::Users { after: user - 1, to: user },
        (Scope::Log { after, .. }, _) => match (finding.positions.last(), finding.check) {
            // The event before it is part of what was found.
            (Some(last), Check::EndForgotten | Check::Orphan | Check::RecordedEarly) => {
                Scope::Log { after: last - 1, to: *last }
            }
            (Some(last), _) => Scope::Log { after: *after, to: *last },
            (None, _) => scope.clone(),
        },
        (Scope::System | Scope::Users { .. } | Scope::Ended { .. } | Scope::Totals, _) => {
            scope.clone()
        }
    }
}
