//! Pages that write to each other.

use domain::Policy;
use serde_json::{Value, json};
use tests::client::token_in;
use tests::{Client, Options, eventually};

use super::site;

/// What waits for somebody.
async fn waiting(client: &Client) -> usize {
    client.get("/v1/messages").await.expect(200)["items"].as_array().unwrap().len()
}

/// The bodies of what a page has heard.
const BODIES: &str = "mail.map((message) => message.body)";

#[tokio::test]
async fn two_pages_write_to_each_other_in_order_and_what_was_handled_is_acknowledged() {
    const EACH: usize = 40;
    let Some(site) = site(Options { nodes: 2, ..Options::default() }).await else { return };
    let ana = site.world.user("ana");
    let ben = site.world.at_node(&site.world.user("ben"), 1);
    let anas = site.connected(&ana, json!({ "transports": ["websocket"] })).await;
    let bens = site.connected(&ben, json!({ "transports": ["websocket"] })).await;
    let say = |to: &str| {
        format!(
            "Promise.all(Array.from({{ length: {EACH} }}, (_, n) => \
             presence.send('{to}', `${{n}} for {to}`).then(({{ id }}) => id)))"
        )
    };
    let (said, answered) = (say("ben"), say("ana"));
    let (said, answered) = tokio::join!(anas.eval(&said), bens.eval(&answered));
    for (page, client, to, ids) in [(&bens, &ben, "ben", said), (&anas, &ana, "ana", answered)] {
        page.until(&format!("mail.length >= {EACH}")).await;
        let bodies: Vec<String> = (0..EACH).map(|n| format!("{n} for {to}")).collect();
        assert_eq!(
            page.eval(BODIES).await,
            json!(bodies),
            "each once, in the order they were sent"
        );
        let heard = page.eval("mail.map((message) => message.id)").await;
        assert_eq!(heard, ids, "whoever sends is told the name of what was sent");
        eventually("all are acknowledged", async || waiting(client).await == 0).await;
    }
    assert_eq!(bens.eval("[mail[0].type, mail[0].from]").await, json!(["message", "ana"]));
    assert_eq!(anas.eval("errors").await, json!([]));
    site.world.finish().await;
}

#[tokio::test]
async fn what_a_handler_failed_at_can_be_acknowledged_by_hand() {
    let policy = Policy { heartbeat_ms: 200, ..Policy::default() };
    let Some(site) = site(Options { policy, ..Options::default() }).await else { return };
    let (ana, ben) = (site.world.user("ana"), site.world.user("ben"));
    let (anas, bens) =
        (site.connected(&ana, json!({})).await, site.connected(&ben, json!({})).await);
    bens.eval("void presence.on('message', () => { throw new Error('full'); })").await;
    anas.eval("presence.send('ben', 'one')").await;
    bens.until("mail.length === 1").await;
    assert_eq!(waiting(&ben).await, 1, "nobody has taken it");
    bens.eval("presence.ack(mail[0].id)").await;
    assert_eq!(waiting(&ben).await, 0, "the server has heard it when the promise is kept");
    site.world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_to_who_sent_it_and_the_connection_goes_on() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, ben) = (site.world.user("ana"), site.world.user("ben"));
    ben.login().await;
    let code = |call: &str| format!("{call}.then(() => 'done', (error) => error.code)");
    let page = site.connected(&ana, json!({})).await;
    for (call, refusal) in [
        ("presence.send('nobody', 'hello')", "user_not_found"),
        ("presence.send('ben', '')", "invalid_text"),
        ("presence.send({ group: 'team' }, 'hello')", "not_a_member"),
        ("presence.join('team')", "not_a_member"),
        ("presence.send('ben', 'hello')", "done"),
    ] {
        assert_eq!(page.eval(&code(call)).await, refusal, "{call}");
    }
    assert!(page.eval("isOpen()").await == true);
    page.eval("presence.close()").await;
    assert_eq!(page.eval(&code("presence.send('ben', 'hello')")).await, "not_open");
    // Only a WebSocket carries what a page says.
    for transport in ["sse", "poll"] {
        let page = site.connected(&ana, json!({ "transports": [transport] })).await;
        assert_eq!(page.eval(&code("presence.send('ben', 'hello')")).await, "not_open");
        page.close().await;
    }
    assert_eq!(waiting(&ben).await, 1);
    site.world.finish().await;
}

#[tokio::test]
async fn a_page_joins_a_group_leaves_it_and_stays_so_when_its_connection_comes_back() {
    let Some(mut site) = site(Options { nodes: 2, ..Options::default() }).await else { return };
    let member =
        |user: &str| site.world.nobody().with_token(Some(token_in(user, &["team", "rest"])));
    let (eva, ben) = (member("eva"), site.world.at_node(&member("ben"), 1));
    let evas = site.connected(&eva, json!({ "transports": ["websocket"] })).await;
    let bens = site.connected(&ben, json!({ "transports": ["websocket"] })).await;
    let say = async |body: &str| -> Value {
        let call = format!("presence.send({{ group: 'team' }}, '{body}')");
        bens.eval(&call).await["id"].clone()
    };
    evas.eval("presence.join('team')").await;
    let one = say("one").await;
    evas.until("mail.length === 1").await;
    let heard =
        evas.eval("(({ type, group, from, id }) => [type, group, from, id])(mail[0])").await;
    assert_eq!(heard, json!(["group", "team", "ben", one]));
    // What is said in the other group comes behind what was said in this one.
    let heard = async |fence: &str| -> Value {
        bens.eval(&format!("presence.send({{ group: 'rest' }}, '{fence}')")).await;
        evas.until(&format!("mail.at(-1).body === '{fence}'")).await;
        evas.eval("mail.filter((message) => message.group === 'team').length").await
    };
    // Left or joined, the next connection is as this one was.
    for (change, before, after) in [("leave", 1, 1), ("join", 2, 3)] {
        evas.eval(&format!("presence.{change}('team')")).await;
        say(&format!("after {change}")).await;
        assert_eq!(heard(&format!("{change}, then")).await, before, "{change}");
        evas.eval("void (states.length = 0)").await;
        site.world.restart_node().await;
        evas.until("isOpen() && states.at(-1)?.state === 'open'").await;
        // Answered behind what the page said when it came back.
        evas.eval("presence.join('rest')").await;
        say(&format!("after {change} and a restart")).await;
        assert_eq!(heard(&format!("{change} and a restart, then")).await, after, "{change}");
    }
    assert_eq!(evas.eval("errors").await, json!([]));
    site.world.finish().await;
}
