//! `rollcall doctor`: every check once, whole; and what can be folded anew, folded anew.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use projections::db::Database;
use projections::health::{self, Finding, Progress, Remedy, Survey};
use projections::repair::{self, Repair};
use serde::Serialize;

use super::{Failure, Opened, print};
use crate::config::{DoctorArgs, LogFormat};
use crate::ops::health::FindingsBody;
use crate::telemetry;

/// The exit status of a doctor who found something that is left.
const FINDINGS: u8 = 3;
/// Rounds of repair: a node that has not heard of the first may write what it knew once more.
const ROUNDS_MAX: usize = 3;
/// Nodes hear of a repaired present within this.
const HEARD_AFTER: Duration = Duration::from_secs(1);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    left: FindingsBody,
    /// What was found before anything was repaired; with `--repair` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<FindingsBody>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repairs: Vec<RepairBody>,
}

#[derive(Debug, Serialize)]
struct RepairBody {
    what: &'static str,
    user_no: Option<i64>,
    /// The outside name, where there is one.
    user_id: Option<String>,
    /// Why it was left as it is.
    kept: Option<String>,
}

impl RepairBody {
    /// Of something that was found.
    fn of(repair: &Repair, found: &[Finding]) -> Self {
        let user = repair.user_no.filter(|user| user.0 > 0);
        let named = found.iter().find(|finding| user.is_some() && finding.user_no == user);
        Self {
            what: repair.what,
            user_no: user.map(|user| user.0),
            user_id: named.and_then(|found| found.user_id.as_ref()).map(ToString::to_string),
            kept: repair.kept.clone(),
        }
    }
}

/// Exit status: 0 nothing is left, 3 something is.
pub(super) async fn doctor(args: DoctorArgs) -> Result<ExitCode, Failure> {
    telemetry::init_logs(LogFormat::Text);
    let opened = Opened::open(&args.database).await?;
    let done = async { examine(&Database::new(&opened.url)?, &args).await }.await;
    opened.close().await?;
    done
}

async fn examine(database: &Database, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut left = survey(database).await?;
    let mut repairs = Vec::new();
    let mut before = None;
    for _ in 0..ROUNDS_MAX {
        if !args.repair || !left.findings.iter().any(repairable) {
            break;
        }
        before.get_or_insert_with(|| FindingsBody::from(&left));
        let done = repair::repair(database, &left.findings, |_| {}).await?;
        let mended = done.iter().any(|repair| repair.kept.is_none());
        // What was kept has just been tried again.
        repairs.retain(|repair: &RepairBody| repair.kept.is_none());
        repairs.extend(done.iter().map(|repair| RepairBody::of(repair, &left.findings)));
        tokio::time::sleep(HEARD_AFTER).await;
        left = survey(database).await?;
        if !mended {
            break;
        }
    }
    let code = if left.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) };
    if args.json {
        let left = FindingsBody::from(&left);
        print(&serde_json::to_string(&Report { left, before, repairs })?)?;
    } else {
        tell(&left, &repairs)?;
    }
    Ok(code)
}

fn repairable(finding: &Finding) -> bool {
    match finding.check.remedy() {
        Remedy::Present | Remedy::View | Remedy::Sums => true,
        Remedy::Log | Remedy::None => false,
    }
}

async fn survey(database: &Database) -> Result<Survey, Failure> {
    let bar = progress();
    let told = health::examine(database, chrono::Utc::now, |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    Ok(told?)
}

/// Shown on a terminal only.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:>6} {wide_bar} {human_pos}/{human_len} {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress) {
    if bar.message() != progress.stage {
        bar.set_message(progress.stage);
        bar.reset_eta();
    }
    bar.set_length(progress.of);
    bar.set_position(progress.done);
}

fn tell(left: &Survey, repairs: &[RepairBody]) -> Result<(), Failure> {
    for RepairBody { what, user_no, user_id, kept } in repairs {
        let whose = match (user_id, user_no) {
            (Some(name), _) => format!(" of {name}"),
            (None, Some(number)) => format!(" of user {number}"),
            (None, None) => String::new(),
        };
        match kept {
            None => print(&format!("{what}{whose}: folded anew"))?,
            Some(why) => print(&format!("{what}{whose}: kept as it is: {why}"))?,
        }
    }
    for finding in &left.findings {
        let (check, severity) = (finding.check, finding.check.severity().as_str());
        let view = finding.view.map_or_else(String::new, |view| format!(" in {view}"));
        let whose = finding.user_id.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
        print(&format!("{severity}: {}{view}{whose}", check.as_str()))?;
        print(&format!("    expected  {}", finding.expected))?;
        print(&format!("    found     {}", finding.found))?;
        if let Some(since) = finding.since {
            print(&format!("    since     {}", since.to_rfc3339()))?;
        }
        if !finding.positions.is_empty() {
            let positions: Vec<String> = finding.positions.iter().map(i64::to_string).collect();
            print(&format!("    positions {}", positions.join(", ")))?;
        }
        print(&format!("    advice    {}", finding.advice()))?;
    }
    let count = left.findings.len();
    print(&if count == 0 { "no findings".to_owned() } else { format!("findings: {count}") })
}
