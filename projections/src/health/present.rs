//! The present against the fold of the log: what transitions decide, for a slice of users.

use std::collections::{BTreeMap, HashMap};

use domain::{Claim, Position, Presence, SessionId, Silences, Status, Timestamp, UserNo};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::OVERDUE_AFTER;
use super::finding::{Check, Finding};
use super::fold::{self, Folded};
use super::scope::EVENTS_SLICE;
use crate::Error;
use crate::load::StoredState;

/// A row of `current_status`.
#[derive(Debug, FromRow)]
struct Stored {
    user_no: i64,
    status: String,
    since: Timestamp,
    shown_since: Timestamp,
    sequence: i64,
    position: Position,
    changed_at: Option<Timestamp>,
    own_since: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    last_activity: Option<Timestamp>,
    live_sessions: i32,
    invisible: bool,
    check_at: Option<Timestamp>,
    state: Json<Value>,
}

/// A row of `live_session`.
#[derive(Debug, FromRow)]
struct Live {
    session_id: SessionId,
    user_no: i64,
    opened_at: Timestamp,
    last_seen: Timestamp,
    check_at: Timestamp,
    opened_position: Position,
    lease_ms: i32,
    away_after_ms: Option<i32>,
    kind: String,
    active: bool,
}

/// What the snapshot says of the time.
#[derive(Debug, Clone)]
pub(super) struct Time {
    /// `recorded_at` of the newest batch.
    pub(super) now: Timestamp,
    pub(super) silences: Silences,
}

/// Of the users above `after`, up to `to`: what is wrong, who there is, and who has a log too long
/// for a slice (nobody, in a survey).
pub(super) async fn check(
    db: &mut PgConnection,
    range: (i64, i64),
    time: &Time,
    deep: bool,
) -> Result<(Vec<Finding>, Vec<i64>), Error> {
    let mut stored = stored(db, range).await?;
    let mut sessions = sessions(db, range).await?;
    let heavy: Vec<i64> = stored
        .values()
        .filter(|row| !deep && row.sequence > EVENTS_SLICE)
        .map(|row| row.user_no)
        .collect();
    let mut findings = Vec::new();
    let mut folded: BTreeMap<i64, Folded> = BTreeMap::new();
    fold::fold(db, range, &heavy, |user, fold| {
        folded.insert(user.0, fold);
    })
    .await?;
    findings.extend(last_events(db, &heavy).await?);
    let mut users: Vec<i64> = folded.keys().chain(stored.keys()).copied().collect();
    users.extend(sessions.keys());
    users.sort_unstable();
    users.dedup();
    for &user in &users {
        let live = sessions.remove(&user).unwrap_or_default();
        let row = stored.remove(&user);
        let user_no = UserNo(user);
        let mut fold = folded.remove(&user).unwrap_or_default();
        findings.extend(against_sessions(user_no, row.as_ref(), &live, &fold));
        findings.extend(live.iter().filter_map(|live| deadline(user_no, live, time)));
        findings.extend(ahead(user_no, row.as_ref(), time.now));
        if heavy.contains(&user) {
            continue;
        }
        findings.append(&mut fold.findings);
        findings.extend(against_row(user_no, row.as_ref(), &fold));
        findings.extend(against_rows(user_no, &live, &fold));
    }
    users.retain(|user| !heavy.contains(user));
    Ok((findings, users))
}

async fn stored(
    db: &mut PgConnection,
    (after, to): (i64, i64),
) -> Result<BTreeMap<i64, Stored>, Error> {
    let rows: Vec<Stored> = sqlx::query_as(
        "select user_no, status::text as status, since, shown_since, sequence, position, changed_at,
                own_since, last_seen, last_activity, live_sessions, invisible, check_at, state
           from current_status where user_no > $1 and user_no <= $2",
    )
    .bind(after)
    .bind(to)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_no, row)).collect())
}

async fn sessions(
    db: &mut PgConnection,
    (after, to): (i64, i64),
) -> Result<HashMap<i64, Vec<Live>>, Error> {
    let rows: Vec<Live> = sqlx::query_as(
        "select session_id, user_no, opened_at, last_seen, check_at, opened_position, lease_ms,
                away_after_ms, kind::text as kind, active
           from live_session where user_no > $1 and user_no <= $2 order by opened_position",
    )
    .bind(after)
    .bind(to)
    .fetch_all(db)
    .await?;
    let mut of: HashMap<i64, Vec<Live>> = HashMap::new();
    for row in rows {
        of.entry(row.user_no).or_default().push(row);
    }
    Ok(of)
}

