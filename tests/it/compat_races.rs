//! Timers that start while their user leaves: many rounds, and what the log says of them.
//!
//! `ROLLCALL_TEST_RACES=10000` runs more rounds than a suite has time for.

use std::time::Duration;

use domain::Policy;
use futures::future::join_all;
use serde_json::json;
use tests::{Client, Options, World, clock, size};

/// Rounds of a run of the suite.
const ROUNDS_DEFAULT: usize = 300;
/// Users who race at one time.
const AT_ONCE: usize = 25;
const PATH: &str = "/api/daily_planner_workflow";

fn rounds() -> usize {
    size::races(ROUNDS_DEFAULT, 1)
}

/// Starts on both nodes, of one task; the positions of those that were allowed.
async fn starts(planners: &[Client; 2], user: &str) -> Vec<i64> {
    let ask = |n: usize| {
        let action = ["start", "start", "resume", "pause", "start"][n % 5];
        let body = json!({ "action": action, "user_id": user, "task_id": "t" });
        planners[n % 2].post(PATH, body)
    };
    let answers = join_all((0..5).map(ask)).await;
    let allowed = answers.into_iter().map(|answer| answer.expect(200));
    allowed.filter(|body| body["success"] == true).map(|body| position(&body)).collect()
}

fn position(body: &serde_json::Value) -> i64 {
    body["position"].as_i64().unwrap()
}

/// Nothing was allowed after an end, nothing that was answered is missing, no timer was open twice.
async fn check(world: &World, answered: &[i64], rounds: usize) {
    for (what, query) in [
        (
            "allowed without a live session",
            "select position from (select type, position, sum(case type
                        when 'session_opened' then 1 when 'session_closed' then -1
                        when 'session_expired' then -1 else 0 end)
                    over (partition by user_no order by position) as live
                    from event where class = 'T' and user_no is not null) e
              where type = 'action_allowed' and live < 1",
        ),
        (
            "allowed at an instant at or after the session's end",
            "select a.position from event a join event e using (user_no)
              where a.type = 'action_allowed' and e.type in ('session_closed', 'session_expired')
                and (a.position > e.position or a.occurred_at > e.occurred_at)",
        ),
        (
            "two open timers for one task",
            "select position from (select type, position, lag(type)
                    over (partition by user_no, word_no order by position) as before
                    from event where type in ('claim_set', 'claim_cleared')) c
              where type = 'claim_set' and before = 'claim_set'",
        ),
        (
            "a timer that no decision opened",
            "select position from event c where type = 'claim_set' and not exists (
                select from event a where a.user_no = c.user_no and a.type = 'action_allowed'
                   and a.sequence = c.sequence - 1)",
        ),
        (
            "allowed by another status than was required",
            "select position from event where type = 'action_allowed'
                and coalesce(data ->> 'beneath', from_status::text) <> 'online'",
        ),
    ] {
        let query = format!("select count(*) from ({query}) found");
        let found: i64 = sqlx::query_scalar(&query).fetch_one(&world.pool).await.unwrap();
        assert_eq!(found, 0, "{what}");
    }
    let count = "select count(*) from event where type = 'action_allowed'";
    let allowed: i64 = sqlx::query_scalar(count).fetch_one(&world.pool).await.unwrap();
    assert_eq!(allowed as usize, answered.len(), "each answer stands in the log, and no other");
    let refused = "select count(*) from event where type = 'action_refused'
        and data ->> 'code' = 'status_refused'";
    let refused: i64 = sqlx::query_scalar(refused).fetch_one(&world.pool).await.unwrap();
    eprintln!("{rounds} rounds: {allowed} allowed, {refused} refused for the status");
    assert!(allowed > 0 && refused > 0, "a race that one side always wins is none");
}

#[tokio::test]
async fn no_timer_starts_after_the_logout_and_none_is_open_twice() {
    let world = World::with_nodes(2).await;
    let planners = [world.service(), world.at_node(&world.service(), 1)];
    let mut answered = Vec::new();
    let rounds = rounds();
    for wave in 0..rounds.div_ceil(AT_ONCE) {
        let races = (0..AT_ONCE).map(async |n| {
            let name = format!("u{wave}.{n}");
            let user = world.user(&name);
            let session = user.login().await;
            let elsewhere = world.at_node(&user, n % 2);
            let leave = async {
                if n % 3 == 0 {
                    elsewhere.delete(&format!("/v1/users/{name}/sessions")).await.expect(200)
                } else {
                    elsewhere.logout(&session).await.expect(200)
                }
            };
            let (_, allowed) = tokio::join!(leave, starts(&planners, &name));
            allowed
        });
        answered.extend(join_all(races).await.into_iter().flatten());
    }
    check(&world, &answered, rounds).await;
    world.finish().await;
}

#[tokio::test]
async fn no_timer_starts_after_the_lease_is_over() {
    let policy = Policy { heartbeat_ms: 100, lease_ms: 5_200, ..Policy::default() };
    let world = World::with(Options { nodes: 2, policy, ..Options::default() }).await;
    let planners = [world.service(), world.at_node(&world.service(), 1)];
    let mut answered = Vec::new();
    let rounds = rounds();
    for wave in 0..rounds.div_ceil(AT_ONCE) {
        let name = |n: usize| format!("u{wave}.{n}");
        let users = (0..AT_ONCE).map(async |n| {
            world.user(&name(n)).login().await;
        });
        join_all(users).await;
        world.advance(Duration::from_secs(5)).await;
        // The leases end one by one while timers start, here by real time and there by a push.
        let race = join_all((0..AT_ONCE).map(async |n| {
            let mut allowed = starts(&planners, &name(n)).await;
            clock::shift(&world.pool, Duration::from_millis(15)).await;
            allowed.extend(starts(&planners, &name(AT_ONCE - 1 - n)).await);
            allowed
        }));
        answered.extend(race.await.into_iter().flatten());
        world.advance(Duration::from_secs(1)).await;
        let late = starts(&planners, &name(0)).await;
        assert!(late.is_empty(), "{late:?}");
    }
    check(&world, &answered, rounds).await;
    world.finish().await;
}
