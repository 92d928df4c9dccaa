//! The versions of every view: how far each is; builds begun, stopped, confirmed, taken back.

use domain::{Position, Timestamp};
use sqlx::{Connection, FromRow, PgConnection};

use crate::Error;
use crate::db::Database;
use crate::views::{self, View};

/// What a version is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Filled beside the live one.
    Building,
    /// Filled in part, until somebody goes on.
    Stopped,
    /// What readers are shown.
    Live,
    /// What was live before, until the change is confirmed.
    Kept,
}

impl State {
    /// The stored name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Stopped => "stopped",
            Self::Live => "live",
            Self::Kept => "kept",
        }
    }

    /// Whether it takes new pages in.
    pub const fn follows(self) -> bool {
        match self {
            Self::Building | Self::Live => true,
            Self::Stopped | Self::Kept => false,
        }
    }
}

/// One version of a view.
#[derive(Debug, Clone)]
pub struct Version {
    /// Which view.
    pub view: &'static View,
    /// Which version, from 1.
    pub version: i32,
    /// What it is for.
    pub state: State,
    /// All events at or below it are in; while it is being filled, of those users who are in.
    pub position: Position,
    /// Which users that are; none: everybody.
    pub filling: Option<Filling>,
    /// The log's newest position.
    pub head: Position,
    /// How long ago it was up to date, by the database's clock, in milliseconds; 0 at the head.
    pub lag_ms: i64,
    /// When anybody last looked after it.
    pub moved_at: Timestamp,
    /// Users set aside: their events wait.
    pub waiting: i64,
}

/// How far a build is that begins with one user after the other, in users' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    /// The last user who is in, as at the version's position.
    pub to: i64,
    /// The newest user.
    pub of: i64,
}

#[derive(FromRow)]
struct Row {
    view: String,
    version: i32,
    state: String,
    position: Position,
    filled_to: Option<i64>,
    users: i64,
    head: Position,
    lag_ms: i64,
    moved_at: Timestamp,
    waiting: i64,
}

/// All versions, oldest first within a view.
pub async fn read(executor: impl sqlx::PgExecutor<'_>) -> Result<Vec<Version>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "select v.view, v.version, v.state, v.position, v.filled_to, v.moved_at, h.head,
                coalesce((select max(user_no) from account), 0) as users,
                case when v.position >= h.head and v.filled_to is null then 0
                     else greatest(0, (extract(epoch from
                    h.recorded_at - coalesce(v.applied_to, v.made_at)) * 1000)::bigint) end
                    as lag_ms,
                (select count(distinct d.user_no) from dead_letter d
                  where d.view = v.view and d.version = v.version) as waiting
           from view_version v
          cross join (select coalesce(max(head), 0) as head, max(recorded_at) as recorded_at
                        from (select head, recorded_at from batch
                               order by batch_no desc limit 1) newest) h
          order by v.view, v.version",
    )
    .fetch_all(executor)
    .await?;
    // A view that only a newer release knows is that release's to follow.
    Ok(rows.iter().filter_map(version).collect())
}

fn version(row: &Row) -> Option<Version> {
    let states = [State::Building, State::Stopped, State::Live, State::Kept];
    Some(Version {
        view: views::find(&row.view)?,
        version: row.version,
        state: states.into_iter().find(|state| state.as_str() == row.state)?,
        position: row.position,
        filling: row.filled_to.map(|to| Filling { to, of: row.users }),
        head: row.head,
        lag_ms: row.lag_ms,
        moved_at: row.moved_at,
        waiting: row.waiting,
    })
}

impl Version {
    /// Whether anything is not in yet that the log had when `head` was its newest position.
    pub(crate) fn lacks(&self, head: Position) -> bool {
        self.position < head || self.filling.is_some()
    }

    /// Shows it in the metrics.
    pub(crate) fn show(&self) {
        let labels = [("view", self.view.name), ("state", self.state.as_str())];
        let behind = (self.head - self.position).max(0);
        metrics::gauge!("rollcall_view_lag_positions", &labels).set(behind as f64);
        metrics::gauge!("rollcall_view_lag_seconds", &labels).set(self.lag_ms as f64 / 1000.0);
        metrics::gauge!("rollcall_view_waiting_users", &labels).set(self.waiting as f64);
    }
}

