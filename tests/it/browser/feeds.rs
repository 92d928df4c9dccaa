//! What a page hears and says.

use domain::Policy;
use serde_json::json;
use tests::{Client, Options};

use super::{PICTURES, site};

#[tokio::test]
async fn a_page_hears_of_those_it_watches_as_it_happens() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob, eve) = (site.world.user("ana"), site.world.user("bob"), site.world.user("eve"));
    for transport in ["websocket", "sse", "poll"] {
        let page = site.connected(&ana, json!({ "transports": [transport], "watch": "bob" })).await;
        let (bobs, eves) = (bob.login().await, eve.login().await);
        page.until("presence.statusOf('bob')?.status === 'online'").await;
        assert_eq!(page.eval("presence.statusOf('eve') ?? null").await, json!(null));
        page.eval("presence.watch(['eve'])").await;
        page.until("presence.statusOf('eve')?.status === 'online'").await;
        page.eval("presence.unwatch('bob')").await;
        page.until("presence.statusOf('bob') === undefined").await;
        bob.logout(&bobs).await;
        eve.logout(&eves).await;
        page.until("presence.statusOf('eve').status === 'offline'").await;
        // Of before he came it may have heard, or not.
        assert_eq!(page.eval("statuses('bob').at(-1)").await, "online", "{transport}");
        page.eval("presence.watch()").await;
        page.until("presence.statusOf('bob')?.status === 'offline'").await;
        assert_eq!(page.eval("presence.watches('anybody')").await, true);
        page.picture(PICTURES.as_ref(), &format!("7-{transport}")).await;
        page.close().await;
    }
    site.world.finish().await;
}

#[tokio::test]
async fn a_person_says_how_they_are_and_hides() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob) = (site.world.user("ana"), site.world.user("bob"));
    let page = site.connected(&ana, json!({ "watch": ["ana"] })).await;
    let status = page.eval("presence.setManual('dnd', { text: 'in a call' })").await;
    assert_eq!((&status["status"], &status["text"]), (&json!("dnd"), &json!("in a call")));
    page.until("presence.statusOf('ana')?.text === 'in a call'").await;
    assert_eq!(page.eval("presence.setInvisible(true)").await["invisible"], true);
    page.until("presence.statusOf('ana').invisible").await;
    assert_eq!(bob.status_word("ana").await, "offline");
    page.eval("presence.setInvisible(false)").await;
    assert_eq!(page.eval("presence.setManual(null)").await["status"], "online");
    page.eval("presence.setManual('offline').catch((error) => told.push(error.code))").await;
    // Statuses come meanwhile.
    let refused = page.eval("told.some((one) => typeof one === 'string')").await;
    assert_eq!(refused, true, "a call that is refused says so to who made it");
    assert!(page.eval("isOpen()").await == true, "and the connection goes on");
    site.world.finish().await;
}

/// What waits for somebody.
async fn waiting(client: &Client) -> usize {
    client.get("/v1/messages").await.expect(200)["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_message_is_acknowledged_when_its_handler_has_ended_well_and_comes_again_else() {
    let policy = Policy { heartbeat_ms: 200, ..Policy::default() };
    let Some(site) = site(Options { policy, ..Options::default() }).await else { return };
    let (ana, service) = (site.world.user("ana"), site.world.service());
    let notify = async |message: &str| {
        let body = json!({ "user_id": "ana", "title": "Hello", "message": message });
        service.post("/v1/notifications", body).await.expect(202);
    };
    let page = site.connected(&ana, json!({ "transports": ["poll"] })).await;
    notify("one").await;
    page.until("mail.length === 1").await;
    tests::eventually("it is acknowledged", async || waiting(&ana).await == 0).await;
    // `window.onerror` hears of it, as of every handler that fails.
    page.eval("void (off = presence.on('notification', () => { throw new Error('full'); }))").await;
    notify("two").await;
    page.until("mail.length >= 3").await;
    assert_eq!(waiting(&ana).await, 1, "it comes again until it is taken");
    page.eval("off()").await;
    tests::eventually("it is acknowledged", async || waiting(&ana).await == 0).await;
    assert_eq!(page.eval("mail[0].body + mail[1].body + mail.at(-1).body").await, "onetwotwo");
    site.world.finish().await;
}
