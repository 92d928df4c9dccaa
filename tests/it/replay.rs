//! Stock postgres-es as an independent reader of our log.

use std::str::FromStr;

use cqrs_es::persist::PersistedEventRepository;
use domain::{Event, Presence, UserNo};
use futures::future::join_all;
use postgres_es::PostgresEventRepository;
use projections::load;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tests::{Client, World};

#[tokio::test]
async fn stock_postgres_es_folds_a_busy_log_to_the_same_statuses() {
    let world = World::with_nodes(2).await;
    let mut people: Vec<(String, Client)> = Vec::new();
    for n in 0..24 {
        let user = format!("u{n}");
        people.push((user.clone(), world.at_node(&world.user(&user), n % 2)));
    }
    let service = world.service();
    join_all(people.iter().enumerate().map(|(n, who)| busy(&service, who, n))).await;
    world.advance_s(130).await;
    join_all(people.iter().enumerate().map(|(n, who)| busy(&service, who, n + 1))).await;
    let options = PgConnectOptions::from_str(&world.database.url)
        .unwrap()
        .options([("search_path", tests::cluster::SEARCH_PATH)]);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
    let repository =
        PostgresEventRepository::new(pool.clone()).with_tables("presence_events", "none");
    let users: Vec<(i64, String)> = sqlx::query_as("select user_no, user_id from account")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    let mut folded = 0;
    for (user_no, user_id) in users.into_iter().filter(|(_, user)| user.starts_with('u')) {
        let stored = repository.get_events::<Presence>(&user_no.to_string()).await.unwrap();
        let mut state = Presence::default();
        for (sequence, event) in stored.into_iter().zip(1..).map(|(event, n)| (n, event)) {
            assert_eq!(event.sequence, sequence, "{user_id}");
            let event: Event = serde_json::from_value(event.payload).unwrap();
            state.apply(&event);
        }
        let known = load::by_number(&world.pool, &[UserNo(user_no)]).await.unwrap();
        let known = &known[0].state;
        assert_eq!((state.status, state.sequence), (known.status, known.sequence), "{user_id}");
        assert_eq!(state.sessions.len(), known.sessions.len(), "{user_id}");
        assert_eq!(state.claims.len(), known.claims.len(), "{user_id}");
        folded += usize::from(state.sequence > 4);
    }
    assert_eq!(folded, 24, "everybody did something");
    pool.close().await;
    world.finish().await;
}

/// Somebody's busy minute; `n` makes each one's different.
async fn busy(service: &Client, (user, client): &(String, Client), n: usize) {
    let first = client.login().await;
    let second = client.login_idle(if n.is_multiple_of(3) { 900_000 } else { 0 }).await;
    client.beat_idle(&first, if n.is_multiple_of(2) { 600_000 } else { 0 }).await.expect(200);
    let guard = json!({ "action": "start", "require": ["online"],
        "claim": { "source": "system:timer:1", "status": "busy" } });
    let answer = service.post(&format!("/v1/users/{user}/guard"), guard).await;
    assert!([200, 409].contains(&answer.status), "{}", answer.text);
    let status = ["away", "busy", "dnd", "online"][n % 4];
    let claim = json!({ "status": status, "ttl_ms": 60_000 });
    client.put(&format!("/v1/users/{user}/claims/manual"), claim).await.expect(200);
    let hide = json!({ "invisible": n.is_multiple_of(5) });
    client.put(&format!("/v1/users/{user}/visibility"), hide).await.expect(200);
    if n.is_multiple_of(4) {
        client.logout(&second).await.expect(200);
    }
    if n.is_multiple_of(8) {
        client.logout(&first).await.expect(200);
    }
}
