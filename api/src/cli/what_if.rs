//! `rollcall what-if`.

use std::io::IsTerminal;
use std::time::Duration;

use domain::policy::PolicyPatch;
use indicatif::{ProgressBar, ProgressStyle};
use projections::db::Database;
use projections::what_if::work::{Worked, work};
use projections::what_if::{self, report};
use tokio_util::sync::CancellationToken;

use super::serve::Signals;
use super::{Failure, Opened, print};
use crate::config::{LogFormat, WhatIfArgs};
use crate::ops::what_if::WhatIfReport;
use crate::telemetry;

/// Users most changed that are printed.
const USERS_NAMED: i64 = 100;
/// Between two looks at what a server is working off.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Makes a what-if, goes on with one, or drops it; prints the comparison as JSON.
pub(super) async fn what_if(args: WhatIfArgs) -> Result<(), Failure> {
    telemetry::init_logs(LogFormat::Text);
    let mut signals = Signals::new()?;
    let opened = Opened::open(&args.database).await?;
    let stop = CancellationToken::new();
    let done = {
        let mut working = std::pin::pin!(run(&opened.url, &args, &stop));
        tokio::select! {
            done = &mut working => done,
            () = signals.any() => {
                stop.cancel();
                working.await
            }
        }
    };
    opened.close().await?;
    done
}

async fn run(url: &str, args: &WhatIfArgs, stop: &CancellationToken) -> Result<(), Failure> {
    let database = Database::new(url)?;
    database.migrate().await?;
    let pool = database.pool();
    let name = &args.name;
    let patch = args.policy().patch();
    let known = what_if::find(&pool, name).await?;
    if args.drop {
        if !what_if::forget(&pool, name).await? {
            return Err(format!("there is no what-if of the name {name}").into());
        }
    } else if patch != PolicyPatch::default() {
        what_if::create(&pool, name, &patch).await??;
    } else if known.is_none() {
        return Err("nothing is otherwise: give --lease-ms, --away-after-ms or the like".into());
    }
    worked_off(&database, args, stop).await?;
    if args.drop {
        return print(&format!("{name} is gone"));
    }
    let view = what_if::find(&pool, name).await?;
    let view = view.ok_or_else(|| format!("{name} was dropped by somebody else"))?;
    let report = report::read(&pool, name, USERS_NAMED).await?;
    print(&serde_json::to_string(&WhatIfReport::of(&view, report))?)
}

/// Works until it is finished, or watches a server that does.
async fn worked_off(
    database: &Database,
    args: &WhatIfArgs,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let bar = progress();
    loop {
        let worked = work(database, &args.name, stop, |(done, all)| {
            bar.set_length(all);
            bar.set_position(done);
        });
        match worked.await? {
            Worked::Finished => break,
            Worked::Stopped => {}
            Worked::Taken => tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            },
        }
        if stop.is_cancelled() {
            let name = &args.name;
            return Err(format!("stopped; `rollcall what-if {name}` or a server goes on").into());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// In positions of all passes over the log. Shown on a terminal only.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
