//! The schema `analytics`: its rights, its words, and that it tells what others are shown.

use std::str::FromStr;

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use tests::{World, eventually, fold};

/// A connection as `db-url --role analyst` gives it.
pub(super) async fn analyst(world: &World) -> PgConnection {
    let options = PgConnectOptions::from_str(&world.database.url).unwrap();
    let options = options.options([("role", "rollcall_analyst"), ("search_path", "analytics")]);
    PgConnection::connect_with(&options).await.unwrap()
}

const READABLE: [&str; 6] =
    ["user_status", "status_span", "session", "occupancy", "status_daily", "freshness"];

#[tokio::test]
async fn the_analyst_reads_the_schema_analytics_and_nothing_else() {
    let world = World::start().await;
    world.user("ana").login().await;
    fold::caught_up(&world.pool).await;
    let mut analyst = analyst(&world).await;
    for view in READABLE {
        for name in [view.to_owned(), format!("analytics.{view}")] {
            let rows = analyst.fetch_all(format!("select * from {name}").as_str()).await.unwrap();
            assert!(!rows.is_empty(), "{name}");
        }
        let refused = analyst.execute(format!("delete from {view}").as_str()).await;
        assert!(refused.is_err(), "{view}");
    }
    let calls = [
        "select * from occupancy(now() - interval '1 hour', now(), interval '5 minutes')",
        "select * from analytics.status_daily(current_date - 1, current_date + 2, 'Europe/Berlin')",
    ];
    for call in calls {
        assert!(!analyst.fetch_all(call).await.unwrap().is_empty(), "{call}");
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'rollcall'::regnamespace
            and relkind in ('r', 'v', 'p') and relname <> 'test_clock'",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables {
        let statement = format!("select 1 from rollcall.{table}");
        let error = analyst.execute(statement.as_str()).await.expect_err(&statement);
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap();
        assert_eq!(code, "42501", "{statement}");
    }
    analyst.close().await.unwrap();
    world.finish().await;
}

#[tokio::test]
async fn every_column_and_function_says_what_it_is() {
    let world = World::start().await;
    let silent: Vec<String> = sqlx::query_scalar(
        "select c.relname || '.' || a.attname from pg_class c
           join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
          where c.relnamespace = 'analytics'::regnamespace
            and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)
         union all
         select p.proname::text from pg_proc p
          where p.pronamespace = 'analytics'::regnamespace
            and obj_description(p.oid, 'pg_proc') is null",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(silent, Vec::<String>::new());
    world.finish().await;
}

/// Something that a person, a system or an admin may do, by chance.
async fn anything(world: &World, sessions: &mut Vec<(String, String)>) {
    let user_id = format!("u{}", fastrand::u8(0..8));
    let user = world.user(&user_id);
    let path = |rest: &str| format!("/v1/users/{user_id}/{rest}");
    let status = ["online", "away", "busy", "dnd"][fastrand::usize(0..4)];
    let picked = (!sessions.is_empty()).then(|| fastrand::usize(0..sessions.len()));
    match (fastrand::u8(0..11), picked) {
        (0 | 1, _) => sessions.push((user_id.clone(), user.login().await)),
        (2, _) => sessions.push((user_id.clone(), user.login_idle(900_000).await)),
        (3, Some(index)) => {
            let (user_id, session) = sessions.swap_remove(index);
            world.user(&user_id).logout(&session).await;
        }
        (4 | 5, Some(index)) => {
            let (user_id, session) = &sessions[index];
            let idle_ms = fastrand::choice([0, 900_000]).unwrap();
            world.user(user_id).beat_idle(session, idle_ms).await;
        }
        (6, _) => {
            let body = json!({ "status": status, "ttl_ms": 1_000 * fastrand::u64(5..200) });
            user.put(&path("claims/manual"), body).await.expect(200);
        }
        (7, _) => {
            let source = format!("claims/system:timer:{}", fastrand::u8(0..3));
            let body = json!({ "status": status });
            world.service().put(&path(&source), body).await.expect(200);
        }
        (8, _) => {
            let body = json!({ "status": status, "reason": "test", "ttl_ms": 60_000 });
            world.admin().put(&path("claims/admin"), body).await.expect(200);
        }
        (9, _) => {
            let body = json!({ "invisible": fastrand::bool() });
            user.put(&path("visibility"), body).await.expect(200);
        }
        (_, _) => world.advance_s(fastrand::u64(1..70)).await,
    }
}

