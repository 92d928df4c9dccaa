//! Traps of the mail: an order that readers can follow, rights, and counts that stay right.

use std::time::Duration;

use domain::{UserId, UserNo};
use projections::mailman::Mailman;
use projections::messages::{self, Draft, To};
use sqlx::{Connection, Executor};
use tests::eventually;

use crate::traps_lab::Lab;

const POST: &str = "select delivered from post_message(gen_random_uuid(), 'message', null, $1,
    null, null, 'x', interval '7 days', interval '1 hour', 1000)";

async fn number(lab: &Lab, user: &str) -> UserNo {
    let user: UserId = user.parse().unwrap();
    projections::names::Names::new(lab.pool.clone()).number(&user).await.unwrap()
}

fn draft(to: To, body: &str) -> Draft {
    Draft { to, sender: None, title: None, body: body.to_owned() }
}

#[tokio::test]
async fn who_follows_the_deliveries_never_passes_over_one_that_commits_late() {
    let lab = Lab::start().await;
    let (ana, ben) = (number(&lab, "ana").await, number(&lab, "ben").await);
    let mut slow = lab.server().await;
    let mut open = slow.begin().await.unwrap();
    sqlx::query(POST).bind(ana.0).execute(&mut *open).await.unwrap();
    // Another receiver: nothing but the numbers is common to both.
    let pool = lab.pool.clone();
    let quick =
        tokio::spawn(async move { messages::post(&pool, &draft(To::Person(ben), "y")).await });
    eventually("the second waits for the first", async || {
        lab.number(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database())",
        )
        .await
            == 1
    })
    .await;
    assert_eq!(messages::follow(&lab.pool, 0, 10).await.unwrap(), []);
    open.commit().await.unwrap();
    quick.await.unwrap().unwrap();
    let due = messages::follow(&lab.pool, 0, 10).await.unwrap();
    let receivers: Vec<_> = due.iter().map(|due| due.receiver).collect();
    assert_eq!(receivers, [Some(ana), Some(ben)]);
    lab.finish().await;
}

#[tokio::test]
async fn the_server_changes_mail_and_members_by_its_functions_alone() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    for statement in [
        "insert into membership values ('g', 1, now())",
        "update membership set user_no = 1",
        "delete from membership",
        "delete from membership_change",
        "insert into message (message_id) values (gen_random_uuid())",
        "update message set body = 'y'",
        "delete from message",
        "insert into delivery values (1, gen_random_uuid(), 1)",
        "update delivery set receiver_no = 1",
        "delete from delivery",
        "update mailbox set waiting = 0",
        "delete from mailbox",
        "select nextval('delivery_number')",
        "select pg_advisory_xact_lock(mail_lock_key())",
    ] {
        let error = server.execute(statement).await.expect_err(statement);
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}");
    }
    for role in ["rollcall_auditor", "rollcall_analyst"] {
        let may = format!(
            "select count(*) from unnest(array['message', 'delivery']) t
            where has_table_privilege('{role}', t, 'select')"
        );
        assert_eq!(lab.number(&may).await, 0, "{role}");
    }
    lab.finish().await;
}

#[tokio::test]
async fn counts_stay_right_while_many_send_acknowledge_and_forget() {
    const ROUNDS: usize = 30;
    let lab = Lab::start().await;
    let users = [number(&lab, "a").await, number(&lab, "b").await, number(&lab, "c").await];
    for user in users {
        let join = format!("select joined_at from join_group('team', {}, 10, 10)", user.0);
        lab.run(&join).await;
    }
    let pool = &lab.pool;
    let send = async {
        for n in 0..ROUNDS {
            messages::post(pool, &draft(To::Group("team".parse().unwrap()), "x")).await.unwrap();
            messages::post(pool, &draft(To::Person(users[n % 3]), "y")).await.unwrap();
        }
    };
    let read = users.map(async |user| {
        let mut met = 0;
        while met < ROUNDS + ROUNDS / 3 {
            let waiting = messages::pending(pool, user, 0, 7).await.unwrap();
            let ids: Vec<_> = waiting.iter().map(|(_, message)| message.id).collect();
            met += messages::acknowledge(pool, user, &ids).await.unwrap() as usize;
            messages::forget_old(pool).await.unwrap();
        }
    });
    tokio::join!(send, futures::future::join_all(read));
    assert_eq!(lab.number("select sum(waiting)::bigint from mailbox").await, 0);
    assert_eq!(lab.number("select count(*) from delivery where receiver_no > 0").await, 0);
    assert_eq!(lab.number("select count(*) from message where kind <> 'group'").await, 0);
    tests::clock::shift(pool, Duration::from_hours(1)).await;
    messages::forget_old(pool).await.unwrap();
    assert_eq!(lab.number("select count(*) from message").await, 0);
    assert_eq!(lab.number("select count(*) from delivery").await, 0);
    lab.finish().await;
}

#[tokio::test]
async fn a_mailman_who_was_cut_off_goes_on_where_he_was() {
    let lab = Lab::start().await;
    let ana = number(&lab, "ana").await;
    let mail = std::sync::Arc::new(Mailman::new(lab.pool.clone()).await.unwrap());
    let mut inbox = mail.subscribe(ana);
    messages::post(&lab.pool, &draft(To::Everybody, "one")).await.unwrap();
    lab.run("alter table delivery rename to away").await;
    assert!(mail.step().await.is_err());
    lab.run("alter table away rename to delivery").await;
    messages::post(&lab.pool, &draft(To::Everybody, "two")).await.unwrap();
    assert!(!mail.step().await.unwrap());
    for body in ["one", "two"] {
        assert_eq!(inbox.next().await.unwrap().message.body, body);
    }
    lab.finish().await;
}

#[tokio::test]
async fn old_mail_of_a_large_group_is_forgotten_in_small_steps() {
    let lab = Lab::start().await;
    lab.run("insert into membership select 'team', n, now() from generate_series(1, 2500) n").await;
    for _ in 0..2 {
        messages::post(&lab.pool, &draft(To::Group("team".parse().unwrap()), "x")).await.unwrap();
    }
    tests::clock::shift(&lab.pool, messages::KEPT_FOR).await;
    let (mut steps, mut left) = (0, lab.number("select count(*) from delivery").await);
    assert_eq!(left, 5_002);
    while lab.number("select forget_messages(1000)::integer::bigint").await == 1 {
        let now = lab.number("select count(*) from delivery").await;
        assert_eq!(left - now, 1_000);
        (steps, left) = (steps + 1, now);
    }
    assert_eq!(steps, 5);
    let rest = "select (select count(*) from message) + (select count(*) from delivery)
        + (select sum(waiting)::bigint from mailbox)";
    assert_eq!(lab.number(rest).await, 0);
    lab.finish().await;
}
