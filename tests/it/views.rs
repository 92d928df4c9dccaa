//! Views that follow the log: at every position, under races and kills, and built anew.

use std::time::Duration;

use domain::Policy;
use projections::follow::fill;
use projections::follow::page::{self, Pages, Step, Target};
use projections::follow::versions::{self, Change};
use projections::views::VIEWS;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tests::{Options, World, eventually, fold};
use uuid::Uuid;

const PEOPLE: usize = 6;

/// Everything ends soon: time passes in steps that cost a commit each.
pub(crate) async fn hasty(nodes: usize) -> World {
    let policy =
        Policy { heartbeat_ms: 1_000, lease_ms: 8_000, away_after_ms: 3_000, ..Policy::default() };
    World::with(Options { nodes, policy, ..Options::default() }).await
}

/// Random logins, heartbeats, logouts, claims, hiding, guards, time-outs and imports.
pub(crate) async fn live(world: &World, seed: u64, steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sessions: Vec<Vec<String>> = vec![Vec::new(); PEOPLE];
    for _ in 0..steps {
        let who = random.usize(..PEOPLE);
        let name = format!("u{who}");
        let node = random.usize(..world.nodes.len());
        let user = world.at_node(&world.user(&name), node);
        match random.u8(..10) {
            0..3 => {
                let idle_ms = if random.bool() { 0 } else { 4_000 };
                sessions[who].push(user.login_idle(idle_ms).await);
            }
            3 if !sessions[who].is_empty() => {
                let which = random.usize(..sessions[who].len());
                let session = sessions[who].swap_remove(which);
                user.logout(&session).await;
            }
            4 => {
                let status = random.choice(["away", "busy", "dnd", "online"]).unwrap();
                let body = json!({ "status": status, "ttl_ms": random.u32(1_000..20_000) });
                user.put(&format!("/v1/users/{name}/claims/manual"), body).await.expect(200);
            }
            5 => {
                let body = json!({ "invisible": random.bool() });
                // 404 before anything else happened.
                user.put(&format!("/v1/users/{name}/visibility"), body).await;
            }
            6 => {
                let body = json!({ "action": "timer.start", "require": ["online"] });
                world.service().post(&format!("/v1/users/{name}/guard"), body).await;
            }
            7 => import(world, &mut random, &name).await,
            _ => world.advance(Duration::from_millis(random.u64(1..12_000))).await,
        }
        for session in &sessions[who] {
            let idle_ms = if random.bool() { 0 } else { 4_000 };
            user.beat_idle(session, idle_ms).await;
        }
    }
}

/// Some history from elsewhere; refused where there is history of our own.
async fn import(world: &World, random: &mut fastrand::Rng, user: &str) {
    let mut lines = Vec::new();
    let mut minute = random.u32(0..1_000_000);
    for _ in 0..random.usize(1..6) {
        let name = random.choice(["session_opened", "session_closed", "session_expired"]).unwrap();
        let at = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute.into());
        let session = Uuid::from_u128(random.u128(1..4) << 64 | u128::from(minute / 300_000));
        let body =
            json!({ "type": name, "user_id": user, "session_id": session, "occurred_at": at });
        lines.push(body.to_string());
        minute += random.u32(0..5);
    }
    world
        .admin()
        .post_raw("/v1/import", "application/x-ndjson", lines.join("\n"))
        .await
        .expect(200);
}

#[tokio::test]
async fn at_every_position_every_view_is_what_the_log_folds_to() {
    for seed in 0..3 {
        let mut world = hasty(2).await;
        live(&world, seed, 60).await;
        fold::caught_up(&world.pool).await;
        fold::check(&world.pool).await;
        // Once more from the beginning, by pages of every size, with nobody else at it.
        let database = world.nodes[0].realm().database().clone();
        world.stop_node(1).await;
        world.stop_node(0).await;
        let page_events = [1, 3, 7][seed as usize];
        let middle = world.head().await / 2;
        let mut connection = database.server().await.unwrap();
        for view in &VIEWS {
            let version = versions::change(&database, view, Change::Build).await.unwrap().unwrap();
            let target = Target { view, version };
            // From the first event on, as what is live at first was built.
            begin_at(&world, target, 0, None).await;
            let pages = Pages { events: page_events, ..Pages::LIVE };
            follow_by(&world, &mut connection, target, pages).await;
            versions::change(&database, view, Change::Abandon).await.unwrap().unwrap();
            let version = versions::change(&database, view, Change::Build).await.unwrap().unwrap();
            let target = Target { view, version };
            // As a build begins, but those that begin with people do so in the middle.
            let begin = if view.fills { (middle, Some(0)) } else { (0, None) };
            begin_at(&world, target, begin.0, begin.1).await;
            if view.fills {
                fill_by(&world, &mut connection, target, page_events).await;
            }
            let pages = Pages { events: page_events, ..Pages::BUILD };
            follow_by(&world, &mut connection, target, pages).await;
        }
        connection.close().await.unwrap();
        world.finish().await;
    }
}

