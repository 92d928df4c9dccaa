//! What is neither about one user nor about a stretch of the log.

use chrono::TimeDelta;
use domain::{Position, SessionId, Timestamp, UserNo};
use sqlx::PgConnection;

use super::finding::{Check, Finding};
use super::present::{Time, overdue};
use super::{OVERDUE_AFTER, WallClock};
use crate::leaves::LEAF_POSITIONS;
use crate::{Error, views};

/// How far this machine's clock and the database's may be apart: tokens have 5 s of leeway.
pub(super) const SKEW_MAX: TimeDelta = TimeDelta::seconds(2);
/// How far behind the log the database's clock may fall.
const SET_BACK_MAX: TimeDelta = TimeDelta::seconds(2);
/// An answer that took longer says too little of the time.
const ROUND_TRIP_MAX: TimeDelta = TimeDelta::seconds(1);
/// Rows of one look.
const ROWS_MAX: i64 = 100;
/// Deadlines of one look: most of them are lazy, and moved on by heartbeats long ago.
const DUE_MAX: i64 = 1_000;

/// Everything of it, in one snapshot.
pub(super) async fn check(
    db: &mut PgConnection,
    head: Position,
    time: &Time,
) -> Result<Vec<Finding>, Error> {
    let mut findings = letters(db).await?;
    findings.extend(beyond(db, head).await?);
    findings.extend(due(db, time).await?);
    findings.extend(leaves(db, head).await?);
    findings.extend(set_back(db, time.now).await?);
    findings.extend(standby(db).await?);
    Ok(findings)
}

async fn letters(db: &mut PgConnection) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(String, i32, Position, i64, String, Timestamp)> = sqlx::query_as(
        // What a former version could not take matters once it is taken back: then it is built.
        "select d.view, d.version, d.position, d.user_no, d.sqlstate, d.found_at
           from dead_letter d join view_version v on v.view = d.view and v.version = d.version
          where v.state in ('live', 'building')
          order by d.view, d.version, d.position limit $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(view, version, position, user, sqlstate, found_at): (
        String,
        i32,
        Position,
        i64,
        String,
        Timestamp,
    )| {
        let view = views::find(&view)?;
        let found = format!("refused with SQLSTATE {sqlstate}; this user's events wait");
        let finding =
            Finding::new(Check::DeadLetter, format!("taken in by version {version}"), found)
                .at([position])
                .about(format!("{version} {position}"))
                .since(found_at)
                .in_view(view.name);
        Some(if user > 0 { finding.of(UserNo(user)) } else { finding })
    };
    Ok(rows.into_iter().filter_map(finding).collect())
}

async fn beyond(db: &mut PgConnection, head: Position) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(Position, Option<i64>, Timestamp)> = sqlx::query_as(
        "select position, user_no, recorded_at from event where position > $1 limit $2",
    )
    .bind(head)
    .bind(ROWS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(position, user, at): (Position, Option<i64>, Timestamp)| {
        let expected = format!("at most position {head}, the head");
        let finding = Finding::new(Check::PositionBeyondHead, expected, "an event above it")
            .at([position])
            .about(position)
            .since(at);
        user.map_or(finding.clone(), |user| finding.of(UserNo(user)))
    };
    Ok(rows.into_iter().map(finding).collect())
}

type DueRow = (SessionId, i64, Position, Timestamp, i32, Option<i32>, bool);

/// What the sweepers should have recorded.
async fn due(db: &mut PgConnection, time: &Time) -> Result<Vec<Finding>, Error> {
    let late = time.now - OVERDUE_AFTER;
    let sessions: Vec<DueRow> = sqlx::query_as(
        "select session_id, user_no, opened_position, last_seen, lease_ms, away_after_ms, active
               from live_session where check_at < $1 order by check_at limit $2",
    )
    .bind(late)
    .bind(DUE_MAX)
    .fetch_all(&mut *db)
    .await?;
    let mut findings = Vec::new();
    for (session, user, opened, last_seen, lease_ms, away_after_ms, active) in sessions {
        let ends = |ms: i32| time.silences.deadline(last_seen, ms.unsigned_abs());
        let lease = ends(lease_ms);
        let next = away_after_ms.filter(|_| active).map_or(lease, |ms| ends(ms).min(lease));
        if next < late {
            let finding = overdue(next, time.now).of(UserNo(user)).at([opened]);
            findings.push(finding.about(session).since(next));
        }
    }
    let claims: Vec<(i64, Position, Timestamp)> = sqlx::query_as(
        "select user_no, position, check_at from current_status where check_at < $1
          order by check_at limit $2",
    )
    .bind(late)
    .bind(ROWS_MAX)
    .fetch_all(db)
    .await?;
    findings.extend(claims.into_iter().map(|(user, position, at)| {
        overdue(at, time.now).of(UserNo(user)).at([position]).about("claim").since(at)
    }));
    Ok(findings)
}

