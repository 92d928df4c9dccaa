//! What follows the log: every view, page by page.
//!
//! Several nodes share the work without a leader: whoever gets the lock of a checkpoint takes the
//! next page, the others pass. A hint only wakes; the log is the truth.
//!
//! - [`fill`]: a build begins with one user after the other
//! - [`page`]: one page into one version of a view
//! - [`versions`]: how far each version is; builds begun, stopped, confirmed
//! - `swap`: a version that has caught up takes the live one's place

pub mod fill;
pub mod page;
mod swap;
pub mod versions;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::db::Database;
use crate::shared::Shared;
use page::{Pages, Step, Target};
use versions::{State, Version};

/// After a hint, before a look: what is written meanwhile comes in the same page.
const LINGER: Duration = Duration::from_millis(100);
/// Between two looks at the log, where no hint wakes.
pub const POLL: Duration = Duration::from_secs(1);
/// Longest rest after a page.
const REST_MAX: Duration = Duration::from_secs(5);
/// How long a live view rests after a page, in terms of the time that was appended meanwhile:
/// nobody has to wait for it, as answers are folded from the log where it is behind.
const REST_LIVE: u32 = 4;
/// Between two attempts while the database cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Follows the log until `stop`.
pub(crate) async fn run(database: Database, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connection: Option<PgConnection> = None;
    loop {
        let known = shared.roster.position();
        let moved = async {
            shared.roster.reached(known + 1).await;
            tokio::time::sleep(LINGER).await;
        };
        let pause = match round(&database, &shared, &mut connection, &stop).await {
            Ok(Step::More) => Duration::ZERO,
            Ok(Step::Idle | Step::Taken) => POLL,
            Err(error) => {
                tracing::warn!(%error, "views following the log");
                connection = None;
                RETRY_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = moved, if pause == POLL => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A page that a crash loses takes its checkpoint with it and is applied once more, so nobody has
/// to wait until it is on disk.
async fn connect(database: &Database) -> Result<PgConnection, Error> {
    let mut connection = database.server().await?;
    connection.execute("set synchronous_commit = off").await?;
    Ok(connection)
}

/// A page of every version that is to follow. [`Step::More`]: one of them has more to read.
async fn round(
    database: &Database,
    shared: &Shared,
    connection: &mut Option<PgConnection>,
    stop: &CancellationToken,
) -> Result<Step, Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(database).await?),
    };
    let all = versions::read(&mut *connection).await?;
    let mut more = Step::Idle;
    for version in all.iter().filter(|version| version.state.follows()) {
        version.show();
        let appending = shared.appending();
        if follow(database, connection, version).await? == Step::More {
            more = Step::More;
            // Whoever writes comes before a live view, and shares with a build, which somebody
            // waits for. Where nobody writes, there is nothing to rest for.
            let rests = if version.state == State::Live { REST_LIVE } else { 0 };
            let rest = shared.appending().saturating_sub(appending) * rests;
            if stop.run_until_cancelled(tokio::time::sleep(rest.min(REST_MAX))).await.is_none() {
                break;
            }
        }
    }
    Ok(more)
}

async fn follow(
    database: &Database,
    connection: &mut PgConnection,
    version: &Version,
) -> Result<Step, Error> {
    let target = Target { view: version.view, version: version.version };
    match version.state {
        State::Building if version.filling.is_some() => {
            fill::step(connection, target, Pages::BUILD.events).await
        }
        State::Building => {
            let step = page::step(connection, target, Pages::BUILD).await?;
            if step == Step::Idle {
                swap::swap(database, target).await?;
            }
            Ok(step)
        }
        State::Live => page::step(connection, target, Pages::LIVE).await,
        State::Stopped | State::Kept => Ok(Step::Idle),
    }
}

/// Builds one version until it is live, telling how far it is; beside a server or without one.
pub async fn build(
    database: &Database,
    target: Target,
    mut tell: impl FnMut(&Version),
) -> Result<(), Error> {
    let mut connection = connect(database).await?;
    loop {
        let all = versions::read(&mut connection).await?;
        let found =
            all.iter().find(|v| v.view.name == target.view.name && v.version == target.version);
        let Some(version) = found else {
            return Err(Error::Unsupported("the build was abandoned by somebody else".to_owned()));
        };
        tell(version);
        match version.state {
            State::Live | State::Kept => return Ok(()),
            State::Stopped => {
                return Err(Error::Unsupported(
                    "the build was stopped by somebody else".to_owned(),
                ));
            }
            State::Building => {}
        }
        if follow(database, &mut connection, version).await? == Step::Taken {
            tokio::time::sleep(LINGER).await;
        }
    }
}
