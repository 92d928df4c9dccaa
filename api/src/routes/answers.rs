//! What calls may answer besides what they say themselves: described here once, not at each.

use axum::http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ArrayBuilder, Schema};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, ContentBuilder, Object, OpenApi as Document, PathItem, Ref, RefOr};
use utoipa::openapi::{ResponseBuilder, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::analytics::params;
use crate::formats::Format;
use crate::formats::cloudevents::CloudEvent;
use crate::presence::log;
use crate::problem::ProblemDocument;

/// The media types of an answer, each with the name of its schema.
pub(crate) type Kinds<'a> = &'a [(&'a str, &'a str)];

/// Which calls may answer so.
#[derive(Debug, Clone, Copy)]
enum Which {
    /// All: the edge says it.
    Any,
    /// Those that need a token.
    Closed,
    /// Those that take one, also if they need none.
    Taking,
    /// Those that read a whole JSON body.
    Reading,
}

const COMMON: [(Which, &str, &str); 7] = [
    (Which::Closed, "400", "Malformed, or an unknown field or parameter"),
    (Which::Taking, "401", "No token, or none that is believed"),
    (Which::Reading, "413", "The body is too long"),
    (Which::Reading, "415", "Not JSON"),
    (Which::Closed, "422", "Well-formed, but breaks a rule"),
    (Which::Taking, "429", "Too many requests; see Retry-After"),
    (Which::Any, "503", "Not now, or the time was up; see Retry-After"),
];

/// Every call of a document.
pub(crate) fn operations(document: &mut Document) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        let PathItem { get, put, post, delete, .. } = item;
        [get, put, post, delete].into_iter().flatten()
    })
}

/// Adds what our own calls have in common.
pub(crate) fn describe(document: &mut Document) {
    let name = ProblemDocument::name();
    let problem = [("application/problem+json", name.as_ref())];
    for operation in operations(document) {
        for (which, status, description) in COMMON {
            let so = match which {
                Which::Any => true,
                Which::Closed => operation.security.is_none(),
                Which::Taking => takes_token(operation),
                Which::Reading => reads_json(operation),
            };
            if so {
                add(operation, status, description, &problem);
            }
        }
        describe_forms(operation);
    }
}

/// Adds the other forms of what is answered as JSON, where a client may choose one.
fn describe_forms(operation: &mut Operation) {
    let analysts = operation.tags.iter().flatten().any(|tag| tag == "Analytics");
    let forms = if analysts { &params::FORMS[..] } else { &log::FORMS };
    let responses = &mut operation.responses.responses;
    if responses.contains_key("406")
        && let Some(RefOr::T(response)) = responses.get_mut("200")
    {
        for form in forms.iter().filter(|form| **form != Format::Json) {
            response.content.insert(form.media_type().to_owned(), content(*form).into());
        }
    }
}

fn content(form: Format) -> Content {
    let schema: Option<RefOr<Schema>> = match form {
        Format::CloudEvents => Some(ArrayBuilder::new().items(CloudEvent::schema()).into()),
        Format::Json | Format::Ndjson | Format::Csv | Format::Svg => {
            Some(Object::with_type(Type::String).into())
        }
        // OpenAPI 3.1 describes bytes by their media type alone.
        Format::Parquet => None,
    };
    ContentBuilder::new().schema(schema).build()
}

/// Whether a token may be sent along.
fn takes_token(operation: &Operation) -> bool {
    let none = SecurityRequirement::default();
    operation.security.as_ref().is_none_or(|all| all.iter().any(|one| *one != none))
}

/// Whether a JSON body is read.
pub(crate) fn reads_json(operation: &Operation) -> bool {
    match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        Some(RefOr::Ref(_)) | None => false,
    }
}

/// Adds an answer, unless the call describes it itself.
pub(crate) fn add(operation: &mut Operation, status: &str, description: &str, kinds: Kinds<'_>) {
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
        let response = ResponseBuilder::new().description(description);
        let response = kinds.iter().fold(response, |response, (kind, schema)| {
            let schema = Ref::from_schema_name(*schema);
            response.content(*kind, ContentBuilder::new().schema(Some(schema)).build())
        });
        response.build().into()
    });
}

/// Adds what belongs to a status wherever it is answered: its headers and, as OpenAPI asks for, a
/// description.
pub(crate) fn complete(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let header = match status.as_str() {
            "401" => Some(("WWW-Authenticate", Type::String, "RFC 6750, section 3")),
            "429" | "503" => Some(("Retry-After", Type::Integer, "Seconds to wait, 1 or more")),
            _ => None,
        };
        if let Some((name, of_type, description)) = header {
            let header = HeaderBuilder::new()
                .schema(Some(Object::with_type(of_type)))
                .description(Some(description))
                .build();
            response.headers.insert(name.to_owned(), header.into());
        }
        if response.description.is_empty() {
            let known =
                status.parse().ok().and_then(|status: StatusCode| status.canonical_reason());
            known.unwrap_or(status).clone_into(&mut response.description);
        }
    }
}
