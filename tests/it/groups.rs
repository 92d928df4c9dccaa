//! Groups: who belongs to one, who may look at it, how its members are counted.

use std::time::Duration;

use api::auth::Role;
use projections::groups::{GROUPS_OF_USER_MAX, MEMBERS_MAX};
use serde_json::{Value, json};
use tests::client::token_in;
use tests::{World, instant, within};

/// Within this a membership holds on every node, with the time that a busy machine takes.
const EVERYWHERE_MAX: Duration = Duration::from_secs(3);

async fn join(world: &World, group: &str, user: &str) -> Value {
    let path = format!("/v1/groups/{group}/members/{user}");
    world.service().put(&path, json!({})).await.expect(200)
}

fn names(group: &Value) -> Vec<&str> {
    let items = group["items"].as_array().unwrap().iter();
    items.map(|item| item["user_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_membership_is_made_and_ended_and_both_are_repeatable() {
    let world = World::start().await;
    let path = "/v1/groups/consultation:42/members/ana";
    let joined = join(&world, "consultation:42", "ana").await;
    assert_eq!((&joined["group"], &joined["user_id"]), (&json!("consultation:42"), &json!("ana")));
    assert_eq!(joined["member"], true);
    instant(&joined["joined_at"]);
    assert!(joined["position"].is_i64());
    world.advance_s(2).await;
    assert_eq!(join(&world, "consultation:42", "ana").await["joined_at"], joined["joined_at"]);
    for _ in 0..2 {
        let left = world.service().delete(path).await.expect(200);
        assert_eq!((&left["member"], &left["joined_at"]), (&json!(false), &Value::Null));
    }
    let nobody = "/v1/groups/consultation:42/members/nobody";
    world.service().delete(nobody).await.problem(404, "user_not_found");
    world.finish().await;
}

#[tokio::test]
async fn only_services_change_members_and_names_have_a_shape() {
    let world = World::start().await;
    let path = "/v1/groups/team/members/ana";
    for client in [world.user("ana"), world.admin(), world.auditor()] {
        client.put(path, json!({})).await.problem(403, "forbidden");
        client.delete(path).await.problem(403, "forbidden");
    }
    let service = world.service();
    let long = "g".repeat(129);
    for group in ["a%20b", "a%2Fb", "%C3%A4", long.as_str()] {
        let path = format!("/v1/groups/{group}/members/ana");
        service.put(&path, json!({})).await.problem(422, "invalid_group");
        service.get(&format!("/v1/groups/{group}/status")).await.problem(422, "invalid_group");
    }
    service.put("/v1/groups/team/members/a%20b", json!({})).await.problem(422, "invalid_user_id");
    service.put(&format!("{path}?x=1"), json!({})).await.problem(400, "unknown_parameter");
    let longest = "g".repeat(128);
    join(&world, &longest, "ana").await;
    join(&world, "A.z_9@x:y+z%7Cw-v", "ana").await;
    world.finish().await;
}

#[tokio::test]
async fn the_bounds_of_groups_hold_also_when_many_join_at_once() {
    let world = World::with_nodes(2).await;
    let crowd = "insert into membership select 'full', n + 1000000, now() from
            generate_series(1, $1) n
        union all select 'g' || n, user_no, now() from account, generate_series(1, $2) n
         where user_id = 'busy'";
    join(&world, "g1", "busy").await;
    world.service().delete("/v1/groups/g1/members/busy").await.expect(200);
    sqlx::query(crowd)
        .bind(MEMBERS_MAX as i32 - 1)
        .bind(GROUPS_OF_USER_MAX as i32 - 1)
        .execute(&world.pool)
        .await
        .unwrap();
    let tries = (0..8).map(|n| {
        let service = world.at_node(&world.service(), n % 2);
        async move {
            let member = format!("/v1/groups/full/members/u{n}");
            let group = format!("/v1/groups/more{n}/members/busy");
            let (full, many) =
                tokio::join!(service.put(&member, json!({})), service.put(&group, json!({})));
            (full, many)
        }
    });
    let (full, many): (Vec<_>, Vec<_>) = futures::future::join_all(tries).await.into_iter().unzip();
    for (answers, code) in [(full, "group_full"), (many, "too_many_groups")] {
        let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
        assert_eq!(good.len(), 1, "{code}");
        for refused in bad {
            refused.problem(422, code);
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn members_by_store_or_by_token_and_the_entitled_look_at_a_group_and_nobody_else() {
    let world = World::start().await;
    let path = "/v1/groups/team/status";
    join(&world, "team", "ana").await;
    world.user("ana").login().await;
    let by_token = world.nobody().with_token(Some(token_in("eva", &["other", "team"])));
    let entitled = [world.service(), world.auditor(), world.admin()];
    for client in entitled.iter().chain(&[world.user("ana"), by_token]) {
        let group = client.get(path).await.expect(200);
        assert_eq!((&group["total"], &group["counts"]["online"]), (&json!(1), &json!(1)));
    }
    let other = world.nobody().with_token(Some(token_in("ben", &["tea", "Team", "team2"])));
    let analyst = world.client("anna", &[Role::Analyst]);
    for client in [world.user("ben"), analyst, other] {
        client.get(path).await.problem(403, "forbidden");
        client.get("/v1/groups/nothing/status").await.problem(403, "forbidden");
    }
    world.nobody().get(path).await.problem(401, "unauthenticated");
    let empty = world.service().get("/v1/groups/nothing/status").await.expect(200);
    assert_eq!((&empty["total"], &empty["items"]), (&json!(0), &json!([])));
    world.finish().await;
}

#[tokio::test]
async fn a_group_is_counted_whole_and_paged_without_a_gap_or_a_double() {
    let world = World::start().await;
    for n in 0..7 {
        let name = format!("u{n}");
        join(&world, "team", &name).await;
        let user = world.user(&name);
        let session = user.login().await;
        if n == 3 {
            user.logout(&session).await.expect(200);
        }
    }
    world.user("stranger").login().await;
    join(&world, "team", "never").await;
    let (service, mut met, mut cursor) = (world.service(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/groups/team/status?limit=3{cursor}");
        let page = service.get(&path).await.expect(200);
        assert_eq!((&page["total"], &page["never_seen"]), (&json!(8), &json!(1)));
        let counts = json!({ "online": 6, "away": 0, "busy": 0, "dnd": 0, "offline": 1 });
        assert_eq!(page["counts"], counts);
        met.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(met, ["u0", "u1", "u2", "u3", "u4", "u5", "u6"]);
    service.get("/v1/groups/team/status?limit=1001").await.problem(422, "invalid_limit");
    let path = "/v1/groups/team/status?cursor=a%20b";
    service.get(path).await.problem(400, "invalid_parameter");
    world.finish().await;
}

#[tokio::test]
async fn an_invisible_member_is_offline_to_the_others_in_items_and_counts() {
    let world = World::start().await;
    let path = "/v1/groups/team/status";
    for name in ["ana", "ben"] {
        join(&world, "team", name).await;
        world.user(name).login().await;
    }
    let hide = json!({ "invisible": true });
    world.user("ana").put("/v1/users/ana/visibility", hide).await.expect(200);
    let others = world.user("ben").get(path).await.expect(200);
    assert_eq!((&others["counts"]["online"], &others["counts"]["offline"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&others["items"][0]["user_id"], &others["items"][0]["status"]),
        (&json!("ana"), &json!("offline"))
    );
    assert!(others["items"][0]["sessions"].is_null());
    let service = world.service().get(path).await.expect(200);
    assert_eq!(service["counts"]["online"], 2);
    assert_eq!(service["items"][0]["invisible"], true);
    // A count is nobody's own: hers is as others have it, her status is her own.
    let own = world.user("ana").get(path).await.expect(200);
    assert_eq!((&own["counts"], &own["items"][0]["status"]), (&others["counts"], &json!("online")));
    world.finish().await;
}

#[tokio::test]
async fn a_membership_holds_here_at_once_and_elsewhere_soon() {
    let world = World::with_nodes(2).await;
    let (ana, path) = (world.user("ana"), "/v1/groups/team/status");
    let there = world.at_node(&ana, 1);
    ana.get(path).await.problem(403, "forbidden");
    there.get(path).await.problem(403, "forbidden");
    join(&world, "team", "ana").await;
    ana.get(path).await.expect(200);
    within(EVERYWHERE_MAX, "joined there", async || there.get(path).await.status == 200).await;
    world.service().delete("/v1/groups/team/members/ana").await.expect(200);
    ana.get(path).await.problem(403, "forbidden");
    within(EVERYWHERE_MAX, "left there", async || there.get(path).await.status == 403).await;
    world.finish().await;
}
