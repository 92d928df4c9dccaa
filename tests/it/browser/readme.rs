//! The page that README shows works as it stands there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use serde_json::json;
use tests::{Options, eventually};

use super::{PICTURES, seen, site_of};

const README: &str = include_str!("../../../README.md");

/// The page, with another server than that of the first steps.
fn page_at(server: &str) -> String {
    let begun = README.split_once("```html\n").unwrap().1;
    let page = begun.split_once("```").unwrap().0;
    assert!(page.contains("http://127.0.0.1:8080/client.js"));
    page.replace("http://127.0.0.1:8080", server)
}

#[tokio::test]
async fn the_page_of_the_readme_shows_people_each_at_their_place_and_messages() {
    let shown: &OnceLock<(String, String)> = Box::leak(Box::default());
    let asked: &AtomicUsize = Box::leak(Box::default());
    let token = async || {
        // Who gives out tokens is not there at first.
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        let token = shown.get().map(|(_, token)| format!("{token}\n"));
        token.filter(|_| !first).ok_or(StatusCode::SERVICE_UNAVAILABLE)
    };
    let page =
        async || shown.get().map(|(page, _)| Html(page.as_str())).ok_or(StatusCode::NOT_FOUND);
    let pages = Router::new().route("/", get(page)).route("/my/token", get(token));
    let Some(site) = site_of(Options::default(), pages).await else { return };
    let (ana, bob, service) =
        (site.world.user("ana"), site.world.user("bob"), site.world.service());
    shown.set((page_at(&ana.base_url), ana.token.clone().unwrap())).unwrap();
    let tab = site.browser.tab(&site.url).await;
    let people = "[...document.querySelectorAll('#people li')].map((line) => line.textContent)";
    seen(&bob, "ana", "online").await;
    assert!(asked.load(Ordering::Relaxed) > 1, "a refusal is no token");
    bob.login().await;
    for status in ["online", "busy", "dnd"] {
        if status != "online" {
            let body = json!({ "status": status });
            ana.put("/v1/users/ana/claims/manual", body).await.expect(200);
        }
        let expected = json!([format!("ana: {status}"), "bob: online"]).to_string();
        tab.until(&format!("JSON.stringify({people}) === '{expected}'")).await;
    }
    let message = json!({ "from": "bob", "to": "ana", "body": "Lunch?" });
    service.post("/v1/messages", message).await.expect(202);
    tab.until("document.querySelector('#mail li')?.textContent === 'bob: Lunch?'").await;
    eventually("it is acknowledged", async || {
        let waiting = ana.get("/v1/messages").await.expect(200);
        waiting["items"].as_array().unwrap().is_empty()
    })
    .await;
    tab.picture(PICTURES.as_ref(), "8-readme").await;
    tab.close().await;
    seen(&bob, "ana", "offline").await;
    site.world.finish().await;
}
