//! Login, logout, and the sessions of a user.

use serde_json::json;
use tests::World;

#[tokio::test]
async fn a_login_makes_its_user_online_and_a_logout_offline() {
    let world = World::start().await;
    let ana = world.user("ana");
    let opened = ana.post("/v1/sessions", json!({})).await.expect(201);
    assert_eq!(opened["status"]["status"], "online");
    let session = opened["session_id"].as_str().unwrap();
    let closed = ana.logout(session).await.expect(200);
    assert_eq!(closed["status"]["status"], "offline");
    assert_eq!(closed["reason"], "user_request");
    world.finish().await;
}
