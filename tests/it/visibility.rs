//! `visibility: groups`: whom users may not see does not exist for them, in any output.

use std::time::Duration;

use api::auth::Role;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Value, json};
use tests::client::token_in;
use tests::{Client, World, within};

/// Within this a membership or a policy holds on every node, on a busy machine.
const EVERYWHERE_MAX: Duration = Duration::from_secs(3);

/// `ana` and `ben` share a group, `cleo` and `dan` another; all are online, `ben` is busy.
async fn two_teams(nodes: usize) -> World {
    let world = World::with_nodes(nodes).await;
    for (user, group) in [("ana", "one"), ("ben", "one"), ("cleo", "two"), ("dan", "two")] {
        world.user(user).login().await;
        let path = format!("/v1/groups/{group}/members/{user}");
        world.service().put(&path, json!({})).await.expect(200);
    }
    let busy = json!({ "status": "busy" });
    world.user("ben").put("/v1/users/ben/claims/manual", busy).await.expect(200);
    world.admin().put("/v1/policy", json!({ "visibility": "groups" })).await.expect(200);
    world
}

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("/v1/status?limit=1000{query}")).await.expect(200);
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["user_id"].as_str().unwrap().to_owned()).collect()
}

/// A body without what any two answers differ in.
fn timeless(mut body: Value) -> Value {
    for member in ["server_time", "position"] {
        body.as_object_mut().unwrap().remove(member);
    }
    body
}

#[tokio::test]
async fn users_see_themselves_and_their_mates_and_the_others_were_never_seen() {
    let world = two_teams(1).await;
    let ana = world.user("ana");
    assert_eq!(ana.status_word("ana").await, "online");
    assert_eq!(ana.status_word("ben").await, "busy");
    for path in ["/v1/users/cleo/status", "/v1/users/cleo/status?consistency=strong"] {
        let hidden = ana.get(path).await;
        let never = ana.get(&path.replace("cleo", "nobody")).await;
        assert_eq!((hidden.status, &hidden.text), (never.status, &never.text));
        hidden.problem(404, "user_not_found");
    }
    let asked = json!({ "users": ["cleo", "ben", "nobody", "ana"] });
    for many in [
        ana.get("/v1/status?users=cleo,ben,nobody,ana").await.expect(200),
        ana.post("/v1/status/query", asked).await.expect(200),
    ] {
        assert_eq!(many["unknown"], json!(["cleo", "nobody"]));
        assert_eq!(many["items"].as_array().unwrap().len(), 2);
    }
    assert_eq!(listed(&ana, "").await, ["ana", "ben"]);
    assert_eq!(listed(&ana, "&status=online").await, ["ana"]);
    let summary = ana.get("/v1/status/summary").await.expect(200);
    let counts = json!({ "online": 1, "away": 0, "busy": 1, "dnd": 0, "offline": 0 });
    assert_eq!((&summary["counts"], &summary["live_sessions"]), (&counts, &json!(2)));
    ana.get("/v1/groups/two/status").await.problem(403, "forbidden");
    assert_eq!(ana.get("/v1/groups/one/status").await.expect(200)["total"], 2);
    // What was refused anyway is refused in the same words, whoever it is about.
    for path in ["sessions", "explain", "transitions", "status?at=2020-01-01T00:00:00Z"] {
        let hidden = ana.get(&format!("/v1/users/cleo/{path}")).await;
        let never = ana.get(&format!("/v1/users/nobody/{path}")).await;
        assert_eq!((hidden.status, &hidden.text), (never.status, &never.text), "{path}");
        hidden.problem(403, "forbidden");
    }
    world.finish().await;
}

#[tokio::test]
async fn whoever_is_in_no_group_sees_only_themselves() {
    let world = two_teams(1).await;
    let eve = world.user("eve");
    assert_eq!(listed(&eve, "").await, Vec::<String>::new());
    eve.get("/v1/users/eve/status").await.problem(404, "user_not_found");
    eve.login().await;
    assert_eq!(eve.status_word("eve").await, "online");
    assert_eq!(listed(&eve, "").await, ["eve"]);
    let counts = eve.get("/v1/status/summary").await.expect(200)["counts"].clone();
    assert_eq!(counts, json!({ "online": 1, "away": 0, "busy": 0, "dnd": 0, "offline": 0 }));
    // A token without any role is a user's, too.
    assert_eq!(listed(&world.client("ana", &[]), "").await, ["ana", "ben"]);
    world.finish().await;
}

