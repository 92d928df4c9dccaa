//! What a page makes of a server that goes, a network that fails, a token that ends.

use std::time::Duration;

use api::live::LiveSettings;
use domain::Policy;
use serde_json::{Value, json};
use tests::line::Line;
use tests::{Client, Options};

use super::{PICTURES, seen, site};

/// Bob's statuses, one after the other.
async fn bob_does(bob: &Client, statuses: &[&str]) {
    for status in statuses {
        let body = json!({ "status": status });
        bob.put("/v1/users/bob/claims/manual", body).await.expect(200);
    }
}

#[tokio::test]
async fn a_page_survives_a_restart_of_the_server_and_misses_nothing() {
    let Some(mut site) = site(Options { nodes: 2, ..Options::default() }).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let bob = site.world.at_node(&bob, 1);
    bob.login().await;
    for (round, transport) in ["websocket", "sse", "poll"].into_iter().enumerate() {
        let options = json!({ "transports": [transport], "watch": ["bob"] });
        let page = site.connected(&ana, options).await;
        page.until("told.length === 1").await;
        let session = page.eval("presence.sessionId").await;
        bob_does(&bob, &["busy"]).await;
        page.until("told.length === 2").await;
        site.world.restart_node().await;
        bob_does(&bob, &["dnd", "away", "online"]).await;
        page.until("told.length >= 5").await;
        let statuses = json!(["online", "busy", "dnd", "away", "online"]);
        assert_eq!(page.eval("statuses('bob')").await, statuses, "{transport}: each once");
        page.until("isOpen()").await;
        assert_eq!(page.eval("presence.sessionId").await, session, "{transport}");
        if transport == "websocket" {
            // A poll may find the next server without having missed the one before.
            let states = page.eval("states.map((s) => s.state).slice(0, 3)").await;
            assert_eq!(states, json!(["connecting", "open", "retrying"]));
        }
        page.close().await;
        seen(&bob, "ana", "offline").await;
        assert_eq!(site.world.count("ana", "session_opened").await, round as i64 + 1);
    }
    site.world.finish().await;
}

#[tokio::test]
async fn a_page_whose_network_is_silent_for_a_while_resumes_its_session() {
    let ping = Duration::from_millis(400);
    let live = LiveSettings { ping_every: ping, pong_max: ping, ..LiveSettings::default() };
    let policy = Policy { grace_ms: 60_000, ..Policy::default() };
    let Some(site) = site(Options { live, policy, ..Options::default() }).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let network = Line::to(&ana.base_url).await;
    bob.login().await;
    let options = json!({ "from": network.base_url, "watch": ["bob"] });
    let page = site.connected(&ana, options).await;
    page.until("told.length === 1").await;
    let session = page.eval("presence.sessionId").await;
    network.silence(true);
    page.offline(true).await;
    bob_does(&bob, &["busy", "dnd"]).await;
    page.until("presence.state.state === 'retrying'").await;
    page.picture(PICTURES.as_ref(), "3-retrying").await;
    assert_eq!(bob.status_word("ana").await, "online", "nobody sees a short break");
    // Some ten seconds.
    page.until("states.filter((s) => s.state === 'retrying').length >= 4").await;
    network.silence(false);
    page.offline(false).await;
    page.until("isOpen() && told.length >= 3").await;
    assert_eq!(page.eval("statuses('bob')").await, json!(["online", "busy", "dnd"]));
    assert_eq!(page.eval("presence.sessionId").await, session);
    assert_eq!(page.eval("errors").await, json!([]));
    page.picture(PICTURES.as_ref(), "4-open-again").await;
    let story = site.world.transitions("ana").await;
    let story: Vec<&str> = story.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(story, ["session_opened", "session_resumed"]);
    site.world.finish().await;
}

#[tokio::test]
async fn a_session_that_ended_in_the_meantime_is_followed_by_another_and_nothing_is_missed() {
    let policy = Policy { grace_ms: 100, away_after_ms: 600_000, ..Policy::default() };
    let ping = Duration::from_millis(300);
    let live = LiveSettings { ping_every: ping, pong_max: ping, ..LiveSettings::default() };
    let Some(site) = site(Options { live, policy, ..Options::default() }).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let network = Line::to(&ana.base_url).await;
    bob.login().await;
    let options =
        json!({ "from": network.base_url, "watch": ["bob"], "device": { "label": "desk" } });
    let page = site.connected(&ana, options).await;
    page.until("told.length === 1").await;
    network.silence(true);
    page.offline(true).await;
    seen(&bob, "ana", "offline").await;
    bob_does(&bob, &["busy", "dnd"]).await;
    page.until("presence.state.state === 'retrying'").await;
    network.silence(false);
    page.offline(false).await;
    seen(&bob, "ana", "online").await;
    page.until("told.length >= 3").await;
    assert_eq!(page.eval("statuses('bob')").await, json!(["online", "busy", "dnd"]));
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["count"], 1);
    assert_eq!(
        sessions["items"][0]["device"],
        json!({ "id": null, "kind": "web", "label": "desk" })
    );
    site.world.finish().await;
}

