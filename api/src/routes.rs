//! Which path leads where. The OpenAPI description is made of the same list.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::layers::{self, EdgeSettings};
use crate::presence::{
    bulk, claims, explain, guards, heartbeat, history, policy, sessions, status,
};
use crate::{extract, import, ops};

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
        .routes(routes!(history::transitions))
        .routes(routes!(history::log))
        .routes(routes!(import::http::import))
        .routes(routes!(ops::healthz))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::health))
        .routes(routes!(ops::metrics))
        .routes(routes!(ops::noop))
}

/// The OpenAPI description of everything that is served.
pub fn document() -> Document {
    described().split_for_parts().1
}

/// Everything that is served, with the edge around it.
pub fn router(app: App, edge: &EdgeSettings) -> Router {
    let (router, document) = described().split_for_parts();
    let docs = utoipa_swagger_ui::SwaggerUi::new("/docs")
        .config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let router = router
        .route("/openapi.json", get(move || async move { extract::Json(document) }))
        .layer(DefaultBodyLimit::max(crate::limits::BODY_BYTES_MAX))
        .with_state(app);
    layers::edge(router.merge(docs), edge)
}