#[tokio::test]
async fn nothing_that_a_hidden_user_does_changes_an_answer() {
    let world = two_teams(1).await;
    let ana = world.user("ana");
    let query = "/v1/status?users=ana,ben,cleo,nobody";
    let first = ana.get(query).await;
    let tag = first.header("etag").to_owned();
    let paths = [
        "/v1/status?limit=10",
        "/v1/status/summary",
        "/v1/groups/one/status",
        "/v1/users/ben/status",
    ];
    let mut before = Vec::new();
    for path in paths {
        before.push(timeless(ana.get(path).await.expect(200)));
    }
    world.user("cleo").login().await;
    let body = json!({ "status": "dnd", "text": "secret" });
    world.user("cleo").put("/v1/users/cleo/claims/manual", body).await.expect(200);
    world.user("frank").login().await;
    let request = ana.request(Method::GET, query).header(IF_NONE_MATCH, &tag);
    assert_eq!(ana.send(request).await.status, 304);
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(timeless(ana.get(path).await.expect(200)), before, "{path}");
    }
    world.finish().await;
}

#[tokio::test]
async fn services_auditors_admins_and_analysts_see_as_before() {
    let world = two_teams(1).await;
    let analyst = world.client("anna", &[Role::Analyst]);
    let both = world.client("ana", &[Role::User, Role::Service]);
    for client in [world.service(), world.auditor(), world.admin(), analyst, both] {
        assert_eq!(client.status_word("cleo").await, "online");
        assert_eq!(listed(&client, "").await, ["ana", "ben", "cleo", "dan"]);
        let summary = client.get("/v1/status/summary").await.expect(200);
        assert_eq!(
            (&summary["counts"]["online"], &summary["live_sessions"]),
            (&json!(3), &json!(4))
        );
    }
    world.finish().await;
}

#[tokio::test]
async fn a_group_of_the_token_counts_for_its_bearer_and_is_not_stored() {
    let world = two_teams(1).await;
    let eva = world.nobody().with_token(Some(token_in("eva", &["two", "not a group", "nothing"])));
    eva.login().await;
    assert_eq!(listed(&eva, "").await, ["cleo", "dan", "eva"]);
    eva.get("/v1/users/ana/status").await.problem(404, "user_not_found");
    let group = eva.get("/v1/groups/two/status").await.expect(200);
    assert_eq!(group["total"], 2);
    assert_eq!(listed(&world.user("cleo"), "").await, ["cleo", "dan"]);
    assert_eq!(listed(&world.user("eva"), "").await, ["eva"]);
    world.finish().await;
}

#[tokio::test]
async fn an_invisible_mate_is_offline_and_a_hidden_one_is_nothing() {
    let world = two_teams(1).await;
    for user in ["ben", "cleo"] {
        let path = format!("/v1/users/{user}/visibility");
        world.user(user).put(&path, json!({ "invisible": true })).await.expect(200);
    }
    let ana = world.user("ana");
    assert_eq!(ana.status_word("ben").await, "offline");
    ana.get("/v1/users/cleo/status").await.problem(404, "user_not_found");
    assert_eq!(listed(&ana, "&status=offline").await, ["ben"]);
    let counts = ana.get("/v1/status/summary").await.expect(200)["counts"].clone();
    assert_eq!(counts, json!({ "online": 1, "away": 0, "busy": 0, "dnd": 0, "offline": 1 }));
    world.finish().await;
}

#[tokio::test]
async fn a_new_mate_and_a_new_policy_are_seen_on_every_node_soon() {
    let world = two_teams(2).await;
    let ana = world.user("ana");
    let there = world.at_node(&ana, 1);
    let sees = async |client: &Client| listed(client, "").await;
    within(EVERYWHERE_MAX, "the policy holds there", async || sees(&there).await.len() == 2).await;
    let path = "/v1/groups/one/members/dan";
    world.service().put(path, json!({})).await.expect(200);
    assert_eq!(sees(&ana).await, ["ana", "ben", "dan"]);
    within(EVERYWHERE_MAX, "dan is seen there", async || sees(&there).await.len() == 3).await;
    world.service().delete(path).await.expect(200);
    assert_eq!(sees(&ana).await, ["ana", "ben"]);
    within(EVERYWHERE_MAX, "dan is gone there", async || sees(&there).await.len() == 2).await;
    world.admin().put("/v1/policy", json!({ "visibility": "all" })).await.expect(200);
    assert_eq!(sees(&ana).await.len(), 4);
    within(EVERYWHERE_MAX, "all are seen there", async || sees(&there).await.len() == 4).await;
    world.finish().await;
}
