//! Stretches of the log, whoever it is about, and what refers to it.

use domain::{Position, SessionId, Timestamp, UserNo};
use sqlx::PgConnection;

use super::finding::{Check, Finding};
use crate::Error;

/// Findings of one look.
const FINDINGS_MAX: i64 = 100;

type Row = (Position, Option<i64>, Timestamp, Timestamp, Option<Position>, Option<Timestamp>);

/// Events above `after`, up to `to`.
pub(super) async fn check(
    db: &mut PgConnection,
    (after, to): (Position, Position),
) -> Result<Vec<Finding>, Error> {
    let mut findings = order(db, (after, to)).await?;
    findings.extend(contradictions(db, (after, to)).await?);
    findings.extend(forgotten(db, (after, to)).await?);
    findings.extend(details(db, (after, to)).await?);
    Ok(findings)
}

/// Times and positions. The transition before the stretch is where it goes on from.
async fn order(
    db: &mut PgConnection,
    (after, to): (Position, Position),
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "with told as (
             (select position, user_no, recorded_at, occurred_at from event
               where class = 'T' and position <= $1 order by position desc limit 1)
             union all
             select position, user_no, recorded_at, occurred_at from event
              where position > $1 and position <= $2
         ), compared as (
             select t.*, lag(position) over in_order as before,
                    lag(recorded_at) over in_order as recorded_before
               from told t window in_order as (order by position)
         )
         select position, user_no, occurred_at, recorded_at, before, recorded_before from compared
          where recorded_at < recorded_before or position = before
             or (occurred_at > recorded_at and position > $1)
          order by position limit $3",
    )
    .bind(after)
    .bind(to)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().flat_map(order_findings).collect())
}

fn order_findings(
    (position, user, occurred_at, recorded_at, before, recorded_before): Row,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if before == Some(position) {
        findings.push(Finding::new(Check::PositionTwice, "one event", "two events"));
    }
    if let Some(earliest) = recorded_before.filter(|before| *before > recorded_at) {
        let expected = format!("recorded at {} or later", earliest.to_rfc3339());
        let found = format!("recorded at {}", recorded_at.to_rfc3339());
        findings.push(Finding::new(Check::RecordedBackwards, expected, found));
    }
    if occurred_at > recorded_at {
        let expected = format!("happened by {}, when it was recorded", recorded_at.to_rfc3339());
        let found = format!("happened at {}", occurred_at.to_rfc3339());
        findings.push(Finding::new(Check::RecordedEarly, expected, found));
    }
    let complete = |finding: Finding| {
        let of_two = finding.check == Check::RecordedBackwards;
        let other = before.filter(|_| of_two).unwrap_or_default();
        let finding = finding.at([position, other]).about(position).since(recorded_at);
        user.map_or(finding.clone(), |user| finding.of(UserNo(user)))
    };
    findings.into_iter().map(complete).collect()
}

/// Events that do not begin with the status that the user's one before ended with, own and imported
/// ones apart. Of whom has a log too long to be folded in a slice, too.
async fn contradictions(
    db: &mut PgConnection,
    (after, to): (Position, Position),
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(Position, i64, Timestamp, Position, String, String)> = sqlx::query_as(
        "with told as (
             select position, user_no, recorded_at, from_status,
                    lag(position) over of_user as before, lag(to_status) over of_user as ended
               from event
              where class = 'T' and user_no is not null and position > $1 and position <= $2
             window of_user as (partition by user_no, coalesce(data ? 'imported', false)
                                    order by sequence, position)
         )
         select position, user_no, recorded_at, before, ended::text, from_status::text from told
          where from_status <> ended order by position limit $3",
    )
    .bind(after)
    .bind(to)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(position, user, at, before, ended, from): (
        Position,
        i64,
        Timestamp,
        Position,
        String,
        String,
    )| {
        let expected = format!("from {ended}, to which position {before} had led");
        Finding::new(Check::EventUnlikeRules, expected, format!("from {from}"))
            .of(UserNo(user))
            .at([before, position])
            .about(position)
            .since(at)
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// Sessions that ended, and whose names might be used again.
async fn forgotten(
    db: &mut PgConnection,
    (after, to): (Position, Position),
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(Position, i64, SessionId, Timestamp)> = sqlx::query_as(
        "select e.position, e.user_no, e.session_id, e.recorded_at
           from event e
           left join ended_session x on x.session_id = e.session_id
          where e.class = 'T' and e.position > $1 and e.position <= $2
            and e.type in ('session_closed', 'session_expired') and x.session_id is null
          order by e.position limit $3",
    )
    .bind(after)
    .bind(to)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(position, user, session, at): (Position, i64, SessionId, Timestamp)| {
        let expected = format!("{session} among the ended sessions");
        Finding::new(Check::EndForgotten, expected, "not among them")
            .of(UserNo(user))
            .at([position])
            .about(session)
            .since(at)
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// Details of no event.
async fn details(
    db: &mut PgConnection,
    (after, to): (Position, Position),
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(Position, i64)> = sqlx::query_as(
        "select d.position, d.user_no from detail d
          where d.position > $1 and d.position <= $2
            and not exists (select from event e where e.class = 'T' and e.position = d.position)
          order by d.position limit $3",
    )
    .bind(after)
    .bind(to)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(position, user): (Position, i64)| {
        Finding::new(Check::Orphan, "an event", "a detail of none")
            .of(UserNo(user))
            .at([position])
            .about(format!("detail {position}"))
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// Sessions that are said to be over, and by the log are not.
pub(super) async fn ended(
    db: &mut PgConnection,
    (after, to): (SessionId, SessionId),
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(SessionId, i64, Position)> = sqlx::query_as(
        "select x.session_id, x.user_no, x.position from ended_session x
          where x.session_id > $1 and x.session_id <= $2
            and not exists (select from event e
                             where e.class = 'T' and e.position = x.position
                               and e.user_no = x.user_no and e.session_id = x.session_id
                               and e.type in ('session_closed', 'session_expired'))
          order by x.session_id limit $3",
    )
    .bind(after)
    .bind(to)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(session, user, position): (SessionId, i64, Position)| {
        let found = format!("an end of session {session} without one");
        Finding::new(Check::Orphan, "an event", found)
            .of(UserNo(user))
            .at([position])
            .about(session)
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// Keys of guards, of some users, that no event answered.
pub(super) async fn guard_keys(
    db: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<Finding>, Error> {
    let rows: Vec<(i64, Position)> = sqlx::query_as(
        "select g.user_no, g.position from guard_key g
          where g.user_no = any ($1)
            and not exists (select from event e
                             where e.class = 'T' and e.position = g.position
                               and e.user_no = g.user_no
                               and e.type in ('action_allowed', 'action_refused'))
          order by g.position limit $2",
    )
    .bind(users)
    .bind(FINDINGS_MAX)
    .fetch_all(db)
    .await?;
    let finding = |(user, position): (i64, Position)| {
        Finding::new(Check::Orphan, "an event", "a guard's key of none")
            .of(UserNo(user))
            .at([position])
            .about(format!("guard {position}"))
    };
    Ok(rows.into_iter().map(finding).collect())
}
