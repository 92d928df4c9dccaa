//! Which path leads where. The OpenAPI description is made of the same list.

pub(crate) mod answers;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::compat::{self, Adapters};
use crate::layers::{self, EdgeSettings};
use crate::live::{changes, groups, messages, stream, ticket, ws};
use crate::ops::{self, deliveries, health, views, webhooks, what_if};
use crate::presence::{
    bulk, claims, explain, guards, heartbeat, history, log, policy, sessions, spans, status,
};
use crate::{analytics, extract, import, web};

/// The description's head.
#[derive(OpenApi)]
#[openapi(
    info(title = "Rollcall", description = "Presence with an audit trail: who is here, who was, \
        and the proof."),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Head;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(sessions::open))
        .routes(routes!(sessions::close))
        .routes(routes!(heartbeat::heartbeat))
        .routes(routes!(heartbeat::heartbeats))
        .routes(routes!(status::status))
        .routes(routes!(bulk::many))
        .routes(routes!(bulk::query))
        .routes(routes!(bulk::summary))
        .routes(routes!(sessions::list, sessions::disconnect))
        .routes(routes!(claims::set, claims::clear))
        .routes(routes!(claims::visibility))
        .routes(routes!(explain::explain))
        .routes(routes!(guards::guard))
        .routes(routes!(guards::guards))
        .routes(routes!(policy::get, policy::put))
        .routes(routes!(spans::history))
        .routes(routes!(groups::join, groups::leave))
        .routes(routes!(groups::status))
        .routes(routes!(messages::notify))
        .routes(routes!(messages::send, messages::waiting))
        .routes(routes!(messages::acknowledge))
        .routes(routes!(messages::send_to_group))
        .routes(routes!(messages::broadcast))
        .routes(routes!(history::transitions))
        .routes(routes!(log::log))
        .routes(routes!(analytics::occupancy::occupancy))
        .routes(routes!(analytics::heatmap::heatmap))
        .routes(routes!(analytics::time::time_in_status))
        .routes(routes!(analytics::sessions::sessions))
        .routes(routes!(analytics::day::day))
        .routes(routes!(changes::changes))
        .routes(routes!(stream::stream))
        .routes(routes!(ticket::make))
        .routes(routes!(ws::open))
        .routes(routes!(import::http::import))
        .routes(routes!(ops::healthz))
        .routes(routes!(ops::readyz))
        .routes(routes!(health::health))
        .routes(routes!(health::consistency))
        .routes(routes!(ops::metrics))
        .routes(routes!(views::list))
        .routes(routes!(views::rebuild))
        .routes(routes!(views::stop))
        .routes(routes!(views::abandon))
        .routes(routes!(views::confirm))
        .routes(routes!(views::take_back))
        .routes(routes!(what_if::ask, what_if::list))
        .routes(routes!(what_if::compare, what_if::forget))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get, webhooks::put, webhooks::delete))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::test))
        .routes(routes!(deliveries::replay))
        .routes(routes!(ops::noop))
}

/// The routes and their description, made complete.
fn parts(adapters: &Adapters) -> (Router<App>, Document) {
    let (router, mut document) = described().split_for_parts();
    answers::describe(&mut document);
    let (adapted, adapted_document) = compat::parts(adapters);
    let router = router.merge(adapted);
    document.merge(adapted_document);
    answers::operations(&mut document).for_each(answers::complete);
    (router, document)
}

/// The OpenAPI description of everything that can be served.
pub fn document() -> Document {
    parts(&Adapters::default()).1
}

/// Everything that is served, with the edge around it.
pub fn router(app: App, edge: &EdgeSettings) -> Router {
    let (router, document) = parts(&app.compat.adapters);
    let docs = utoipa_swagger_ui::SwaggerUi::new("/docs")
        .config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let router = router
        .route("/openapi.json", get(move || async move { extract::Json(document) }))
        .layer(DefaultBodyLimit::max(crate::limits::BODY_BYTES_MAX))
        .with_state(app);
    layers::edge(router.merge(docs).merge(web::router()), edge)
}
