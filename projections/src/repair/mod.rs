//! What is made from the log, made from it again. The log itself is never touched.
//!
//! Each repair is a row of `repair`: see `migrations/0013_repair.sql`. Nodes follow those of the
//! present like revocations, since their memory came from the row that was wrong.

mod present;
mod view;

use std::collections::BTreeSet;

use domain::UserNo;
use sqlx::PgConnection;

use crate::db::Database;
use crate::follow::versions;
use crate::health::finding::damage;
use crate::health::{Check, Finding, Remedy};
use crate::shared::Shared;
use crate::{Error, load};

/// One attempt at something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// `present`, or the name of a view.
    pub what: &'static str,
    /// Whose; none: everybody's.
    pub user_no: Option<UserNo>,
    /// Why it was left as it is; none: it was folded anew.
    pub kept: Option<String>,
}

/// Folds anew whatever these findings are about, as far as that mends it. Of a log that was itself
/// changed nothing is folded: what was made from it before may be all that is left of the truth.
pub async fn repair(
    database: &Database,
    findings: &[Finding],
    mut tell: impl FnMut(&Repair),
) -> Result<Vec<Repair>, Error> {
    let mut db = database.owner().await?;
    let mut repairs = Vec::new();
    let mut note = |repair: Repair| {
        tell(&repair);
        repairs.push(repair);
    };
    for user in users(findings, Remedy::Present) {
        let kept = match damaged(findings, Some(user)) {
            None => present::repair(&mut db, user, &orphans(findings, user)).await?,
            damaged => damaged,
        };
        note(Repair { what: "present", user_no: Some(user), kept });
    }
    let of_views = findings.iter().filter(|finding| finding.check.remedy() == Remedy::View);
    let parts: BTreeSet<_> =
        of_views.map(|f| (f.view.unwrap_or_default(), f.user_no.unwrap_or_default())).collect();
    let all = versions::read(&mut db).await?;
    for (view, user) in parts {
        for version in all.iter().filter(|v| v.view.name == view && v.state.follows()) {
            let kept = match damaged(findings, Some(user)) {
                None => view::repair(&mut db, version, user).await?,
                damaged => damaged,
            };
            note(Repair { what: version.view.name, user_no: Some(user), kept });
        }
    }
    for finding in findings.iter().filter(|finding| finding.check.remedy() == Remedy::Sums) {
        if let Some(version) = all.iter().find(|v| Some(v.view.name) == finding.view) {
            let kept = match damaged(findings, None) {
                None => view::build_anew(database, version.view).await?,
                damaged => damaged,
            };
            note(Repair { what: version.view.name, user_no: None, kept });
        }
    }
    Ok(repairs)
}

/// Some: why nothing is folded from that user's log, or from anybody's.
fn damaged(findings: &[Finding], user: Option<UserNo>) -> Option<String> {
    damage(findings, user).map(damaged_by)
}

fn damaged_by(damage: &Finding) -> String {
    let (check, positions) = (damage.check.as_str(), &damage.positions);
    format!("the log itself is damaged: {check} {positions:?}")
}

fn users(findings: &[Finding], remedy: Remedy) -> BTreeSet<UserNo> {
    let ours = findings.iter().filter(|finding| finding.check.remedy() == remedy);
    ours.filter_map(|finding| finding.user_no).collect()
}

/// Ended sessions of that user that the log does not know.
fn orphans(findings: &[Finding], user: UserNo) -> Vec<domain::SessionId> {
    let ours = findings.iter().filter(|f| f.check == Check::Orphan && f.user_no == Some(user));
    ours.filter_map(|finding| finding.subject.parse().ok()).collect()
}

/// The newest repair of a present.
pub(crate) async fn newest(db: &mut PgConnection) -> Result<i64, Error> {
    let newest = "select coalesce(max(repair_no), 0) from repair where what = 'present'";
    Ok(sqlx::query_scalar(newest).fetch_one(db).await?)
}

/// Reads anew whose present was repaired. Repairs of the present commit in the order of their
/// numbers, since all of them hold the append lock.
pub(crate) async fn hear(shared: &Shared, db: &mut PgConnection) -> Result<(), Error> {
    let repaired: Vec<(i64, i64)> = sqlx::query_as(
        "select repair_no, user_no from repair where what = 'present' and repair_no > $1
          order by repair_no",
    )
    .bind(shared.repairs_heard())
    .fetch_all(&mut *db)
    .await?;
    let Some((newest, _)) = repaired.last().copied() else { return Ok(()) };
    for user in repaired.into_iter().map(|(_, user)| UserNo(user)).collect::<BTreeSet<_>>() {
        // Before the database is asked: what this node has appended since is newer than either.
        let doubted = shared.roster.read(user, |entry| entry.position).unwrap_or_default();
        for loaded in load::by_number(&mut *db, &[user]).await? {
            shared.roster.correct(loaded, doubted);
        }
        tracing::info!(user_no = %user, "a repaired present: read anew");
    }
    shared.set_repairs_heard(newest);
    Ok(())
}