/// Who has a long log is at least where the last event says.
async fn last_events(db: &mut PgConnection, users: &[i64]) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(i64, i64, Position, String, i64, Position, String)> = sqlx::query_as(
        "select s.user_no, s.sequence, s.position, s.status::text, e.sequence, e.position,
                e.to_status::text
           from current_status s
          cross join lateral (select sequence, position, to_status from event e
                               where e.class = 'T' and e.user_no = s.user_no
                               order by sequence desc limit 1) e
          where s.user_no = any ($1)
            and (s.sequence, s.position, s.status) <> (e.sequence, e.position, e.to_status)",
    )
    .bind(users)
    .fetch_all(db)
    .await?;
    let finding = |(user, sequence, position, status, last, last_position, to): (
        i64,
        i64,
        Position,
        String,
        i64,
        Position,
        String,
    )| {
        let expected = format!("{to}, sequence {last}, position {last_position}");
        let found = format!("{status}, sequence {sequence}, position {position}");
        Finding::new(Check::PresentUnlikeLog, expected, found)
            .of(UserNo(user))
            .at([position, last_position])
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// A status with its sessions.
fn against_sessions(
    user: UserNo,
    row: Option<&Stored>,
    live: &[Live],
    fold: &Folded,
) -> Option<Finding> {
    let row = row?;
    let offline = row.status == Status::Offline.as_str();
    let by_log = fold.state.sessions.iter().filter_map(|session| fold.opened.get(&session.id));
    let opened = live.iter().map(|live| live.opened_position).chain(by_log.copied());
    let finding = match (offline, live.len()) {
        (false, 0) => {
            let found = format!("{} without one", row.status);
            Finding::new(Check::OnlineWithoutSession, "offline, or a live session", found)
        }
        (true, sessions @ 1..) => {
            let found = format!("offline, with live sessions: {sessions}");
            Finding::new(Check::OfflineWithSession, "a status other than offline", found)
        }
        (true, 0) | (false, 1..) => return None,
    };
    Some(finding.of(user).at([row.position]).at(opened).since(row.since))
}

/// An instant that lies ahead of all that was recorded.
fn ahead(user: UserNo, row: Option<&Stored>, now: Timestamp) -> Option<Finding> {
    let row = row?;
    let instants = [
        ("last_seen", row.last_seen),
        ("last_activity", row.last_activity),
        ("since", Some(row.since)),
        ("shown_since", Some(row.shown_since)),
        ("changed_at", row.changed_at),
        ("own_since", row.own_since),
    ];
    let (name, at) = instants.into_iter().find(|(_, at)| *at > Some(now))?;
    let expected = format!("{name} by {}, when the log was last written", now.to_rfc3339());
    let found = format!("{name} {}", instant(at));
    Some(Finding::new(Check::PresentUnlikeLog, expected, found).of(user).at([row.position]))
}

/// A deadline that has passed, or that the sweeper would miss.
fn deadline(user: UserNo, live: &Live, time: &Time) -> Option<Finding> {
    let ends = |ms: i32| time.silences.deadline(live.last_seen, ms.unsigned_abs());
    let lease = ends(live.lease_ms);
    let next = live.away_after_ms.filter(|_| live.active).map_or(lease, |ms| ends(ms).min(lease));
    let finding = if next + OVERDUE_AFTER < time.now {
        overdue(next, time.now)
    } else if live.check_at > next {
        let found = format!("looked at after {}", live.check_at.to_rfc3339());
        Finding::new(Check::UnwatchedDeadline, format!("looked at by {}", next.to_rfc3339()), found)
    } else {
        return None;
    };
    Some(finding.of(user).at([live.opened_position]).about(live.session_id).since(next))
}

/// Something that ended and was not recorded.
pub(super) fn overdue(deadline: Timestamp, now: Timestamp) -> Finding {
    let late_ms = (now - deadline).num_milliseconds();
    Finding::new(
        Check::OverdueLease,
        format!("its end at {} recorded within 5 s", deadline.to_rfc3339()),
        format!("not recorded {late_ms} ms later"),
    )
}

/// The row of `current_status`, column by column; all that differs is one finding.
fn against_row(user: UserNo, row: Option<&Stored>, fold: &Folded) -> Option<Finding> {
    let found = |expected: String, found: String, stored: Position| {
        Finding::new(Check::PresentUnlikeLog, expected, found)
            .of(user)
            .at([fold.position, stored])
            .since(fold.recorded_at)
    };
    let Some(row) = row else {
        let expected = format!("{}, sequence {}", fold.state.status, fold.state.sequence);
        return (fold.position > 0).then(|| found(expected, "no row".to_owned(), 0));
    };
    if fold.position == 0 {
        let status = format!("{}, sequence {}", row.status, row.sequence);
        return Some(found("no row: the log knows no such user".to_owned(), status, row.position));
    }
    let (expected, stored): (Vec<String>, Vec<String>) = columns(row, fold)
        .into_iter()
        .filter(|(_, expected, stored)| expected != stored)
        .map(|(name, expected, stored)| (format!("{name} {expected}"), format!("{name} {stored}")))
        .unzip();
    (!expected.is_empty()).then(|| found(expected.join(", "), stored.join(", "), row.position))
}

/// Each column with what the log says and what it holds.
fn columns(row: &Stored, fold: &Folded) -> Vec<(&'static str, String, String)> {
    let state = &fold.state;
    let stored: Result<StoredState, _> = serde_json::from_value(row.state.0.clone());
    let mut columns = vec![
        ("status", state.status.to_string(), row.status.clone()),
        ("sequence", state.sequence.to_string(), row.sequence.to_string()),
        ("position", fold.position.to_string(), row.position.to_string()),
        ("sessions", state.sessions.len().to_string(), row.live_sessions.to_string()),
        ("invisible", state.invisible.to_string(), row.invisible.to_string()),
        ("own_since", instant(state.own_since), instant(row.own_since)),
        ("changed_at", instant(state.changed_at), instant(row.changed_at)),
        ("check_at", instant(claims_end(state)), instant(row.check_at)),
    ];
    match stored {
        Ok(stored) => {
            columns.push(("claims", claims(&state.claims), claims(&stored.claims)));
            let veiled = |veiled: bool| if veiled { "there" } else { "none" }.to_owned();
            columns.push(("veil", veiled(state.veil.is_some()), veiled(stored.veil.is_some())));
        }
        Err(error) => columns.push(("state", "readable".to_owned(), error.to_string())),
    }
    // Of history from elsewhere alone, imported heartbeats say more than transitions do.
    if state.own_since.is_some() {
        columns.push(("since", instant(Some(state.since)), instant(Some(row.since))));
        let shown = (instant(Some(state.shown_since)), instant(Some(row.shown_since)));
        columns.push(("shown_since", shown.0, shown.1));
    }
    columns
}

fn instant(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "none".to_owned(), |at| at.to_rfc3339())
}

