//! Records what time does by itself: a little behind each deadline, on every node, without harm.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use domain::{Command, UserNo};
use futures::stream::{self, StreamExt};
use projections::{Asked, Error, Executed, Realm, due};
use tokio_util::sync::CancellationToken;

/// How far behind a deadline it is recorded: a heartbeat that was taken in before the deadline may
/// still be on its way, and wins.
pub const BEHIND: TimeDelta = TimeDelta::milliseconds(500);
/// Between two looks, where nothing more is known to be due.
pub const PAUSE: Duration = Duration::from_millis(250);
/// Users settled at one time.
const AT_ONCE: usize = 1_024;

/// The sweeper of one node.
#[derive(Debug)]
pub struct Sweeper {
    realm: Arc<Realm>,
}

/// Whether another step would find something at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There may be more.
    More,
    /// Nothing is due.
    Idle,
}

impl Sweeper {
    /// Over one realm.
    pub fn new(realm: Arc<Realm>) -> Self {
        Self { realm }
    }

    /// Sweeps until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.step().await {
                Ok(Step::More) => Duration::ZERO,
                Ok(Step::Idle) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "sweeping");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once, and records what it finds.
    pub async fn step(&self) -> Result<Step, Error> {
        let now = self.realm.now() - BEHIND;
        let due = due::due(self.realm.pool(), &self.realm.silences(), now).await?;
        if !due.rechecks.is_empty() {
            self.realm.recheck(due.rechecks).await?;
        }
        let mut settled =
            stream::iter(due.users).map(|user| self.settle(user)).buffer_unordered(AT_ONCE);
        let mut count = 0;
        while let Some(done) = settled.next().await {
            count += usize::from(done);
        }
        // Users who cannot be settled must not be asked for again and again without a pause.
        Ok(if due.more && count > 0 { Step::More } else { Step::Idle })
    }

    /// Whether it was done. One user who cannot be settled holds nobody else up.
    async fn settle(&self, user: UserNo) -> bool {
        match self.realm.execute(user, &Command::Settle, Asked::by(None)).await {
            Ok(Executed::Done(_)) => true,
            Ok(Executed::SessionEnded | Executed::KeyKnown) | Err(Error::Overtaken(_)) => {
                tracing::debug!(user_no = %user, "overtaken while settling: it will be due again");
                false
            }
            Err(error) => {
                tracing::warn!(user_no = %user, %error, "settling: it will be due again");
                false
            }
        }
    }
}
