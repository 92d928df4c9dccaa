//! `rollcall rebuild`.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use projections::db::Database;
use projections::follow::build;
use projections::follow::page::Target;
use projections::follow::versions::{self, Change, Filling, Refusal};
use projections::views::View;

use super::serve::Signals;
use super::{Failure, Opened, print};
use crate::config::{LogFormat, RebuildArgs};
use crate::telemetry;

/// Builds views anew, beside a running server or without one; or settles what came of a build.
pub(super) async fn rebuild(args: RebuildArgs) -> Result<(), Failure> {
    telemetry::init_logs(LogFormat::Text);
    let mut signals = Signals::new()?;
    let opened = Opened::open(&args.database).await?;
    let done = all(&opened.url, &args, &mut signals).await;
    opened.close().await?;
    done
}

async fn all(url: &str, args: &RebuildArgs, signals: &mut Signals) -> Result<(), Failure> {
    let database = Database::new(url)?;
    database.migrate().await?;
    let change = args.change();
    let mut refused = None;
    for view in args.views() {
        let version = match versions::change(&database, view, change).await? {
            Ok(version) => version,
            // Of the others there may be something to do.
            Err(refusal) => {
                refused = Some(format!("{}: {refusal}", view.name));
                continue;
            }
        };
        let name = view.name;
        match change {
            Change::Build | Change::TakeBack => {
                watch(&database, Target { view, version }, signals).await?;
                print(&format!(
                    "{name}: version {version} is live; the former one is kept until \
                     `rollcall rebuild {name} --confirm`, and comes back with --take-back"
                ))?;
            }
            Change::Stop => print(&format!(
                "{name}: version {version} is stopped; `rollcall rebuild {name}` goes on with it"
            ))?,
            Change::Abandon => print(&format!("{name}: version {version} is gone"))?,
            Change::Confirm => {
                print(&format!("{name}: the former version, {version}, is gone"))?;
            }
        }
    }
    refused.map_or(Ok(()), |refused| Err(refused.into()))
}

/// Builds until the version is live. Whoever interrupts stops the build, also that of a server.
async fn watch(database: &Database, target: Target, signals: &mut Signals) -> Result<(), Failure> {
    let bar = progress(target.view);
    let building = build(database, target, |version| {
        let (done, of) = match version.filling {
            Some(Filling { to, of }) => (to, of),
            None => (version.position, version.head),
        };
        bar.set_length(of.unsigned_abs());
        bar.set_position(done.unsigned_abs());
    });
    let built = tokio::select! {
        built = building => Some(built),
        () = signals.any() => None,
    };
    bar.finish_and_clear();
    if let Some(built) = built {
        return Ok(built?);
    }
    match versions::change(database, target.view, Change::Stop).await? {
        Ok(_) => {
            let name = target.view.name;
            Err(format!("{name}: stopped; `rollcall rebuild {name}` goes on where it stood").into())
        }
        // It became live in the last moment.
        Err(Refusal::NothingBuilding | Refusal::NothingKept | Refusal::Building) => Ok(()),
    }
}

/// In users where the build begins with them, then in positions up to the log's head, which moves.
/// Shown on a terminal only.
fn progress(view: &View) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(view.name)
}