#[tokio::test]
async fn user_status_is_what_anybody_is_told_in_any_state() {
    let world = World::start().await;
    let (seed, viewer, mut sessions) = (fastrand::u64(..), world.user("viewer"), Vec::new());
    fastrand::seed(seed);
    let mut analyst = analyst(&world).await;
    for n in 0..8 {
        let user_id = format!("u{n}");
        let session = world.user(&user_id).login().await;
        sessions.push((user_id, session));
    }
    // An outage, within which no lease runs.
    world.outage(std::time::Duration::from_mins(5)).await;
    for step in 0..120 {
        anything(&world, &mut sessions).await;
        let mut told = (Value::Null, Value::Null);
        // A deadline may pass between the two questions.
        for _ in 0..5 {
            told = (told_by_http(&viewer).await, told_by_sql(&mut analyst).await);
            if told.0 == told.1 {
                break;
            }
        }
        assert_eq!(told.0, told.1, "step {step} of seed {seed}");
    }
    analyst.close().await.unwrap();
    eventually("the node follows", async || world.nodes[0].realm().is_ready()).await;
    world.finish().await;
}

async fn told_by_http(viewer: &tests::Client) -> Value {
    let users = (0..8).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",");
    let told = viewer.get(&format!("/v1/status?users={users}")).await.expect(200);
    let mut items: Vec<Value> = told["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| json!([item["user_id"], item["status"], item["last_seen"]]))
        .collect();
    items.sort_by_key(ToString::to_string);
    Value::Array(items)
}

type Row = (String, bool, String, Option<domain::Timestamp>);

async fn told_by_sql(analyst: &mut PgConnection) -> Value {
    let rows: Vec<Row> = sqlx::query_as("select * from analytics.user_status order by user_id")
        .fetch_all(analyst)
        .await
        .unwrap();
    let item = |(user_id, is_online, status, last_seen): Row| {
        assert_eq!(is_online, status != "offline");
        let last_seen = last_seen.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
        json!([user_id, status, last_seen])
    };
    rows.into_iter().map(item).collect()
}

/// One day: users, and milliseconds online, away, busy, dnd and offline.
type Sums = (chrono::NaiveDate, i64, i64, i64, i64, i64, i64);

#[tokio::test]
async fn the_sums_of_days_are_those_of_everybodys_days() {
    let world = World::start().await;
    let (seed, mut sessions) = (fastrand::u64(..), Vec::new());
    fastrand::seed(seed);
    for n in 0..8 {
        let user_id = format!("u{n}");
        let session = world.user(&user_id).login().await;
        sessions.push((user_id, session));
    }
    for _ in 0..4 {
        for _ in 0..40 {
            anything(&world, &mut sessions).await;
        }
        // Sessions last over midnight, and further for those who go on.
        let lasting = json!({ "lease_ms": 3_600_000 });
        world.admin().put("/v1/policy", lasting).await.expect(200);
        world.outage(std::time::Duration::from_hours(17)).await;
    }
    tests::fold::caught_up(&world.pool).await;
    let mut analyst = analyst(&world).await;
    let one_by_one = "select day, count(*), sum(online_ms)::bigint, sum(away_ms)::bigint,
            sum(busy_ms)::bigint, sum(dnd_ms)::bigint, sum(offline_ms)::bigint
       from analytics.status_daily group by day order by day";
    let together = "select * from analytics.status_daily_totals('2000-01-01', '3000-01-01')";
    let mut told: [Vec<Sums>; 2] = [Vec::new(), Vec::new()];
    for (told, statement) in told.iter_mut().zip([one_by_one, together]) {
        *told = sqlx::query_as(statement).fetch_all(&mut analyst).await.unwrap();
    }
    // Today goes on.
    let days: Vec<_> = told.iter().map(|days| &days[..days.len() - 1]).collect();
    assert!(days[0].len() > 1, "{days:?}");
    assert_eq!(days[0], days[1], "seed {seed}");
    let today = told.each_ref().map(|days| days.last().unwrap());
    assert_eq!((today[0].0, today[0].1), (today[1].0, today[1].1));
    for zone in ["UTC", "Pacific/Auckland"] {
        let window = format!("'{}', '{}', '{zone}'", told[0][0].0, today[0].0);
        let one_by_one = format!(
            "select day, count(*), sum(online_ms)::bigint, sum(away_ms)::bigint,
                    sum(busy_ms)::bigint, sum(dnd_ms)::bigint, sum(offline_ms)::bigint
               from analytics.status_daily({window}) group by day order by day"
        );
        let together = format!("select * from analytics.status_daily_totals({window})");
        let one_by_one: Vec<Sums> =
            sqlx::query_as(&one_by_one).fetch_all(&mut analyst).await.unwrap();
        let together: Vec<Sums> = sqlx::query_as(&together).fetch_all(&mut analyst).await.unwrap();
        assert!(one_by_one.len() > 1 && one_by_one.len() == together.len(), "{together:?}");
        for (one, other) in one_by_one.iter().zip(&together) {
            assert_eq!((one.0, one.1), (other.0, other.1), "seed {seed}");
            let parts = |sums: &Sums| [sums.2, sums.3, sums.4, sums.5, sums.6];
            for (one, other) in parts(one).into_iter().zip(parts(other)) {
                // Each is cut to whole milliseconds before it is added, or afterwards.
                assert!((0..=8).contains(&(other - one)), "{zone} {one} {other}, seed {seed}");
            }
        }
    }
    analyst.close().await.unwrap();
    world.finish().await;
}
