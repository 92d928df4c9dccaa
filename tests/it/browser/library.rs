//! The library's files: how they are served, and that their types say what there is.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Options, World};

use super::site;

#[tokio::test]
async fn the_library_is_open_to_all_pages_and_asked_for_anew() {
    let world = World::start().await;
    let nobody = world.nobody();
    for (path, kind) in [
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/use-status.js", "text/javascript; charset=utf-8"),
        ("/client.d.ts", "application/typescript; charset=utf-8"),
        ("/use-status.d.ts", "application/typescript; charset=utf-8"),
    ] {
        let answer = nobody.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let tag = answer.header("etag").to_owned();
        for (given, status) in [(tag.as_str(), 304), ("\"other\"", 200)] {
            let request = nobody.request(Method::GET, path).header("if-none-match", given);
            let again = nobody.send(request).await;
            assert_eq!((again.status, again.header("etag")), (status, tag.as_str()), "{path}");
        }
    }
    world.finish().await;
}

/// Whatever a file of the library imports is served, and each file of it is.
#[tokio::test]
async fn every_file_of_the_library_is_served() {
    let world = World::start().await;
    let web = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/web");
    let mut dirs = vec![std::path::PathBuf::from(web)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let address = format!("/{}", path.strip_prefix(web).unwrap().display());
            if !address.starts_with("/client") && !address.starts_with("/use-status") {
                continue;
            }
            let answer = world.nobody().get(&address).await;
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!((answer.status, answer.text), (200, text), "{address}");
        }
    }
    world.finish().await;
}

/// The exported names and, of classes, the members: as the modules have them.
const NAMES: &str = "(async (from) => {
    const all = {};
    for (const file of ['client', 'use-status']) {
        const names = [];
        for (const [name, value] of Object.entries(await import(`${from}/${file}.js`))) {
            names.push(`export \\\\w+ ${name}\\\\b`);
            const members = value.prototype ? Object.getOwnPropertyNames(value.prototype) : [];
            const own = members.filter((member) => file === 'client' || member !== 'constructor');
            names.push(...own.map((member) => `^  (get )?${member}[<(]`));
        }
        const types = await (await fetch(`${from}/${file}.d.ts`)).text();
        all[file] = names.filter((name) => !new RegExp(name, 'm').test(types));
        all[`${file} count`] = names.length;
    }
    return all;
})";

#[tokio::test]
async fn the_types_name_everything_that_is_exported() {
    let Some(site) = site(Options::default()).await else { return };
    let page = site.tab().await;
    let from = json!(site.world.nodes[0].base_url);
    let found: Value = page.eval(&format!("{NAMES}({from})")).await;
    assert_eq!((&found["client"], &found["use-status"]), (&json!([]), &json!([])));
    assert!(found["client count"].as_u64() > Some(20), "{found}");
    site.world.finish().await;
}

/// What React does with a store, as far as this hook can tell.
const RENDER: &str = "(async (from) => {
    const { makeUseStatus } = await import(`${from}/use-status.js`);
    window.rendered = [];
    window.unmounts = [];
    window.mount = (name, user) => {
        let subscribed;
        const useStatus = makeUseStatus({
            useCallback: (callback) => callback,
            useSyncExternalStore: (subscribe, get) => {
                subscribed ??= subscribe(() => rendered.push([name, get()?.status]));
                return get();
            },
        });
        useStatus(presence, user);
        unmounts.push(subscribed);
    };
})";

#[tokio::test]
async fn the_hook_follows_one_user_and_watches_while_it_is_used() {
    let Some(site) = site(Options::default()).await else { return };
    let (ana, bob, eve) = (site.world.user("ana"), site.world.user("bob"), site.world.user("eve"));
    let page = site.connected(&ana, json!({ "watch": "eve" })).await;
    page.eval(&format!("{RENDER}({})", json!(ana.base_url))).await;
    page.eval("mount('one', 'bob'), mount('two', 'bob'), mount('three', 'eve')").await;
    bob.login().await;
    page.until("rendered.length === 2").await;
    eve.login().await;
    page.until("rendered.length === 3").await;
    let rendered = json!([["one", "online"], ["two", "online"], ["three", "online"]]);
    assert_eq!(page.eval("rendered").await, rendered);
    page.eval("unmounts[0](), unmounts[2]()").await;
    assert_eq!(
        page.eval("[presence.watches('bob'), presence.watches('eve')]").await,
        json!([true, true])
    );
    page.eval("unmounts[1]()").await;
    assert_eq!(
        page.eval("[presence.watches('bob'), presence.watches('eve')]").await,
        json!([false, true])
    );
    site.world.finish().await;
}
