//! Which path leads where. The OpenAPI description is made of the same list.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::compat::{self, Adapters};
use crate::layers::{self, EdgeSettings};
use crate::live::{changes, groups, messages, stream, ticket, ws};
use crate::ops::{self, health, views, what_if};
use crate::presence::{
    bulk, claims, explain, guards, heartbeat, history, log, policy, sessions, spans, status,
};
use crate::problem::ProblemDocument;
use crate::{analytics, extract, import};

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
        .routes(routes!(ops::noop))
}

/// What every call that needs a token may answer besides: it is not repeated at each.
const ALWAYS: [(&str, &str); 5] = [
    ("400", "Malformed, or an unknown field or parameter"),
    ("401", "No token, or none that is believed"),
    ("422", "Well-formed, but breaks a rule"),
    ("429", "Too many requests; see Retry-After"),
    ("503", "Not now; see Retry-After"),
];

/// The routes and their description, made complete.
fn parts(adapters: &Adapters) -> (Router<App>, Document) {
    let (router, mut document) = described().split_for_parts();
    let (adapted, adapted_document) = compat::parts(adapters);
    let router = router.merge(adapted);
    document.merge(adapted_document);
    document.paths.paths.values_mut().flat_map(operations).for_each(complete);
    (router, document)
}

pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().flatten()
}

/// Every answer is described, as OpenAPI asks for: where nothing else is said, by its status.
fn complete(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    if operation.security.is_none() {
        for (status, description) in ALWAYS {
            let problem = Ref::from_schema_name(ProblemDocument::name());
            let content = ContentBuilder::new().schema(Some(problem)).build();
            let response = ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", content)
                .build();
            responses.entry(status.to_owned()).or_insert_with(|| response.into());
        }
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let known =
                status.parse().ok().and_then(|status: StatusCode| status.canonical_reason());
            known.unwrap_or(status).clone_into(&mut response.description);
        }
    }
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
    layers::edge(router.merge(docs), edge)
}
