//! Adapters: the routes of the systems that Rollcall replaces, for their clients as they are.
//!
//! Thin: each says in its own words what the calls of [`crate::presence`] do. Bodies are JSON or
//! forms, unknown fields are ignored, errors are told in the system's own shape.
//!
//! In reading order:
//! - [`planner`], [`chat`] with [`login`], [`polling`], [`websocket`]: one system each
//! - [`activity`]: requests as signs of life; [`memory`]: what it remembers of tokens
//! - [`fields`]: lenient bodies; [`wire`]: ids as numbers; [`shape`]: errors

mod activity;
pub mod chat;
pub mod fields;
pub mod login;
mod memory;
pub mod planner;
pub mod polling;
mod shape;
pub mod websocket;
pub mod wire;

use std::str::FromStr;

use axum::Router;
use axum::middleware::map_response;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::app::App;
use crate::problem::Problem;
use login::LoginService;
use shape::Shape;
pub use websocket::WebsocketSettings;

/// One of the systems whose clients are served as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// The workflow planner's backend.
    Planner,
    /// The chat and its administration.
    Chat,
    /// The clients that call on each interaction.
    Polling,
    /// The clients that are connected.
    Websocket,
}

impl Adapter {
    /// Those that are there.
    pub const ALL: [Self; 4] = [Self::Planner, Self::Chat, Self::Polling, Self::Websocket];

    /// The word of `--compat`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planner => "planner",
            Self::Chat => "chat",
            Self::Polling => "polling",
            Self::Websocket => "websocket",
        }
    }
}

/// The adapters that are switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapters(pub Vec<Adapter>);

impl Default for Adapters {
    fn default() -> Self {
        Self(Adapter::ALL.to_vec())
    }
}

impl FromStr for Adapters {
    type Err = String;

    /// Words separated by commas; none at all is none switched on.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let adapter = |word: &str| {
            let found = Adapter::ALL.into_iter().find(|adapter| adapter.as_str() == word);
            found.ok_or_else(|| format!("{word:?} is none of planner, chat, polling, websocket"))
        };
        let mut adapters = Vec::new();
        for adapter in words.map(adapter) {
            let adapter = adapter?;
            // A route can be registered once.
            if !adapters.contains(&adapter) {
                adapters.push(adapter);
            }
        }
        Ok(Self(adapters))
    }
}

/// How the adapters are to be.
#[derive(Debug, Clone, Default)]
pub struct CompatSettings {
    /// Which are switched on.
    pub adapters: Adapters,
    /// Where the chat's logins are passed on to; none: they need a token of ours.
    pub chat_login_url: Option<reqwest::Url>,
    /// How WebSocket clients are served.
    pub websocket: WebsocketSettings,
}

/// What the adapters keep on a node.
#[derive(Debug)]
pub struct Compat {
    pub(crate) adapters: Adapters,
    pub(crate) sessions: memory::TokenSessions,
    pub(crate) login: Option<LoginService>,
    pub(crate) websocket: WebsocketSettings,
}

impl Compat {
    /// Nothing remembered yet. Errors: TLS cannot be set up.
    pub fn new(settings: CompatSettings) -> Result<Self, reqwest::Error> {
        Ok(Self {
            adapters: settings.adapters,
            sessions: memory::TokenSessions::default(),
            login: settings.chat_login_url.map(LoginService::at).transpose()?,
            websocket: settings.websocket,
        })
    }
}

/// The routes of these adapters and what describes them.
pub(crate) fn parts(adapters: &Adapters) -> (Router<App>, Document) {
    let mut all = Router::new();
    let mut document = OpenApiRouter::<App>::new().into_openapi();
    for adapter in &adapters.0 {
        let (routes, shape) = match adapter {
            Adapter::Planner => (planner_routes(), planner::SHAPE),
            Adapter::Chat => (chat_routes(), chat::SHAPE),
            Adapter::Polling => (polling_routes(), polling::SHAPE),
            Adapter::Websocket => (websocket_routes(), websocket::SHAPE),
        };
        let (routes, mut described) = routes.split_for_parts();
        shape::describe(&mut described, &shape);
        document.merge(described);
        all = all.merge(shaped(routes, shape));
    }
    (all, document)
}

fn shaped(routes: Router<App>, shape: Shape) -> Router<App> {
    routes
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(map_response(move |answer| shape::reshape(answer, shape)))
}

fn planner_routes() -> OpenApiRouter<App> {
    let router = OpenApiRouter::new();
    let router = either_slash(router, routes!(planner::workflow));
    either_slash(router, routes!(planner::workflow_php))
}

fn chat_routes() -> OpenApiRouter<App> {
    let routes = [
        routes!(chat::login),
        routes!(chat::logout),
        routes!(chat::heartbeat),
        routes!(chat::all_users),
        routes!(chat::users),
        routes!(chat::online_users),
        routes!(chat::online_status),
        routes!(chat::set_online_status),
    ];
    routes.into_iter().fold(OpenApiRouter::new(), either_slash)
}

fn polling_routes() -> OpenApiRouter<App> {
    let router = either_slash(OpenApiRouter::new(), routes!(polling::put));
    either_slash(router, routes!(polling::get))
}

fn websocket_routes() -> OpenApiRouter<App> {
    let router = either_slash(OpenApiRouter::new(), routes!(websocket::user));
    either_slash(router, routes!(websocket::consultation))
}

/// Registers a route with and without a slash at its end; described is the one that is documented.
fn either_slash(
    router: OpenApiRouter<App>,
    described: UtoipaMethodRouter<App>,
) -> OpenApiRouter<App> {
    let (_, paths, methods) = &described;
    let mut others = Vec::new();
    for path in paths.paths.keys() {
        let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        others.push((other, methods.clone()));
    }
    let add =
        |router: OpenApiRouter<App>, (path, methods): (String, _)| router.route(&path, methods);
    others.into_iter().fold(router.routes(described), add)
}
