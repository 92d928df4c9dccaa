//! `rollcall compare`.

use std::collections::{HashMap, HashSet};

use domain::{UserId, UserNo};
use indicatif::ProgressBar;
use projections::db::Database;
use projections::present::{Present, Reader};

use super::import::{Input, header, open, progress};
use super::{Failure, Opened, print};
use crate::compare::{CompareAs, Comparison, Ours};
use crate::config::{CompareArgs, LogFormat};
use crate::import::Rejected;
use crate::import::http::unreadable;
use crate::import::lines::{Line, Lines};
use crate::import::status_csv::{Row, StatusCsv};
use crate::telemetry;

/// Users compared in one snapshot.
const CHUNK_USERS: usize = 1_000;

/// Prints where the two disagree. True: nowhere. Reads only; beside a server or without one.
pub(super) async fn compare(args: CompareArgs) -> Result<bool, Failure> {
    telemetry::init_logs(LogFormat::Text);
    let (input, length) = open(&args.file).await?;
    let opened = Opened::open(&args.database).await?;
    let compared = read(&opened.url, &args, input, progress(length)).await;
    opened.close().await?;
    let comparison = compared?;
    if args.json {
        print(&serde_json::to_string(&comparison)?)?;
        return Ok(comparison.agrees());
    }
    for difference in &comparison.differences {
        print(&difference.to_string())?;
    }
    for rejected in &comparison.rejected {
        eprintln!("line {}: {}: {}", rejected.line, rejected.code, rejected.detail);
    }
    let Comparison { compared, same, different, rejected_count, .. } = &comparison;
    eprintln!("{compared} compared, {same} the same, {different} not, {rejected_count} rejected");
    Ok(comparison.agrees())
}

/// A comparison under way.
struct Work {
    reader: Reader,
    words: CompareAs,
    lease_ms: u32,
    /// Whom they list.
    theirs: HashSet<UserId>,
    /// Users of ours among them.
    listed: HashSet<UserNo>,
    comparison: Comparison,
}

async fn read(
    url: &str,
    args: &CompareArgs,
    input: Input,
    bar: ProgressBar,
) -> Result<Comparison, Failure> {
    let mut lines = Lines::new(input);
    let table: StatusCsv = header(&mut lines).await?;
    let mut reader = Reader::connect(&Database::new(url)?).await?;
    let policy = reader.policy().await?;
    let mut work = Work {
        reader,
        words: args.words.for_table(&table),
        lease_ms: policy.lease_ms.max(policy.interaction_lease_ms),
        theirs: HashSet::new(),
        listed: HashSet::new(),
        comparison: Comparison::default(),
    };
    let mut rows = Vec::with_capacity(CHUNK_USERS);
    while let Some(line) = lines.next().await? {
        let row = match &line {
            Line::Text(text) => table.row(lines.count, text),
            Line::TooLong | Line::NotText => Err(unreadable(lines.count, &line)),
        };
        match row {
            Ok(row) => rows.extend(row),
            Err(rejected) => work.comparison.reject(rejected),
        }
        if rows.len() >= CHUNK_USERS {
            work.rows(&std::mem::take(&mut rows)).await?;
            bar.set_position(lines.bytes);
        }
    }
    work.rows(&rows).await?;
    work.not_listed().await?;
    bar.finish_and_clear();
    Ok(work.comparison)
}

impl Work {
    async fn rows(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let names: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
        let Present { at, users, ended } = self.reader.by_name(&names).await?;
        let known: HashMap<UserId, _> =
            users.into_iter().map(|user| (user.user_id.clone(), user)).collect();
        for row in rows {
            if !self.theirs.insert(row.user_id.clone()) {
                let detail = format!("{} stands in an earlier line", row.user_id);
                self.comparison.reject(Rejected::new(row.line, "listed_twice", detail));
                continue;
            }
            // A name that was only made, as that of a token's bearer, is nobody who was ever seen.
            let user = known.get(&row.user_id).filter(|user| user.state.seen());
            let ours = user
                .map(|user| Ours { state: &user.state, ended: ended.get(&user.user_no).copied() });
            self.listed.extend(user.map(|user| user.user_no));
            self.comparison.row(row, ours.as_ref(), self.words, (at, self.lease_ms));
        }
        Ok(())
    }

    /// Whoever is here and does not stand in their table.
    async fn not_listed(&mut self) -> Result<(), Failure> {
        let mut above = UserNo(0);
        loop {
            let present = self.reader.with_sessions(above, CHUNK_USERS as i64).await?;
            let Some(last) = present.users.iter().map(|user| user.user_no).max() else {
                return Ok(());
            };
            above = last;
            for user in present.users.iter().filter(|user| !self.listed.contains(&user.user_no)) {
                self.comparison.not_listed(user.user_id.as_str(), &user.state);
            }
        }
    }
}
