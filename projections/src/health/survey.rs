//! Everything once: for whoever asks now, and for the doctor.

use std::time::Duration;

use domain::Timestamp;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep_until};

use super::finding::{Check, Finding, Key, note_damage};
use super::look::{Depth, home, look};
use super::scope::{Cursor, Scope};
use super::watch::behind;
use super::{CONFIRM_AFTER, WallClock, system};
use crate::Error;
use crate::clock::SILENCE;
use crate::follow::versions::{self, Version};

/// What a survey found.
#[derive(Debug)]
pub struct Survey {
    /// Everything that was found twice, a moment apart.
    pub findings: Vec<Finding>,
    /// The log's newest time at the end.
    pub checked_at: Timestamp,
    /// All of it was looked at.
    pub complete: bool,
}

/// How far a survey is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is looked at: users, log, ended, totals, again.
    pub stage: &'static str,
    /// How far, in the stage's own numbers; `of` is its end.
    pub done: u64,
    /// The end.
    pub of: u64,
}

/// Looks at everything, or as far as it comes by `deadline`.
pub(crate) async fn survey(
    db: &mut PgConnection,
    wall: WallClock,
    deadline: Option<Instant>,
    mut tell: impl FnMut(Progress),
) -> Result<Survey, Error> {
    let depth = if deadline.is_some() { Depth::Slice } else { Depth::Whole };
    let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
    let began = Instant::now();
    let before = versions::read(&mut *db).await?;
    let mut suspects: Vec<(Scope, Vec<Key>)> = Vec::new();
    let system = note(db, &Scope::System, depth, &mut suspects).await?;
    let mut checked_at = system.ok_or(Error::TooSlow)?;
    let mut complete = true;
    for mut cursor in Cursor::ALL {
        let (stage, of) = stage(db, &cursor).await?;
        while complete && let Some(scope) = cursor.next(db).await? {
            let looked_at = note(db, &scope, depth, &mut suspects).await?;
            checked_at = looked_at.unwrap_or(checked_at);
            tell(Progress { stage, done: reached(&cursor, of), of });
            complete = looked_at.is_some() && in_time();
        }
    }
    // A moment later it must still be so. Views that were behind have had this time to move.
    let lagging = before.iter().any(|version| version.position < version.head);
    if lagging || !suspects.is_empty() {
        sleep_until(began + CONFIRM_AFTER).await;
        sleep_until(Instant::now() + CONFIRM_PAUSE).await;
    }
    let mut findings = Vec::new();
    let of = suspects.len() as u64;
    for (done, (scope, keys)) in suspects.into_iter().enumerate() {
        match look(db, &scope, depth).await {
            Err(error) if error.is_cut_off() => complete = false,
            looked => {
                let again = looked?.findings.into_iter();
                findings.extend(again.filter(|found| keys.contains(&found.key())));
            }
        }
        tell(Progress { stage: "again", done: done as u64 + 1, of });
    }
    findings.extend(system::skew(db, wall).await?);
    findings.extend(unmoved(db, &before).await?);
    for finding in &mut findings {
        finding.since.get_or_insert(checked_at);
    }
    findings.sort_by_key(Finding::key);
    findings.dedup_by_key(|finding| finding.key());
    note_damage(&mut findings);
    Ok(Survey { findings, checked_at, complete })
}

/// From the last look of the first round to the first of the second.
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// Looks, and keeps what has to be looked at again. None: it was cut off, as it took too long.
async fn note(
    db: &mut PgConnection,
    scope: &Scope,
    depth: Depth,
    suspects: &mut Vec<(Scope, Vec<Key>)>,
) -> Result<Option<Timestamp>, Error> {
    let looked = match look(db, scope, depth).await {
        Err(error) if error.is_cut_off() => return Ok(None),
        looked => looked?,
    };
    for finding in looked.findings {
        let (home, key) = (home(&finding, scope), finding.key());
        match suspects.iter_mut().find(|(scope, _)| *scope == home) {
            Some((_, keys)) => keys.push(key),
            None => suspects.push((home, vec![key])),
        }
    }
    Ok(Some(looked.now))
}

/// A stage's name and its end.
async fn stage(db: &mut PgConnection, cursor: &Cursor) -> Result<(&'static str, u64), Error> {
    let (stage, statement) = match cursor {
        Cursor::Users(_) => ("users", "select coalesce(max(user_no), 0) from account"),
        Cursor::Log(_) => {
            ("log", "select coalesce((select head from batch order by batch_no desc limit 1), 0)")
        }
        Cursor::Ended(_) => ("ended", "select 1::bigint"),
        Cursor::Totals | Cursor::Done => ("totals", "select 1::bigint"),
    };
    let of: i64 = sqlx::query_scalar(statement).fetch_one(db).await?;
    Ok((stage, of.unsigned_abs()))
}

fn reached(cursor: &Cursor, of: u64) -> u64 {
    match cursor {
        Cursor::Users(at) | Cursor::Log(at) => at.unsigned_abs().min(of),
        Cursor::Ended(_) => 0,
        Cursor::Totals | Cursor::Done => of,
    }
}

/// Views that were behind and have not come to where the log stood then. Where no node runs, nobody
/// follows, and they catch up when one starts.
async fn unmoved(db: &mut PgConnection, before: &[Version]) -> Result<Vec<Finding>, Error> {
    let listened: bool = sqlx::query_scalar(
        "select coalesce((select log_clock() - recorded_at < $1 * interval '1 millisecond'
                            from batch order by batch_no desc limit 1), false)",
    )
    .bind(SILENCE.num_milliseconds() as f64)
    .fetch_one(&mut *db)
    .await?;
    if !listened {
        return Ok(Vec::new());
    }
    let after = versions::read(db).await?;
    let follows = after.iter().filter(|version| version.state.follows());
    let late = follows.filter_map(|now| {
        let then = before
            .iter()
            .find(|then| (then.view.name, then.version) == (now.view.name, now.version))?;
        let still = (now.position, now.filling) == (then.position, then.filling);
        let check = if still { Check::ViewStuck } else { Check::ViewLagging };
        let counts = now.state == versions::State::Live || check == Check::ViewStuck;
        (counts && now.lacks(then.head)).then(|| behind(check, now))
    });
    Ok(late.collect())
}
