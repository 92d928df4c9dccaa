//! Traps of partitions: made and removed while the log is written and read.

use std::time::Duration;

use domain::Status;
use projections::Error;
use projections::leaves::{self, LEAF_POSITIONS};
use sqlx::{Connection, Executor};
use tests::eventually;
use uuid::Uuid;

use crate::traps_lab::{Lab, asked, beat, claim, open, receipt};

/// Puts the log's next position just before the end of the leaf of that number.
async fn near_the_end(lab: &Lab, leaf: i64, left: i64) {
    let position = (leaf + 1) * LEAF_POSITIONS - left - 1;
    lab.run(&format!("select setval('log_pos', {position})")).await;
}

#[tokio::test]
async fn a_missing_leaf_is_made_and_the_batch_appended_again() {
    let lab = Lab::with_nodes(1).await;
    let (node, ana) = (&lab.nodes[0], lab.user("ana").await);
    let last: i64 = lab
        .number(
            "select count(*) - 1 from pg_inherits where inhparent =
        'event_t'::regclass",
        )
        .await;
    let session = Uuid::now_v7();
    receipt(node.execute(ana, &open(session), asked()).await);
    for class in ["transitions", "heartbeats"] {
        let last = if class == "transitions" { last } else { last + leaves::LEAVES_AHEAD + 1 };
        // No event fits any more; ticks draw no position.
        near_the_end(&lab, last, 0).await;
        let position = if class == "transitions" {
            receipt(node.execute(ana, &claim(Status::Busy), asked()).await).position
        } else {
            node.beat(beat(session, ana, Duration::ZERO)).await.unwrap().unwrap()
        };
        assert!(position >= (last + 1) * LEAF_POSITIONS, "{class}: {position}");
    }
    assert_eq!(lab.names_of("ana").await, ["session_opened", "claim_set", "heartbeat"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_batch_that_begins_in_one_leaf_may_end_in_the_next() {
    let lab = Lab::start().await;
    near_the_end(&lab, 0, 3).await;
    let mut logins = Vec::new();
    for number in 0..8 {
        logins.push(lab.decided(&format!("user-{number}"), &open(Uuid::now_v7())).await);
    }
    assert_eq!(lab.commit(logins).await, "a".repeat(8));
    let in_second = format!("select count(*) from event where position >= {LEAF_POSITIONS}");
    assert_eq!(lab.number(&in_second).await, 5);
    lab.finish().await;
}

#[tokio::test]
async fn many_nodes_may_make_the_same_leaf_at_one_time() {
    let lab = Lab::start().await;
    near_the_end(&lab, 6, 0).await;
    let making = (0..6).map(|_| leaves::make_ahead(&lab.database));
    for made in futures::future::join_all(making).await {
        made.unwrap();
    }
    let count = "select count(*) from pg_inherits
        where inhparent in ('event_t'::regclass, 'event_h'::regclass)";
    assert_eq!(lab.number(count).await, 4 + 2 * 3);
    lab.finish().await;
}

#[tokio::test]
async fn leaves_come_and_go_while_a_reader_has_the_log_open_and_writes_go_on() {
    let lab = Lab::with_nodes(1).await;
    let (node, ana) = (&lab.nodes[0], lab.user("ana").await);
    near_the_end(&lab, 0, 0).await;
    let session = Uuid::now_v7();
    receipt(node.execute(ana, &open(session), asked()).await);
    let mut reader = lab.server().await;
    let mut export = reader.begin().await.unwrap();
    export.execute("select count(*) from event").await.unwrap();
    // Made: asks for nothing that the reader holds.
    let mut owner = lab.database.owner().await.unwrap();
    owner.execute("set lock_timeout = '1s'").await.unwrap();
    leaves::make(&mut owner, leaves::Class::Heartbeats, 9).await.unwrap();
    leaves::make(&mut owner, leaves::Class::Transitions, 9).await.unwrap();
    // Removed: waits for the reader, in nobody's way.
    let leaf = "event_h_0000000000000000";
    let database = lab.database.clone();
    let removing = tokio::spawn(async move { leaves::remove(&database, leaf).await });
    let pending = format!(
        "select count(*) from pg_inherits where inhrelid = '{leaf}'::regclass and inhdetachpending"
    );
    eventually("the removal has begun", async || lab.number(&pending).await == 1).await;
    for status in [Status::Busy, Status::Dnd, Status::Away].into_iter().cycle().take(30) {
        receipt(node.execute(ana, &claim(status), asked()).await);
        assert!(node.beat(beat(session, ana, Duration::ZERO)).await.unwrap().is_some());
        // A second reader gets through as well.
        assert!(lab.number("select count(*) from event").await > 0);
    }
    assert!(!removing.is_finished(), "the reader still sees it");
    export.execute("select count(*) from event").await.unwrap();
    export.rollback().await.unwrap();
    removing.await.unwrap().unwrap();
    let there = format!("select count(*) from pg_class where relname = '{leaf}'");
    assert_eq!(lab.number(&there).await, 0);
    receipt(node.execute(ana, &claim(Status::Busy), asked()).await);
    lab.finish().await;
}

#[tokio::test]
async fn nothing_but_a_leaf_of_heartbeats_can_be_removed() {
    let lab = Lab::start().await;
    for name in ["event_t_0000000000000000", "event_h", "account", "event_h_0; drop table event"] {
        let refused = leaves::remove(&lab.database, name).await;
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{name}: {refused:?}");
    }
    lab.finish().await;
}
