//! `rollcall rebuild`: the real binary, interrupted and killed, beside a server and without one.

use std::process::Stdio;

use futures::future::join_all;
use projections::db::Database;
use projections::follow::build;
use projections::follow::page::Target;
use projections::follow::versions::{self, Change};
use projections::views::VIEWS;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tests::process::{Ran, rollcall, run};
use tests::{World, eventually, fold};
use tokio::process::Child;

async fn rebuild<const N: usize>(world: &World, args: [&str; N]) -> Ran {
    let mut command = rollcall();
    command.arg("rebuild").args(args).args(["--database-url", &world.database.url]);
    Ran::of(&mut command).await
}

/// Some people's morning.
async fn morning(world: &World) {
    for n in 0..6 {
        let user = world.user(&format!("u{n}"));
        let session = user.login().await;
        user.login_idle(if n % 2 == 0 { 400_000 } else { 0 }).await;
        if n % 3 == 0 {
            user.logout(&session).await.expect(200);
        }
    }
    world.advance_s(125).await;
}

async fn versions(world: &World, view: &str) -> Vec<(i32, String)> {
    let found = "select version, state from view_version where view = $1 order by version";
    sqlx::query_as(found).bind(view).fetch_all(&world.pool).await.unwrap()
}

fn states(expected: &[(i32, &str)]) -> Vec<(i32, String)> {
    expected.iter().map(|(version, state)| (*version, (*state).to_owned())).collect()
}

/// A build that waits in the middle of its first page until the lock is let go.
async fn held_up(world: &World) -> (PgConnection, Child) {
    let mut holder = PgConnection::connect(&world.database.url).await.unwrap();
    let hold = "set search_path to rollcall; begin; lock event_t in access exclusive mode";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    let mut command = rollcall();
    command.args(["rebuild", "status_span", "--database-url", &world.database.url]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = "select exists (select from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and not l.granted)";
    eventually("the page waits", async || {
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&world.pool).await.unwrap()
    })
    .await;
    (holder, child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_killed_or_interrupted_goes_on_and_ends_live() {
    let mut world = World::start().await;
    morning(&world).await;
    fold::caught_up(&world.pool).await;
    world.stop_node(0).await;

    let (holder, mut child) = held_up(&world).await;
    child.kill().await.unwrap();
    holder.close().await.unwrap();
    let both = states(&[(1, "live"), (2, "building")]);
    assert_eq!(versions(&world, "status_span").await, both);

    let (holder, child) = held_up(&world).await;
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let (ended, closed) = tokio::join!(child.wait_with_output(), holder.close());
    closed.unwrap();
    let ended = ended.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("`rollcall rebuild status_span` goes on where it stood"), "{said}");
    assert_eq!(versions(&world, "status_span").await, states(&[(1, "live"), (2, "stopped")]));

    let said = rebuild(&world, ["status_span"]).await.ok();
    assert!(said.starts_with("status_span: version 2 is live"), "{said}");
    assert_eq!(versions(&world, "status_span").await, states(&[(1, "kept"), (2, "live")]));
    fold::check(&world.pool).await;

    rebuild(&world, ["status_span", "--take-back"]).await.ok();
    assert_eq!(versions(&world, "status_span").await, states(&[(1, "live"), (2, "kept")]));
    rebuild(&world, ["status_span", "--confirm"]).await.ok();
    assert_eq!(versions(&world, "status_span").await, states(&[(1, "live")]));
    world.add_node().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_begin_a_build_at_once_share_one() {
    let world = World::start().await;
    let database = world.nodes[0].realm().database().clone();
    let view = &VIEWS[0];
    let mut holder = PgConnection::connect(&world.database.url).await.unwrap();
    let hold = "set search_path to rollcall; begin;
        select from view_version where view = 'status_span' for update";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    let begin = async || versions::change(&database, view, Change::Build).await.unwrap().unwrap();
    let let_go = async {
        let waiting = "select count(distinct pid) from pg_locks l
             join pg_database d on d.datname = current_database()
            where not l.granted and coalesce(l.database, 0) in (0, d.oid)
              and l.pid in (select pid from pg_stat_activity where datname = d.datname)";
        eventually("both wait", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() >= 2
        })
        .await;
        holder.close().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(begin(), begin(), let_go);
    assert_eq!((one, other), (2, 2));
    let database = Database::new(&world.database.url).unwrap();
    let build = async || build(&database, Target { view, version: 2 }, |_| {}).await.unwrap();
    tokio::join!(build(), build());
    assert_eq!(versions(&world, view.name).await, states(&[(1, "kept"), (2, "live")]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_views_are_built_beside_a_server_that_goes_on_writing() {
    let world = World::start().await;
    morning(&world).await;
    let people: Vec<_> = (0..6).map(|n| world.user(&format!("u{n}"))).collect();
    let load = async {
        for _ in 0..20 {
            join_all(people.iter().map(async |user| {
                let session = user.login().await;
                user.logout(&session).await.expect(200);
            }))
            .await;
        }
    };
    let (said, ()) = tokio::join!(rebuild(&world, ["all"]), load);
    let said = said.ok();
    assert_eq!(said.lines().count(), VIEWS.len(), "{said}");
    for view in &VIEWS {
        assert_eq!(versions(&world, view.name).await, states(&[(1, "kept"), (2, "live")]));
    }
    rebuild(&world, ["all", "--confirm"]).await.ok();
    fold::caught_up(&world.pool).await;
    fold::check(&world.pool).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_one_line_and_wrong_usage_names_the_views() {
    let world = World::start().await;
    for flag in ["--stop", "--abandon", "--confirm", "--take-back"] {
        let ran = rebuild(&world, ["occupancy", flag]).await;
        assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{}", ran.err);
        assert!(ran.err.starts_with("rollcall: occupancy: "), "{}", ran.err);
    }
    for wrong in [["rebuild", "nothing", "--stop"], ["rebuild", "--stop", "--confirm"]] {
        assert_eq!(run(wrong).await.code, Some(2));
    }
    let unknown = run(["rebuild", "nothing"]).await;
    assert_eq!(unknown.code, Some(2));
    for name in VIEWS.iter().map(|view| view.name).chain(["all"]) {
        assert!(unknown.err.contains(name), "{}", unknown.err);
    }
    world.finish().await;
}