/// What may be done with the versions of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Begin a new version, or go on with one that was stopped. What was kept until now goes.
    Build,
    /// Stop building, and keep what there is.
    Stop,
    /// Throw the version that is being built away.
    Abandon,
    /// The change was good: drop what was live before.
    Confirm,
    /// The change was not good: what was live before catches up and takes its place again.
    TakeBack,
}

/// Why it could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing being built.
    #[error("nothing is being built")]
    NothingBuilding,
    /// There is nothing kept.
    #[error("no former version is kept")]
    NothingKept,
    /// Another build is under way.
    #[error("a build is under way")]
    Building,
}

/// Changes the versions of a view; the version that it was about.
pub async fn change(
    database: &Database,
    view: &'static View,
    change: Change,
) -> Result<Result<i32, Refusal>, Error> {
    let mut connection = database.owner().await?;
    let mut transaction = connection.begin().await?;
    // One change of a view at a time, and each sees what the one before it has made: whoever waits
    // for rows alone is not shown those that were added meanwhile.
    sqlx::query(
        "select pg_advisory_xact_lock(
                    hashtextextended('versions of ' || $1 || ' of ' || current_schema(), 0))",
    )
    .bind(view.name)
    .execute(&mut *transaction)
    .await?;
    let rows: Vec<(i32, String)> = sqlx::query_as(
        "select version, state from view_version where view = $1 order by version for update",
    )
    .bind(view.name)
    .fetch_all(&mut *transaction)
    .await?;
    let of =
        |state: State| rows.iter().find(|(_, s)| s == state.as_str()).map(|(number, _)| *number);
    let unfinished = of(State::Building).or(of(State::Stopped));
    let kept = of(State::Kept);
    let done = match (change, unfinished, kept) {
        (Change::Build, Some(version), _) | (Change::TakeBack, None, Some(version)) => {
            set_state(&mut transaction, view, version, State::Building).await?;
            Ok(version)
        }
        (Change::Build, None, kept) => {
            if let Some(kept) = kept {
                drop_version(&mut transaction, view, kept).await?;
            }
            let next = rows.iter().map(|(number, _)| number).max().map_or(1, |newest| newest + 1);
            begin(&mut transaction, view, next).await?;
            Ok(next)
        }
        (Change::Stop, Some(version), _) => {
            set_state(&mut transaction, view, version, State::Stopped).await?;
            Ok(version)
        }
        (Change::Abandon, Some(version), _) | (Change::Confirm, _, Some(version)) => {
            drop_version(&mut transaction, view, version).await?;
            Ok(version)
        }
        (Change::TakeBack, Some(_), Some(_)) => Err(Refusal::Building),
        (Change::Stop | Change::Abandon, None, _) => Err(Refusal::NothingBuilding),
        (Change::Confirm | Change::TakeBack, _, None) => Err(Refusal::NothingKept),
    };
    transaction.commit().await?;
    connection.close().await?;
    Ok(done)
}

async fn begin(connection: &mut PgConnection, view: &View, version: i32) -> Result<(), Error> {
    sqlx::query("select make_view($1, $2)")
        .bind(view.name)
        .bind(version)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into view_version (view, version, state, position, filled_to)
         select $1, $2, 'building',
                case when $3 then coalesce((select max(head) from batch), 0) else 0 end,
                case when $3 then 0 end",
    )
    .bind(view.name)
    .bind(version)
    .bind(view.fills)
    .execute(connection)
    .await?;
    Ok(())
}

async fn drop_version(
    connection: &mut PgConnection,
    view: &View,
    version: i32,
) -> Result<(), Error> {
    sqlx::query("select drop_view($1, $2)")
        .bind(view.name)
        .bind(version)
        .execute(connection)
        .await?;
    Ok(())
}

async fn set_state(
    connection: &mut PgConnection,
    view: &View,
    version: i32,
    state: State,
) -> Result<(), Error> {
    sqlx::query("update view_version set state = $3 where view = $1 and version = $2")
        .bind(view.name)
        .bind(version)
        .bind(state.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
