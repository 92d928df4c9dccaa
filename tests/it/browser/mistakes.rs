//! A page's mistakes: told to the page at once, and costing it nothing else.

use serde_json::{Value, json};
use tests::Options;

use super::site;

/// What a call throws, or rejects with: the error's name, and whether it says `said`.
fn thrown(call: &str, said: &str) -> String {
    format!(
        "(async () => {call})().then(() => 'done', \
         (error) => [error.name, error.message.includes({said:?})])"
    )
}

fn an_error(name: &str) -> Value {
    json!([name, true])
}

#[tokio::test]
async fn a_name_that_is_none_is_thrown_back_and_the_watch_list_outlives_its_connection() {
    let Some(mut site) = site(Options { nodes: 2, ..Options::default() }).await else { return };
    let (ana, sue) = (site.world.user("ana"), site.world.user("sue"));
    let sue = site.world.at_node(&sue, 1);
    sue.login().await;
    for transport in ["websocket", "sse", "poll"] {
        let options = json!({ "transports": [transport], "watch": ["sue"] });
        let page = site.connected(&ana, options).await;
        page.until("presence.statusOf('sue') !== undefined").await;
        let long = "x".repeat(129);
        let long_call = format!("presence.watch('{long}')");
        for (call, said) in [
            ("presence.watch('a b')", "\"a b\""),
            ("presence.watch(['pat', 'a/b'])", "\"a/b\""),
            ("presence.watch({ users: ['pat'], groups: ['team', 'é'] })", "\"é\""),
            ("presence.watch({ users: 'pat' })", "lists"),
            ("presence.watch({ user: ['pat'] })", "lists"),
            ("presence.watch('')", "\"\""),
            ("presence.watch(['pat', null])", "null"),
            ("presence.watch(5)", "lists"),
            ("presence.watch(null)", "lists"),
            (long_call.as_str(), "xxx"),
            ("presence.unwatch(['sue', 'a b'])", "\"a b\""),
            ("presence.watches('a b')", "\"a b\""),
            ("presence.join('a b')", "\"a b\""),
            ("presence.leave('a b')", "\"a b\""),
            ("presence.on('status', 5)", "function"),
        ] {
            assert_eq!(page.eval(&thrown(call, said)).await, an_error("TypeError"), "{call}");
        }
        let kept = "[presence.watches('sue'), presence.watches('pat')]";
        assert_eq!(page.eval(kept).await, json!([true, false]), "nothing of those calls");
        page.eval("void (states.length = 0)").await;
        site.world.restart_node().await;
        if transport == "websocket" {
            page.until("isOpen() && states.at(-1)?.state === 'open'").await;
        }
        for status in ["busy", "dnd"] {
            let body = json!({ "status": status });
            sue.put("/v1/users/sue/claims/manual", body).await.expect(200);
            page.until(&format!("presence.statusOf('sue').status === '{status}'")).await;
        }
        assert_eq!(page.eval("errors").await, json!([]), "{transport}");
        page.close().await;
    }
    site.world.finish().await;
}

#[tokio::test]
async fn what_is_too_long_to_send_is_thrown_back_and_does_not_cost_the_connection() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, ben) = (site.world.user("ana"), site.world.user("ben"));
    ben.login().await;
    let page = site.connected(&ana, json!({ "transports": ["websocket"] })).await;
    for (call, error, said) in [
        ("presence.send('ben', 'x'.repeat(16385))", "RangeError", "16384"),
        ("presence.send('ben', 'é'.repeat(8193))", "RangeError", "16384"),
        // Six bytes each on the way.
        ("presence.send('ben', '\\u0001'.repeat(16384))", "RangeError", "65536"),
        ("presence.send('ben', 5)", "TypeError", "string"),
        ("presence.send('b n', 'hello')", "TypeError", "\"b n\""),
        ("presence.send({ group: 'b n' }, 'hello')", "TypeError", "\"b n\""),
        ("presence.send(null, 'hello')", "TypeError", "name"),
        ("presence.ack('x'.repeat(70000))", "RangeError", "65536"),
    ] {
        assert_eq!(page.eval(&thrown(call, said)).await, an_error(error), "{call}");
    }
    page.eval("presence.send('ben', 'x'.repeat(16384))").await;
    page.eval("presence.send('ben', 'é'.repeat(8192))").await;
    let states = page.eval("states.map((state) => state.state)").await;
    assert_eq!(states, json!(["connecting", "open"]), "one connection all the time");
    let waiting = ben.get("/v1/messages").await.expect(200);
    assert_eq!(waiting["items"].as_array().unwrap().len(), 2);
    site.world.finish().await;
}

#[tokio::test]
async fn options_that_are_none_are_thrown_back() {
    let Some(site) = site(Options::default()).await else { return };
    let page = site.tab().await;
    let from = &site.world.nodes[0].base_url;
    page.eval(&format!("import('{from}/client.js').then((all) => void (client = all))")).await;
    for (options, said) in [
        ("{ url: 'nonsense', token: 'x' }", "\"nonsense\""),
        ("{ url: 'localhost:8080', token: 'x' }", "\"localhost:8080\""),
        ("{ url: 'http://', token: 'x' }", "\"http://\""),
        ("{ url: 'ws://example', token: 'x' }", "\"ws://example\""),
        ("{ url: '', token: 'x' }", "\"\""),
        ("{ url: null, token: '' }", "token"),
        ("{ token: 'x', transports: ['fax'] }", "transports"),
    ] {
        let call = format!("client.connect({options})");
        assert_eq!(page.eval(&thrown(&call, said)).await, an_error("TypeError"), "{call}");
    }
    // An address as a page has it is one.
    for url in ["/presence/", "./presence", "new URL('http://localhost:1')", &format!("{from}/x")] {
        let url = if url.starts_with("new") { url.to_owned() } else { format!("'{url}'") };
        let call = format!("client.connect({{ url: {url}, token: 'x' }}).close()");
        assert_eq!(page.eval(&thrown(&call, "")).await, "done", "{call}");
    }
    site.world.finish().await;
}
