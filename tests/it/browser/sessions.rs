//! What a page says of its person.

use domain::Policy;
use serde_json::json;
use tests::Options;

use super::{PICTURES, seen, site};

/// Heartbeats are so rare that only those sent at once can be what is seen.
fn quickly_away() -> Options {
    let policy = Policy { away_after_ms: 1_500, ..Policy::default() };
    Options { policy, ..Options::default() }
}

#[tokio::test]
async fn a_page_turns_away_when_nobody_touches_it_and_comes_back_with_input() {
    let Some(site) = site(quickly_away()).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let page = site.connected(&ana, json!({ "watch": ["ana", "bob"] })).await;
    bob.login().await;
    seen(&bob, "ana", "online").await;
    page.picture(PICTURES.as_ref(), "1-online").await;
    seen(&bob, "ana", "away").await;
    page.until("presence.statusOf('ana').status === 'away'").await;
    page.picture(PICTURES.as_ref(), "2-away").await;
    page.move_pointer(40, 50).await;
    seen(&bob, "ana", "online").await;
    seen(&bob, "ana", "away").await;
    page.press("x").await;
    seen(&bob, "ana", "online").await;
    let faked = "dispatchEvent(new KeyboardEvent('keydown'))";
    seen(&bob, "ana", "away").await;
    page.eval(faked).await;
    assert_eq!(bob.status_word("ana").await, "away", "what a script does is no sign of a person");
    page.close().await;
    seen(&bob, "ana", "offline").await;
    let last = site.world.transitions("ana").await.pop().unwrap();
    assert_eq!(last["reason"], "user_request", "a page that goes logs out: {last}");
    site.world.finish().await;
}

#[tokio::test]
async fn three_tabs_are_three_sessions_and_each_ends_with_its_tab() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let count = async || ana.get("/v1/users/ana/sessions").await.expect(200)["count"].clone();
    let mut tabs = Vec::new();
    for transport in ["websocket", "sse", "poll"] {
        let options = json!({ "transports": [transport], "device": { "label": transport } });
        tabs.push(site.connected(&ana, options).await);
    }
    assert_eq!(count().await, 3);
    let sessions = ana.get("/v1/users/ana/sessions").await.expect(200);
    assert_eq!(sessions["items"][2]["device"]["label"], "poll");
    assert_eq!(sessions["items"][0]["device"]["kind"], "web");
    for left in (0..3).rev() {
        assert_eq!(bob.status_word("ana").await, "online");
        tabs.pop().unwrap().close().await;
        tests::eventually("the tab's session ends", async || count().await == left).await;
    }
    assert_eq!(bob.status_word("ana").await, "offline");
    assert_eq!(site.world.count("ana", "session_closed").await, 3);
    assert_eq!(site.world.count("ana", "session_expired").await, 0);
    site.world.finish().await;
}

#[tokio::test]
async fn a_page_that_is_put_aside_logs_out_and_logs_in_when_it_is_shown_again() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    for transport in ["websocket", "poll"] {
        let options = json!({ "transports": [transport], "watch": ["bob"] });
        let page = site.connected(&ana, options).await;
        let transition = |name: &str| {
            format!("dispatchEvent(new PageTransitionEvent('{name}', {{ persisted: true }}))")
        };
        page.eval(&transition("pagehide")).await;
        seen(&bob, "ana", "offline").await;
        let bobs = bob.login().await;
        page.eval(&transition("pageshow")).await;
        seen(&bob, "ana", "online").await;
        page.until("presence.statusOf('bob')?.status === 'online'").await;
        bob.logout(&bobs).await;
        page.until("presence.statusOf('bob')?.status === 'offline'").await;
        page.eval("presence.close()").await;
        seen(&bob, "ana", "offline").await;
        assert_eq!(page.eval("presence.state.state").await, "closed");
        page.close().await;
    }
    site.world.finish().await;
}
