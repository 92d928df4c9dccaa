//! Pages that watch groups, and cease to belong to them.

use serde_json::json;
use tests::Options;

use super::site;

#[tokio::test]
async fn who_ceases_to_belong_to_a_watched_group_loses_that_group_alone() {
    let Some(mut site) = site(Options { nodes: 2, ..Options::default() }).await else { return };
    let service = site.world.at_node(&site.world.service(), 1);
    let member = |group: &str, user: &str| format!("/v1/groups/{group}/members/{user}");
    let (pz, mate) = (site.world.user("pz"), site.world.user("mate"));
    let (pz, mate) = (site.world.at_node(&pz, 1), site.world.at_node(&mate, 1));
    pz.login().await;
    mate.login().await;
    for (group, user) in [("kept", "mate"), ("others", "pz")] {
        service.put(&member(group, user), json!({})).await.expect(200);
    }
    for transport in ["websocket", "sse", "poll"] {
        for group in ["gone", "kept"] {
            service.put(&member(group, "ana"), json!({})).await.expect(200);
        }
        for client in [&pz, &mate] {
            let path = if client.token == pz.token { "pz" } else { "mate" };
            let path = format!("/v1/users/{path}/claims/manual");
            client.put(&path, json!({ "status": "busy" })).await.expect(200);
        }
        let ana = site.world.user("ana");
        tests::eventually("the membership holds", async || {
            ana.get("/v1/changes?groups=gone,kept").await.status == 200
        })
        .await;
        let options = json!({ "transports": [transport], "watch": ["pz"] });
        let page = site.connected(&ana, options).await;
        let note = "void (lost = [], presence.on('error', (e) => lost.push(e.groups)))";
        page.eval(note).await;
        page.eval("presence.watch({ groups: ['gone', 'kept'] })").await;
        page.until("['pz', 'mate'].every((u) => presence.statusOf(u)?.status === 'busy')").await;
        service.delete(&member("gone", "ana")).await.expect(200);
        tests::eventually("it is no member", async || {
            ana.get("/v1/changes?groups=gone").await.status == 403
        })
        .await;
        // The next connection, or poll.
        site.world.restart_node().await;
        page.until("lost.length === 1 && isOpen()").await;
        for (client, user) in [(&pz, "pz"), (&mate, "mate")] {
            let path = format!("/v1/users/{user}/claims/manual");
            client.put(&path, json!({ "status": "dnd" })).await.expect(200);
            page.until(&format!("presence.statusOf('{user}').status === 'dnd'")).await;
        }
        // One of others is like one that is not there, and neither costs anything.
        page.eval("presence.watch({ groups: ['others', 'kept'] })").await;
        page.until("lost.length === 2").await;
        page.eval("presence.watch({ groups: ['none'] })").await;
        page.until("lost.length === 3").await;
        page.eval("presence.watch(['mate'])").await;
        assert_eq!(page.eval("lost").await, json!([["gone"], ["others"], ["none"]]));
        let plain = json!({ "code": "forbidden", "fatal": false });
        assert_eq!(page.eval("errors").await, json!([plain, plain, plain]), "{transport}");
        mate.put("/v1/users/mate/claims/manual", json!({ "status": "away" })).await.expect(200);
        page.until("presence.statusOf('mate').status === 'away' && isOpen()").await;
        page.close().await;
    }
    site.world.finish().await;
}
