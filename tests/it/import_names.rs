//! A session's name belongs to one user and is opened once, also where history is imported.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Client, World};
use uuid::Uuid;

const NDJSON: &str = "application/x-ndjson";

fn line(user: &str, name: &str, session: Uuid, at: &str) -> Value {
    json!({ "type": name, "user_id": user, "session_id": session,
        "occurred_at": format!("2024-01-{at}Z") })
}

fn opened(user: &str, session: Uuid, at: &str) -> Value {
    line(user, "session_opened", session, at)
}

fn closed(user: &str, session: Uuid, at: &str) -> Value {
    line(user, "session_closed", session, at)
}

async fn import(admin: &Client, lines: &[Value]) -> Value {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    admin.post_raw("/v1/import", NDJSON, lines.join("\n")).await.expect(200)
}

/// Imported, skipped, and the rejected lines with their codes.
fn told(report: &Value) -> (u64, u64, Vec<(u64, &str)>) {
    let rejected = report["rejected"].as_array().unwrap().iter();
    let rejected = rejected.map(|r| (r["line"].as_u64().unwrap(), r["code"].as_str().unwrap()));
    let count = |name: &str| report[name].as_u64().unwrap();
    (count("imported"), count("skipped"), rejected.collect())
}

#[tokio::test]
async fn two_users_lines_with_one_name_leave_it_to_the_earlier() {
    let world = World::start().await;
    let session = Uuid::from_u128(1);
    let other = |n: u128| (format!("i{n}"), Uuid::from_u128(n));
    let before = (2..22).map(other).flat_map(|(user, session)| {
        [opened(&user, session, "01T00:00:00"), closed(&user, session, "01T12:00:00")]
    });
    let disputed = [
        opened("sa", session, "02T00:00:00"),
        closed("sa", session, "03T00:00:00"),
        opened("sb", session, "04T00:00:00"),
        closed("sb", session, "05T00:00:00"),
    ];
    let after = (22..42).map(other).map(|(user, session)| opened(&user, session, "02T00:00:00"));
    let lines: Vec<Value> = before.chain(disputed).chain(after).collect();
    let first = 43;
    let rejected = vec![(first, "session_taken"), (first + 1, "not_open")];
    let report = import(&world.admin(), &lines).await;
    assert_eq!(told(&report), (62, 0, rejected.clone()));
    let again = import(&world.admin(), &lines).await;
    assert_eq!(told(&again), (0, 62, rejected));
    world.auditor().get("/v1/users/sb/transitions").await.problem(404, "user_not_found");
    world.finish().await;
}

#[tokio::test]
async fn a_name_is_taken_while_its_imported_session_is_open_and_ever_after() {
    let world = World::start().await;
    let (shared, own) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let lines = [
        opened("sa", shared, "02T00:00:00"),
        opened("sb", shared, "02T00:00:00"),
        closed("sa", shared, "03T00:00:00"),
        opened("sb", shared, "04T00:00:00"),
        opened("sa", shared, "05T00:00:00"),
        opened("sa", own, "06T00:00:00"),
        opened("sa", own, "07T00:00:00"),
    ];
    let report = import(&world.admin(), &lines).await;
    let expected =
        [(2, "session_taken"), (4, "session_taken"), (5, "session_closed"), (7, "already_open")];
    assert_eq!(told(&report), (3, 0, expected.to_vec()));
    for session in [shared, own] {
        let body = json!({ "session_id": session });
        world.user("sb").post("/v1/sessions", body).await.problem(409, "session_taken");
    }
    world.finish().await;
}

#[tokio::test]
async fn nobody_logs_in_under_the_name_of_a_session_that_is_being_imported() {
    use api::import::{Importer, ndjson};
    let world = World::with_nodes(2).await;
    let session = Uuid::from_u128(1);
    let items = |lines: &[Value]| {
        lines
            .iter()
            .zip(1..)
            .map(|(line, n)| ndjson::parse(n, &line.to_string()).unwrap())
            .collect()
    };
    let mut importer = Importer::new(world.nodes[0].realm(), None);
    importer.take(items(&[opened("sa", session, "02T00:00:00")])).await.unwrap();
    let body = json!({ "session_id": session });
    for node in 0..2 {
        let ben = world.at_node(&world.user("ben"), node);
        ben.post("/v1/sessions", body.clone()).await.problem(409, "session_taken");
        let own = world.at_node(&world.user("sa"), node);
        own.post("/v1/sessions", body.clone()).await.problem(410, "session_closed");
    }
    // Nor does an import elsewhere; and what a login has, no import takes.
    let live: Uuid = world.user("ben").login().await.parse().unwrap();
    let other = world.at_node(&world.admin(), 1);
    let lines = [opened("sb", session, "02T00:00:00"), opened("sb", live, "02T00:00:00")];
    let report = import(&other, &lines).await;
    assert_eq!(told(&report), (0, 0, vec![(1, "session_taken"), (2, "session_taken")]));
    assert_eq!(importer.finish().await.unwrap().imported, 1);
    assert_eq!(world.user("x").status_word("ben").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn of_imports_of_the_same_lines_at_one_time_each_line_is_imported_by_one() {
    let world = World::with_nodes(2).await;
    let mut lines = Vec::new();
    for n in 0..60_u128 {
        let (user, session) = (format!("u{}", n % 3), Uuid::from_u128(n + 1));
        let at = |second: u32| format!("02T{:02}:{:02}:{second:02}", n / 30, n % 30);
        lines.push(opened(&user, session, &at(0)));
        lines.push(closed(&user, session, &at(30)));
    }
    let admins = [world.admin(), world.at_node(&world.admin(), 1), world.admin()];
    let reports = join_all(admins.iter().map(|admin| import(admin, &lines))).await;
    let told: Vec<_> = reports.iter().map(told).collect();
    assert!(told.iter().all(|(.., rejected)| rejected.is_empty()), "{told:?}");
    assert!(told.iter().all(|(imported, skipped, _)| imported + skipped == 120), "{told:?}");
    assert_eq!(told.iter().map(|(imported, ..)| imported).sum::<u64>(), 120, "{told:?}");
    world.finish().await;
}
