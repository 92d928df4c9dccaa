//! The live views against the fold of the log, each as of its own checkpoint.

use domain::{Position, Timestamp, UserNo};
use sqlx::{FromRow, PgConnection};

use super::finding::{Check, Finding};
use crate::Error;
use crate::follow::versions::{State, Version};
use crate::views::View;

/// Users whose present is newer than the sums' checkpoint, before these wait for a better moment:
/// each of them is folded.
const LATE_MAX: i64 = 2_000;

/// Something of a user's that is not what the log says.
#[derive(Debug, FromRow)]
struct Unlike {
    user_no: i64,
    position: Position,
    other: Position,
    since: Timestamp,
    expected: String,
    found: String,
}

/// Two spans that do not follow each other, or a last one that is not the present.
#[derive(Debug, FromRow)]
struct Order {
    user_no: i64,
    from_position: Position,
    before_position: Position,
    from_at: Timestamp,
    before_to: Option<Timestamp>,
    to_at: Option<Timestamp>,
    status: String,
    present: Option<String>,
    what: String,
}

/// Some users' parts of every live view.
pub(super) async fn check(
    db: &mut PgConnection,
    versions: &[Version],
    users: &[i64],
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for version in versions.iter().filter(|version| version.state == State::Live) {
        let users = without_waiting(db, version, users).await?;
        let (check, template) = match version.view.name {
            "status_span" => {
                findings.extend(order(db, version, &users).await?);
                (Check::SpanUnlikeLog, include_str!("spans_unlike.sql"))
            }
            "session_span" => (Check::SessionSpanUnlikeLog, include_str!("sessions_unlike.sql")),
            "status_daily" => (Check::DailyUnlikeLog, include_str!("daily_unlike.sql")),
            // Nobody has a part of their own in it: see `totals`.
            _ => continue,
        };
        findings.extend(unlike(db, version, &users, check, template).await?);
    }
    Ok(findings)
}

/// Those whose events the view has.
async fn without_waiting(
    db: &mut PgConnection,
    version: &Version,
    users: &[i64],
) -> Result<Vec<i64>, Error> {
    let users = sqlx::query_scalar(
        "select u from unnest($3) u
          where not exists (select from dead_letter d
                             where d.view = $1 and d.version = $2 and d.user_no = u)",
    )
    .bind(version.view.name)
    .bind(version.version)
    .bind(users)
    .fetch_all(db)
    .await?;
    Ok(users)
}

async fn unlike(
    db: &mut PgConnection,
    version: &Version,
    users: &[i64],
    check: Check,
    template: &str,
) -> Result<Vec<Finding>, Error> {
    let statement = View::statement(template, version.version);
    let rows = sqlx::query_as::<_, Unlike>(&statement).bind(users).bind(version.position);
    let mut rows = rows.fetch_all(db).await?;
    // The first one of each user says it; what follows is mostly a consequence.
    rows.dedup_by_key(|row| row.user_no);
    let finding = |row: Unlike| {
        Finding::new(check, row.expected, row.found)
            .of(UserNo(row.user_no))
            .at([row.position, row.other])
            .since(row.since)
            .in_view(version.view.name)
    };
    Ok(rows.into_iter().map(finding).collect())
}

async fn order(
    db: &mut PgConnection,
    version: &Version,
    users: &[i64],
) -> Result<Vec<Finding>, Error> {
    let statement = View::statement(include_str!("spans_order.sql"), version.version);
    let rows = sqlx::query_as::<_, Order>(&statement).bind(users).bind(version.position);
    let rows = rows.fetch_all(db).await?;
    let finding = |row: Order| {
        let text = |at: Option<Timestamp>| at.map_or("now".to_owned(), |at| at.to_rfc3339());
        let from = format!("{} from {}", row.status, row.from_at.to_rfc3339());
        let after = format!("begins at {}, where the one before ends", text(row.before_to));
        let finding = match &*row.what {
            "overlap" => Finding::new(Check::SpanOverlap, after, from),
            "hole" => Finding::new(Check::SpanHole, after, from),
            _ => {
                let present = row.present.unwrap_or_default();
                let found = format!("{from} to {}", text(row.to_at));
                Finding::new(Check::SpanEnd, format!("{present}, to now"), found)
            }
        };
        finding
            .of(UserNo(row.user_no))
            .at([row.before_position, row.from_position])
            .about(row.from_position)
            .since(row.from_at)
            .in_view(version.view.name)
    };
    Ok(rows.into_iter().map(finding).collect())
}

/// The sums of `occupancy`.
pub(super) async fn totals(
    db: &mut PgConnection,
    versions: &[Version],
) -> Result<Vec<Finding>, Error> {
    let live =
        |version: &&Version| version.state == State::Live && version.view.name == "occupancy";
    let Some(version) = versions.iter().find(live) else { return Ok(Vec::new()) };
    let late: i64 = sqlx::query_scalar(
        "select count(*) from (select from current_status where position > $1 limit $2) late",
    )
    .bind(version.position)
    .bind(LATE_MAX + 1)
    .fetch_one(&mut *db)
    .await?;
    if late > LATE_MAX {
        return Ok(Vec::new());
    }
    let statement = View::statement(include_str!("totals.sql"), version.version);
    let (expected, found): (String, String) =
        sqlx::query_as(&statement).bind(version.position).fetch_one(db).await?;
    if expected == found {
        return Ok(Vec::new());
    }
    let finding = Finding::new(Check::OccupancyUnlikePresent, expected, found);
    Ok(vec![finding.at([version.position]).in_view(version.view.name)])
}