/// A proxy that refuses to upgrade, as far as a browser can tell.
const NO_SOCKETS: &str = "void (WebSocket = class extends WebSocket {
    constructor(url, protocols) {
        super(String(url).replace('/v1/ws', '/v1/no'), protocols);
    }
})";

#[tokio::test]
async fn where_websockets_or_streams_do_not_pass_the_next_transport_is_taken() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    bob.login().await;
    for (blocked, transport) in [(1, "sse"), (2, "poll")] {
        let page = site.tab().await;
        page.eval(NO_SOCKETS).await;
        if blocked > 1 {
            page.block(&["*/v1/stream*"]).await;
        }
        site.connect(&page, &ana, json!({ "watch": ["bob"] })).await;
        page.until("isOpen() && told.length === 1").await;
        assert_eq!(page.eval("presence.state.transport").await, transport);
        bob_does(&bob, &["busy"]).await;
        page.until("told.length === 2").await;
        page.eval("presence.watch('ana')").await;
        page.until("presence.statusOf('ana')?.status === 'online'").await;
        bob_does(&bob, &["online"]).await;
        page.until("statuses('bob').length === 3").await;
        let count = ana.get("/v1/users/ana/sessions").await.expect(200)["count"].clone();
        assert_eq!(count, 1, "all attempts are one session");
        page.picture(PICTURES.as_ref(), &format!("5-{transport}")).await;
        page.close().await;
        seen(&bob, "ana", "offline").await;
    }
    site.world.finish().await;
}

#[tokio::test]
async fn a_token_that_is_revoked_is_asked_for_anew_and_without_one_the_client_stops() {
    let Some(site) = site(Options::default()).await else { return };
    let ana = site.world.user("ana");
    let tokens: Vec<String> =
        ["a", "b"].map(|group| tests::client::token_in("ana", &[group])).to_vec();
    for (transport, round) in [("websocket", 0), ("poll", 1)] {
        // Given once, it stops for want of another one; given two, it goes on.
        let page = site.tab().await;
        let options = json!({ "tokens": tokens[round..], "transports": [transport] });
        site.connect(&page, &ana, options).await;
        page.until("isOpen()").await;
        let other = ana.with_token(Some(tokens[round].clone()));
        let session = other.login().await;
        let path = format!("/v1/sessions/{session}?revoke_token=true");
        other.delete(&path).await.expect(200);
        if round == 0 {
            page.until("states.length > 3 && isOpen()").await;
            assert_eq!(page.eval("errors").await, json!([]));
        } else {
            page.eval("presence.setManual('busy').catch(() => {})").await;
            page.eval("presence.closed").await;
            let fatal = json!([{ "code": "no_token", "fatal": true }]);
            assert_eq!(page.eval("errors.filter((e) => e.fatal)").await, fatal);
            page.picture(PICTURES.as_ref(), "6-stopped").await;
        }
        page.close().await;
    }
    site.world.finish().await;
}

#[tokio::test]
async fn what_the_server_refuses_or_somebody_ends_on_purpose_is_not_tried_again() {
    let Some(site) = site(Options::default()).await else { return };
    let ana = site.world.user("ana");
    let auditor = site.world.auditor();
    let wanted: [(&Client, &str, Value); 2] = [
        (&ana, "invalid_token", json!({ "token": "nonsense" })),
        (&auditor, "forbidden", json!({ "transports": ["sse"] })),
    ];
    for (client, code, options) in wanted {
        let page = site.tab().await;
        site.connect(&page, client, options).await;
        page.eval("presence.closed").await;
        assert_eq!(page.eval("errors").await, json!([{ "code": code, "fatal": true }]));
        assert_eq!(page.eval("states.map((s) => s.state)").await, json!(["connecting", "closed"]));
        page.close().await;
    }
    for transport in ["websocket", "sse"] {
        let page = site.connected(&ana, json!({ "transports": [transport] })).await;
        site.world.admin().delete("/v1/users/ana/sessions").await.expect(200);
        if transport == "sse" {
            // Found out by the next heartbeat, as on every line that hears nothing of sessions.
            page.eval("dispatchEvent(new Event('online'))").await;
        }
        page.eval("presence.closed").await;
        let fatal = json!([{ "code": "session_closed", "fatal": true }]);
        assert_eq!(page.eval("errors").await, fatal, "{transport}");
        assert_eq!(page.eval("presence.state.error.reason").await, "admin_reset");
        page.close().await;
    }
    assert_eq!(site.world.count("ana", "session_opened").await, 2);
    site.world.finish().await;
}