/// A leaf ahead of the head for both classes, and none that has left the log.
async fn leaves(db: &mut PgConnection, head: Position) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(String, bool, bool)> = sqlx::query_as(
        "select c.relname::text, i.inhrelid is not null, coalesce(i.inhdetachpending, false)
           from pg_class c
           left join pg_inherits i on i.inhrelid = c.oid
          where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
            and c.relname ~ '^event_[th]_[0-9]+$'",
    )
    .fetch_all(db)
    .await?;
    let mut findings = Vec::new();
    for (name, attached, pending) in &rows {
        // A leaf of heartbeats that is being let go waits for readers, however long they read.
        let leaving = *pending && name.starts_with("event_h_");
        if !attached || (*pending && !leaving) {
            let found = if *attached { "being detached" } else { "detached" };
            let finding = Finding::new(Check::LeafDetached, "a part of the log", found);
            let lowest = name[8..].parse().unwrap_or_default();
            findings.push(finding.at([lowest]).about(name));
        }
    }
    let next = (head / LEAF_POSITIONS + 1) * LEAF_POSITIONS;
    for parent in ["event_t", "event_h"] {
        let name = format!("{parent}_{next:016}");
        if !rows.iter().any(|(leaf, attached, _)| *attached && *leaf == name) {
            let expected = format!("a leaf {name}");
            let left = next - head;
            let found = format!("none; {left} positions are left below it");
            let finding = Finding::new(Check::LeavesRunningOut, expected, found);
            findings.push(finding.at([head]).about(parent));
        }
    }
    Ok(findings)
}

async fn set_back(db: &mut PgConnection, now: Timestamp) -> Result<Option<Finding>, Error> {
    let clock: Timestamp = sqlx::query_scalar("select log_clock()").fetch_one(db).await?;
    let behind = now - clock;
    Ok((behind > SET_BACK_MAX).then(|| {
        let expected = format!("{} or later", now.to_rfc3339());
        let found = format!("{}: {} ms behind", clock.to_rfc3339(), behind.num_milliseconds());
        Finding::new(Check::ClockSetBack, expected, found)
    }))
}

/// This machine's clock against the database's.
pub(super) async fn skew(db: &mut PgConnection, wall: WallClock) -> Result<Option<Finding>, Error> {
    let before = wall();
    let told: Timestamp = sqlx::query_scalar("select clock_timestamp()").fetch_one(db).await?;
    let trip = wall() - before;
    let skew = told - (before + trip / 2);
    if trip > ROUND_TRIP_MAX || skew.abs() <= SKEW_MAX {
        return Ok(None);
    }
    let expected = format!("at most {} ms apart", SKEW_MAX.num_milliseconds());
    let found = format!("the database is {} ms ahead of this machine", skew.num_milliseconds());
    Ok(Some(Finding::new(Check::ClockSkew, expected, found)))
}

/// How the database is replicated.
#[derive(Debug, sqlx::FromRow)]
struct Replication {
    standbys: i64,
    names: String,
    commit: String,
}

async fn standby(db: &mut PgConnection) -> Result<Option<Finding>, Error> {
    let replication: Replication = sqlx::query_as(
        "select (select count(*) from pg_stat_replication)
                + (select count(*) from pg_replication_slots where slot_type = 'physical')
                    as standbys,
                current_setting('synchronous_standby_names') as names,
                current_setting('synchronous_commit') as commit",
    )
    .fetch_one(db)
    .await?;
    Ok(replication.finding())
}

impl Replication {
    /// Without a standby there is nothing to wait for.
    fn finding(&self) -> Option<Finding> {
        let waits = !self.names.trim().is_empty() && !matches!(&*self.commit, "off" | "local");
        if waits || (self.standbys == 0 && self.names.trim().is_empty()) {
            return None;
        }
        let found = format!(
            "synchronous_standby_names '{}', synchronous_commit {}, standbys: {}",
            self.names, self.commit, self.standbys
        );
        Some(Finding::new(Check::NotSynchronous, "commits that wait for a standby", found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(standbys: i64, names: &str, commit: &str) -> bool {
        let (names, commit) = (names.to_owned(), commit.to_owned());
        Replication { standbys, names, commit }.finding().is_some()
    }

    #[test]
    fn a_database_alone_needs_no_synchronous_replication() {
        assert!(!found(0, "", "on"));
        assert!(!found(0, "", "off"));
    }

    #[test]
    fn commits_wait_for_the_standby_where_there_is_one() {
        assert!(found(1, "", "on"));
        assert!(found(1, "one", "local"));
        assert!(found(0, "one", "off"));
        assert!(!found(1, "ANY 1 (one, two)", "on"));
        assert!(!found(2, "one", "remote_apply"));
    }
}