fn claims(claims: &[Claim]) -> String {
    let claim = |claim: &Claim| {
        let end = claim.expires_at.map_or_else(String::new, |at| format!(" until {at}"));
        let active = if claim.while_active { " while active" } else { "" };
        format!("{}={}{active}{end}", claim.source, claim.status)
    };
    format!("[{}]", claims.iter().map(claim).collect::<Vec<_>>().join("; "))
}

/// The earliest end of a claim.
pub(crate) fn claims_end(state: &Presence) -> Option<Timestamp> {
    state.claims.iter().filter_map(|claim| claim.expires_at).min()
}

/// The rows of `live_session`, session by session.
fn against_rows(user: UserNo, live: &[Live], fold: &Folded) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |session: SessionId, expected: String, found: String, positions: [i64; 2]| {
        let finding = Finding::new(Check::SessionUnlikeLog, expected, found);
        findings.push(finding.of(user).at(positions).about(session).since(fold.recorded_at));
    };
    let opened = |session: SessionId| fold.opened.get(&session).copied().unwrap_or_default();
    for session in &fold.state.sessions {
        let at = opened(session.id);
        let expected = format!(
            "{} of {}, opened {}, position {at}, active {}, away after {:?} ms",
            session.id,
            session.kind.as_str(),
            session.opened_at.to_rfc3339(),
            session.active,
            session.away_after_ms,
        );
        let Some(row) = live.iter().find(|row| row.session_id == session.id) else {
            find(session.id, expected, "no live session".to_owned(), [at, 0]);
            continue;
        };
        let found = format!(
            "{} of {}, opened {}, position {}, active {}, away after {:?} ms",
            row.session_id,
            row.kind,
            row.opened_at.to_rfc3339(),
            row.opened_position,
            row.active,
            row.away_after_ms.map(i32::unsigned_abs),
        );
        if found != expected {
            find(session.id, expected, found, [at, row.opened_position]);
        }
    }
    for row in live.iter().filter(|row| fold.state.session(row.session_id).is_none()) {
        let expected = format!("{} is not live", row.session_id);
        let positions = [opened(row.session_id), row.opened_position];
        find(row.session_id, expected, "a live session".to_owned(), positions);
    }
    findings
}