async fn begin_at(world: &World, target: Target, position: i64, filled_to: Option<i64>) {
    let begin = "update view_version set position = $3, filled_to = $4
                  where view = $1 and version = $2";
    let begin = sqlx::query(begin).bind(target.view.name).bind(target.version);
    begin.bind(position).bind(filled_to).execute(&world.pool).await.unwrap();
}

/// As far as the version is, every user who is in is as an independent fold has it. Whether all
/// are.
async fn check_so_far(world: &World, Target { view, version }: Target) -> bool {
    let found = "select position, filled_to from view_version where view = $1 and version = $2";
    let found = sqlx::query_as(found).bind(view.name).bind(version);
    let (upto, filled_to): (i64, Option<i64>) = found.fetch_one(&world.pool).await.unwrap();
    let mut db = world.pool.acquire().await.unwrap();
    let mut users = fold::told(&mut db, upto).await;
    users.retain(|user, _| filled_to.is_none_or(|filled_to| *user <= filled_to));
    fold::check_view(&mut db, view.name, &format!("{}_{version}", view.name), &users).await;
    filled_to.is_none()
}

async fn fill_by(world: &World, connection: &mut PgConnection, target: Target, events: i64) {
    let mut steps = 0;
    while !check_so_far(world, target).await {
        assert_eq!(fill::step(connection, target, events).await.unwrap(), Step::More);
        steps += 1;
    }
    assert!(steps > 2, "some users, the others, and nobody is left");
    let over = fill::step(connection, target, events).await.unwrap();
    assert_eq!(over, Step::Taken, "it is filled once");
}

async fn follow_by(world: &World, connection: &mut PgConnection, target: Target, pages: Pages) {
    let mut step = Step::More;
    while step == Step::More {
        step = page::step(connection, target, pages).await.unwrap();
        // Sessions are written ahead: as they end, not as the page knows them.
        if pages.ahead && target.view.name == "session_span" {
            let late = format!(
                "select count(*) from session_span_{} s join ended_session using (session_id)
                  where s.ended_at is null",
                target.version
            );
            let late: i64 = sqlx::query_scalar(&late).fetch_one(&world.pool).await.unwrap();
            assert_eq!(late, 0, "the log's head knows when they ended");
        }
        if step == Step::Idle || !pages.ahead || target.view.name != "session_span" {
            assert!(check_so_far(world, target).await);
        }
    }
}

#[tokio::test]
async fn the_fold_of_what_was_known_is_right_at_every_position() {
    let world = hasty(1).await;
    live(&world, 99, 80).await;
    let head = world.head().await;
    let mut db = world.pool.acquire().await.unwrap();
    for upto in 1..=head {
        for (user, events) in fold::told(&mut db, upto).await {
            for as_shown in [false, true] {
                let found: Vec<fold::Span> = sqlx::query_as(
                    "select from_at, to_at, status::text, from_position
                       from fold_spans(array[$1], $2, $3) order by from_at",
                )
                .bind(user)
                .bind(upto)
                .bind(as_shown)
                .fetch_all(&mut *db)
                .await
                .unwrap();
                assert_eq!(found, fold::spans(&events, as_shown), "user {user} at {upto}");
            }
        }
    }
    drop(db);
    world.finish().await;
}

async fn versions_of(world: &World, view: &str) -> Vec<(i64, String)> {
    let all = world.admin().get("/v1/views").await.expect(200)["items"].clone();
    let of_view = all.as_array().unwrap().iter().filter(|version| version["view"] == view);
    let pair =
        |v: &Value| (v["version"].as_i64().unwrap(), v["state"].as_str().unwrap().to_owned());
    of_view.map(pair).collect()
}

