//! The harness itself.

use std::time::Duration;

use tests::World;

#[tokio::test]
#[should_panic(expected = "finish")]
async fn forgetting_to_finish_a_world_fails_its_test() {
    let world = World::start().await;
    world.user("ana").login().await;
}

#[tokio::test]
async fn time_that_passes_while_nodes_listen_is_no_outage_and_a_jump_is_one() {
    let world = World::start().await;
    let before = world.now().await;
    world.advance_s(100).await;
    assert!(world.now().await - before >= chrono::TimeDelta::seconds(100));
    assert!(world.nodes[0].realm().now() - before >= chrono::TimeDelta::seconds(100));
    assert_eq!(world.nodes[0].realm().silences().iter().count(), 0);
    world.outage(Duration::from_secs(10)).await;
    assert_eq!(world.nodes[0].realm().silences().iter().count(), 1);
    world.finish().await;
}
