//! What browsers load: the client library of `web/`, carried in the binary.
//!
//! Open to every page, whatever its origin: it holds no secret, and what it calls asks for a token
//! and looks at the origin.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use crate::presence::bulk::matches;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TYPESCRIPT: &str = "application/typescript; charset=utf-8";

macro_rules! served {
    ($($kind:ident $path:literal),* $(,)?) => {
        /// Where, of which type, and what.
        const FILES: &[(&str, &str, &str)] =
            &[$((concat!("/", $path), $kind, include_str!(concat!("../web/", $path)))),*];
    };
}

served! {
    JAVASCRIPT "client.js",
    JAVASCRIPT "client/activity.js",
    JAVASCRIPT "client/book.js",
    JAVASCRIPT "client/check.js",
    JAVASCRIPT "client/core.js",
    JAVASCRIPT "client/errors.js",
    JAVASCRIPT "client/handlers.js",
    JAVASCRIPT "client/http.js",
    JAVASCRIPT "client/limits.js",
    JAVASCRIPT "client/list.js",
    JAVASCRIPT "client/mail.js",
    JAVASCRIPT "client/poll.js",
    JAVASCRIPT "client/socket.js",
    JAVASCRIPT "client/stream.js",
    JAVASCRIPT "client/uuid.js",
    JAVASCRIPT "client/wire.js",
    JAVASCRIPT "use-status.js",
    TYPESCRIPT "client.d.ts",
    TYPESCRIPT "use-status.d.ts",
}

/// The files, each at its address.
pub fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let tag = format!("\"{:.32x}\"", Sha256::digest(text));
        router.route(
            path,
            get(move |headers: HeaderMap| async move { serve(&headers, kind, text, &tag) }),
        )
    })
}

/// Asked for anew at each load, and then mostly 304: a new release is in use at once.
fn serve(headers: &HeaderMap, kind: &'static str, text: &'static str, tag: &str) -> Response {
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|given| matches(given, tag));
    let about: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if same {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let mut response = (about, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
