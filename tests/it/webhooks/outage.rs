//! Real processes: a receiver that is away while two nodes take in load, and one of them dies.
//!
//! `ROLLCALL_TEST_RACES`, set to anything, keeps the receiver away for a minute by the clock; else
//! it is away until a counted number of attempts has failed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use api::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tests::cluster;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::scratch::Scratch;
use tests::process::wait::{pass, until};
use tests::process::{STOP_MAX, Serve};
use tokio::sync::watch;

use super::receiver::{Heard, Receiver};

/// Each with six users, and a request of its own under way.
const CLIENTS: usize = 4;
/// Between two requests of a client.
const THINKING: Duration = Duration::from_millis(40);
const PROGRESS_MAX: Duration = Duration::from_secs(45);
/// What so many users wait for was tried twice before the node dies, and again before the end.
const TRIED_TWICE: i64 = 12;
const AWAY_FOR: Duration = Duration::from_mins(1);
/// A node that died holds what it was at for 30 s; on a busy machine.
const TOLD_MAX: Duration = Duration::from_secs(90);

/// Users whose next delivery was tried at least so often.
async fn tried(audit: &Audit, attempts: i32) -> i64 {
    let query = "select count(*) from webhook_delivery where state = 'pending' and attempts >= $1";
    sqlx::query_scalar(query).bind(attempts).fetch_one(audit.pool()).await.unwrap()
}

/// What is to be told: positions by user, in order.
async fn wanted(audit: &Audit) -> BTreeMap<String, Vec<i64>> {
    let query = "select u.user_id, array_agg(e.position order by e.position)
                   from event e join account u using (user_no) where e.class = 'T' group by 1";
    let rows: Vec<(String, Vec<i64>)> =
        sqlx::query_as(query).fetch_all(audit.pool()).await.unwrap();
    rows.into_iter().collect()
}

/// What was told: positions by user, in the order of their first taking.
fn told(taken: &[Heard]) -> BTreeMap<String, Vec<i64>> {
    let mut users: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for heard in taken {
        let (user, position) = (&heard.body["data"]["user_id"], &heard.body["data"]["position"]);
        let user = user.as_str().unwrap().to_owned();
        users.entry(user).or_default().push(position.as_i64().unwrap());
    }
    users
}

/// However often, each event came under one name of its own, in the same words, signed.
fn one_name_each(heard: &[Heard]) -> usize {
    let mut said: HashMap<&str, &Value> = HashMap::new();
    let mut names: HashMap<i64, &str> = HashMap::new();
    for heard in heard {
        assert!(heard.verified, "{}", heard.id);
        let body = said.entry(&heard.id).or_insert(&heard.body);
        assert_eq!(*body, &heard.body, "{}", heard.id);
        let position = heard.body["data"]["position"].as_i64().unwrap();
        assert_eq!(*names.entry(position).or_insert(&heard.id), heard.id);
    }
    heard.len() - said.len()
}

/// The longest time in which nothing new was taken, from the receiver's return to the last.
fn longest_gap(taken: &[Heard], back: Instant) -> Duration {
    let mut before = back;
    let mut longest = Duration::ZERO;
    for at in taken.iter().map(|heard| heard.at).filter(|at| *at > back) {
        longest = longest.max(at - before);
        before = at;
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_and_a_node_killed_under_load_cost_nothing_but_time() {
    let database = cluster::empty_database().await;
    let audit = Audit::connect(&database.url).await;
    let scratch = Scratch::new();
    let serve = |name: &str| {
        let serve = Serve::new(&scratch.join(name)).database(&database.url);
        serve.arg("--webhook-allow-private")
    };
    let (a, b) = (serve("a").start().await, serve("b").start().await);
    let mut receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url });
    let admin = Api::at(&b, "root", Role::Admin);
    let made = admin.send(Method::POST, "/v1/webhooks", Some(body)).await.unwrap().ok();
    receiver.trust(&made["secret"]);

    let place = watch::Sender::new(a.address);
    let api = Api::following(&place.subscribe(), "planner", Role::Service);
    let of_a = Load::with_pause(&api, "a", CLIENTS, THINKING);
    let service_of_b = Api::at(&b, "planner", Role::Service);
    let of_b = Load::with_pause(&service_of_b, "b", CLIENTS, THINKING);
    of_a.progress(50, PROGRESS_MAX).await;
    until("some are told", PROGRESS_MAX, async || (receiver.heard().len() > 20).then_some(()))
        .await;

    receiver.kill().await;
    let dead = Instant::now();
    let enough = async |what: &str, attempts: i32| {
        let tried = async || (tried(&audit, attempts).await >= TRIED_TWICE).then_some(());
        until(what, PROGRESS_MAX, tried).await;
    };
    enough("the receiver is missed", 2).await;
    a.kill().await;
    place.send_replace(b.address);
    of_a.progress(100, PROGRESS_MAX).await;
    if std::env::var_os("ROLLCALL_TEST_RACES").is_some() {
        pass(AWAY_FOR.saturating_sub(dead.elapsed())).await;
    }
    receiver.revive();
    let (away, back) = (dead.elapsed(), Instant::now());
    of_a.progress(50, PROGRESS_MAX).await;
    let mut ledger = of_a.stop().await;
    ledger.add(of_b.stop().await);

    let wanted = wanted(&audit).await;
    let events: usize = wanted.values().map(Vec::len).sum();
    until("all is told", TOLD_MAX, async || (receiver.taken().len() >= events).then_some(())).await;
    let took = back.elapsed();
    let (heard, taken) = (receiver.heard(), receiver.taken());
    assert_eq!(told(&taken), wanted, "nothing lost, nothing else, in order");
    let twice = one_name_each(&heard);
    println!(
        "away {away:?}: {events} events, {twice} told twice, all {took:?} after it was back, \
         longest gap {:?}",
        longest_gap(&taken, back)
    );
    let path = format!("/v1/webhooks/{}", made["webhook_id"].as_str().unwrap());
    until("nothing is left", STOP_MAX, async || {
        let shown = admin.get(&path).await.ok();
        (shown["pending"] == 0 && shown["dead"] == 0).then_some(())
    })
    .await;
    audit.holds(&ledger).await;
    assert_eq!(b.stop().await.code(), Some(0));
    audit.pool().close().await;
    database.drop().await;
}
