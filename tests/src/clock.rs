//! The test's time: the database's clock and a shift, which moves only when a test says so.
//!
//! Real time goes on underneath, so nothing here ever stands still; a test says how much *more*
//! time passes. Nodes follow, since every answer of `append` tells them `now`.

use std::time::Duration;

use domain::Timestamp;
use sqlx::{Executor, PgConnection, PgPool};

use crate::eventually;
use crate::node::TestNode;

/// One step of [`advance`]. With the real time that a slow machine adds to it, below the 5 s after
/// which `append` takes the silence for an outage.
const STEP: Duration = Duration::from_secs(3);

/// Puts the shift into a migrated database.
pub(crate) async fn install(owner: &mut PgConnection) {
    let statements = "
        create table test_clock (shift interval not null);
        insert into test_clock values (interval '0');
        grant select on test_clock to public;
        create or replace function log_clock() returns timestamptz language sql volatile
            set search_path from current as
            'select clock_timestamp() + (select shift from test_clock)';
        create or replace function intake_clock() returns timestamptz language sql stable
            set search_path from current as
            'select statement_timestamp() + (select shift from test_clock)';";
    owner.execute(statements).await.unwrap();
}

/// Time passes, with nodes that listen: no step looks like an outage.
pub(crate) async fn advance(pool: &PgPool, nodes: &[TestNode], by: Duration) {
    tick(nodes).await;
    let mut left = by;
    while !left.is_zero() {
        let step = left.min(STEP);
        shift(pool, step).await;
        tick(nodes).await;
        left -= step;
    }
    heard(pool, nodes).await;
}

/// Time passes in one jump, as if nobody had listened meanwhile.
pub(crate) async fn outage(pool: &PgPool, nodes: &[TestNode], by: Duration) {
    shift(pool, by).await;
    tick(nodes).await;
    heard(pool, nodes).await;
}

/// Waits until every node's clock has come after: one who finds that others have appended after a
/// silence reads what they did before it believes their time.
async fn heard(pool: &PgPool, nodes: &[TestNode]) {
    let newest = "select recorded_at from batch order by batch_no desc limit 1";
    let newest: Timestamp = sqlx::query_scalar(newest).fetch_one(pool).await.unwrap();
    for node in nodes {
        eventually("the node's clock follows", async || node.realm().now() >= newest).await;
    }
}

/// The database's now.
pub(crate) async fn now(pool: &PgPool) -> Timestamp {
    sqlx::query_scalar("select log_clock()").fetch_one(pool).await.unwrap()
}

/// Moves the clock alone; nobody hears of it but by the next batch.
pub async fn shift(pool: &PgPool, by: Duration) {
    sqlx::query("update test_clock set shift = shift + $1 * interval '1 microsecond'")
        .bind(i64::try_from(by.as_micros()).unwrap())
        .execute(pool)
        .await
        .unwrap();
}

async fn tick(nodes: &[TestNode]) {
    for node in nodes {
        node.realm().tick().await.unwrap();
    }
}
