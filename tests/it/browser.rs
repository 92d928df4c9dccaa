//! The client library in a real browser, on pages of another origin.

mod feeds;
mod groups;
mod library;
mod lines;
mod mistakes;
mod readme;
mod sessions;
mod talk;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde_json::{Value, json};
use tests::browser::{Browser, Tab};
use tests::{Client, Options, World};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Where pictures are put.
const PICTURES: &str = env!("CARGO_TARGET_TMPDIR");

/// A world, a browser, and somebody's web site.
struct Site {
    world: World,
    browser: Browser,
    url: String,
    _serving: JoinSet<()>,
}

/// None, where there is no Chromium: that was said.
async fn site(options: Options) -> Option<Site> {
    let page = get(|| async { Html(include_str!("browser/page.html")) });
    site_of(options, Router::new().route("/", page)).await
}

/// The same with these pages.
async fn site_of(options: Options, pages: Router) -> Option<Site> {
    let browser = Browser::open().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, pages).await.unwrap() });
    let world = World::with(Options { origins: vec![url.clone()], ..options }).await;
    Some(Site { world, browser, url, _serving: serving })
}

impl Site {
    /// A tab that has just been opened.
    async fn tab(&self) -> Tab {
        let tab = self.browser.tab(&self.url).await;
        tab.until("typeof start === 'function'").await;
        tab
    }

    /// A tab of that person's, connected to the first node, or past its blockades.
    async fn connected(&self, client: &Client, options: Value) -> Tab {
        let tab = self.tab().await;
        self.connect(&tab, client, options).await;
        tab.until("isOpen()").await;
        tab
    }

    async fn connect(&self, tab: &Tab, client: &Client, mut options: Value) {
        if options["from"].is_null() {
            options["from"] = json!(client.base_url);
        }
        if options["tokens"].is_null() && options["token"].is_null() {
            options["token"] = json!(client.token);
        }
        assert_eq!(tab.eval(&format!("start({options})")).await, true);
    }
}

/// Waits until others see that status.
async fn seen(by: &Client, user: &str, status: &str) {
    let what = format!("{user} is {status}");
    tests::eventually(&what, async || {
        let answer = by.get(&format!("/v1/users/{user}/status")).await;
        answer.status == 200 && answer.body["status"] == status
    })
    .await;
}