#[tokio::test]
async fn every_view_is_built_anew_while_people_come_and_go() {
    let world = hasty(2).await;
    live(&world, 5, 40).await;
    let admin = world.admin();
    for view in &VIEWS {
        let name = view.name;
        let begun = admin.post(&format!("/v1/views/{name}/rebuild"), json!(null)).await.expect(202);
        assert_eq!((&begun["view"], &begun["version"]), (&json!(name), &json!(2)));
    }
    live(&world, 6, 40).await;
    for view in &VIEWS {
        let both = [(1, "kept".to_owned()), (2, "live".to_owned())];
        eventually("the new version is live", async || {
            versions_of(&world, view.name).await == both
        })
        .await;
        // Not good? Then the former one comes back, with everything that happened meanwhile.
        admin.post(&format!("/v1/views/{}/take-back", view.name), json!(null)).await.expect(202);
        let back = [(1, "live".to_owned()), (2, "kept".to_owned())];
        eventually("the former is live", async || versions_of(&world, view.name).await == back)
            .await;
        admin.post(&format!("/v1/views/{}/confirm", view.name), json!(null)).await.expect(204);
        assert_eq!(versions_of(&world, view.name).await, [(1, "live".to_owned())]);
        let confirm = format!("/v1/views/{}/confirm", view.name);
        admin.post(&confirm, json!(null)).await.problem(409, "nothing_kept");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_build_that_is_stopped_goes_on_where_it_stood() {
    let mut world = hasty(1).await;
    live(&world, 7, 30).await;
    fold::caught_up(&world.pool).await;
    let database = world.nodes[0].realm().database().clone();
    world.stop_node(0).await;
    let view = &VIEWS[0];
    let version = versions::change(&database, view, Change::Build).await.unwrap().unwrap();
    let mut connection = database.server().await.unwrap();
    let target = Target { view, version };
    assert_eq!(fill::step(&mut connection, target, 1).await.unwrap(), Step::More);
    versions::change(&database, view, Change::Stop).await.unwrap().unwrap();
    connection.close().await.unwrap();
    world.add_node().await;
    let admin = world.admin();
    assert_eq!(versions_of(&world, view.name).await[1], (2, "stopped".to_owned()));
    let again = admin.post("/v1/views/status_span/rebuild", json!(null)).await.expect(202);
    assert_eq!(again["version"], 2);
    assert!(again["filling"]["done"].as_i64().unwrap() > 0);
    assert!(again["filling"]["of"].as_i64() > again["filling"]["done"].as_i64());
    eventually("it is live", async || {
        versions_of(&world, view.name).await == [(1, "kept".to_owned()), (2, "live".to_owned())]
    })
    .await;
    admin.delete("/v1/views/status_span/rebuild").await.problem(409, "nothing_building");
    world.finish().await;
}

#[tokio::test]
async fn views_are_built_by_admins_and_only_those_that_exist() {
    let world = World::start().await;
    let path = "/v1/views/status_span/rebuild";
    world.auditor().post(path, json!(null)).await.problem(403, "forbidden");
    world.user("ana").get("/v1/views").await.problem(403, "forbidden");
    let admin = world.admin();
    admin.post("/v1/views/nothing/rebuild", json!(null)).await.problem(404, "view_not_found");
    admin.post(&format!("{path}/stop"), json!(null)).await.problem(409, "nothing_building");
    world.finish().await;
}

#[tokio::test]
async fn two_statuses_at_one_time_are_refused_by_the_database() {
    let world = World::start().await;
    world.user("ana").login().await;
    fold::caught_up(&world.pool).await;
    let overlap = "insert into status_span_1 (user_no, from_at, status, from_position, from_type)
        select user_no, from_at + interval '1 microsecond', 'offline', from_position, from_type
          from status_span_1";
    let refused = sqlx::query(overlap).execute(&world.pool).await.unwrap_err();
    let refused = refused.as_database_error().unwrap();
    assert_eq!(refused.code().as_deref(), Some("23P01"));
    assert_eq!(refused.constraint(), Some("status_span_1_no_overlap"));
    world.finish().await;
}

#[tokio::test]
async fn an_event_that_a_view_cannot_take_holds_up_nobody_else() {
    let world = World::start().await;
    let (ana, ben) = (world.user("ana"), world.user("ben"));
    let session = ana.login().await;
    ana.logout(&session).await.expect(200);
    ana.login().await;
    ben.login().await;
    fold::caught_up(&world.pool).await;
    let database = world.nodes[0].realm().database().clone();
    // Broken by hand, as nothing of ours can.
    let mut owner = database.owner().await.unwrap();
    sqlx::raw_sql(
        "set session_replication_role = replica;
         update event set to_status = null, data = '{}'
          where class = 'T' and position = (select max(position) from event
                    join account a using (user_no) where class = 'T' and a.user_id = 'ana');",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    owner.close().await.unwrap();
    for view in &VIEWS {
        let path = format!("/v1/views/{}/rebuild", view.name);
        world.admin().post(&path, json!(null)).await.expect(202);
    }
    for view in &VIEWS {
        eventually("the new version is live", async || {
            versions_of(&world, view.name).await.contains(&(2, "live".to_owned()))
        })
        .await;
    }
    let letters: Vec<(String, i64)> = sqlx::query_as(
        "select d.view, count(*) from dead_letter d join account a using (user_no)
          where a.user_id = 'ana' group by 1 order by 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert!(letters.contains(&("status_span".to_owned(), 1)), "{letters:?}");
    assert!(letters.contains(&("session_span".to_owned(), 1)), "{letters:?}");
    // What she did before it is in, also where she was folded as a whole.
    let before: i64 = sqlx::query_scalar(
        "select count(*) from status_span_2 s join account a using (user_no)
           join dead_letter d using (user_no)
          where a.user_id = 'ana' and d.view = 'status_span' and s.from_position < d.position",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(before, 2, "online, and offline since");
    let spans = world.auditor().get("/v1/users/ben/history").await.expect(200);
    assert_eq!(spans["items"][0]["status"], "online");
    let waiting = world.admin().get("/v1/views").await.expect(200);
    let spans = waiting["items"].as_array().unwrap().iter();
    let spans = spans.filter(|v| v["view"] == "status_span" && v["version"] == 2);
    assert_eq!(spans.map(|v| v["waiting_users"].clone()).collect::<Vec<_>>(), [json!(1)]);
    world.abandon().await;
}
