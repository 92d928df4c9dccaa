//! What surrounds every route: request id, panics, time limit, metrics, trace, CORS.
//!
//! One hand-written service instead of a stack of generic ones: axum clones and boxes each layer
//! for each request, and this runs for all of them.

mod stats;

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Sleep;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::limits;
use crate::problem::{FailureCause, Problem};
use crate::telemetry;
use stats::{RouteStats, StatsCell};

/// The request's id: the client's own where it sent a usable one, else ours.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// How long browsers may remember the answer to a preflight.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_hours(1);

/// What the edge of one server is like.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// A request is answered within this, save those of [`limits::UNTIMED_ROUTES`].
    pub request_time_max: Duration,
    /// The origins whose pages may call, `*` for all; none: no CORS at all.
    pub allow_origins: Vec<HeaderValue>,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self { request_time_max: limits::REQUEST_TIME_MAX, allow_origins: Vec::new() }
    }
}

/// Puts the edge around all routes of `router`, and answers for those it does not have. To be
/// called last, with the state given.
pub fn edge(router: Router, settings: &EdgeSettings) -> Router {
    // Counters are bound to the recorder at a route's first request.
    telemetry::install_metrics();
    let layer = EdgeLayer { request_time_max: settings.request_time_max, ids: Arc::default() };
    let router = router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() });
    let body_limit = DefaultBodyLimit::max(limits::BODY_BYTES_MAX);
    // One `layer` call each: axum boxes whatever one call brings once.
    if settings.allow_origins.is_empty() {
        router.layer((layer, body_limit))
    } else {
        router.layer((cors(&settings.allow_origins), layer, body_limit))
    }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let origin = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
            REQUEST_ID,
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER, header::ALLOW, REQUEST_ID])
        .max_age(PREFLIGHT_AGE_MAX)
}

/// Numbers the requests of one server, from a random start, so that two nodes' ids differ.
#[derive(Debug)]
struct RequestIds(AtomicU64);

impl Default for RequestIds {
    fn default() -> Self {
        Self(AtomicU64::new(uuid::Uuid::new_v4().as_u64_pair().0))
    }
}

impl RequestIds {
    fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut rest = self.0.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 16];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(rest & 15) as usize];
            rest >>= 4;
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }

    /// The client's id where it can stand in a log line, else the next one.
    fn of(&self, request: &Request) -> HeaderValue {
        let usable = |id: &&HeaderValue| {
            (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        request.headers().get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| self.next())
    }
}

#[derive(Debug, Clone)]
struct EdgeLayer {
    request_time_max: Duration,
    ids: Arc<RequestIds>,
}

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeService<S>;

    /// Called once for each method of each route, so that every one has its own counters.
    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService { inner, layer: self.clone(), stats: StatsCell::default() }
    }
}

#[derive(Debug, Clone)]
struct EdgeService<S> {
    inner: S,
    layer: EdgeLayer,
    stats: StatsCell,
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>();
        let stats = self.stats.get(request.method(), route.map(MatchedPath::as_str));
        let id = self.layer.ids.of(&request);
        // Without the path and the query: they name people and may hold tokens.
        let span = tracing::debug_span!("request", id = ?id, route = stats.route());
        EdgeFuture {
            started: Instant::now(),
            time_max: stats.timed().then_some(self.layer.request_time_max),
            id: Some(id),
            stats,
            span,
            sleep: None,
            inner: self.inner.call(request),
        }
    }
}

struct EdgeFuture<F> {
    inner: F,
    started: Instant,
    time_max: Option<Duration>,
    /// Made when the handler first has to wait: most need no timer.
    sleep: Option<Pin<Box<Sleep>>>,
    id: Option<HeaderValue>,
    stats: Arc<RouteStats>,
    span: tracing::Span,
}

impl<F> EdgeFuture<F>
where
    F: Future<Output = Result<Response, Infallible>> + Unpin,
{
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        let _entered = self.span.enter();
        let inner = &mut self.inner;
        // Unwind safety: after a panic the handler's future is never polled again.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))) {
            Ok(polled) => polled.map(|Ok(response)| response),
            Err(panic) => Poll::Ready(Problem::internal(words_of(&*panic)).into_response()),
        }
    }

    fn poll_time_limit(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        let Some(time_max) = self.time_max else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(time_max)));
        sleep.as_mut().poll(cx).map(|()| Problem::timeout().into_response())
    }

    /// Counts and logs the answer, and puts the request's id on it.
    fn finish(&mut self, mut response: Response) -> Response {
        let elapsed = self.started.elapsed();
        self.stats.count(response.status(), elapsed);
        let _entered = self.span.enter();
        tracing::debug!(
            method = self.stats.method(),
            status = response.status().as_u16(),
            elapsed_us = elapsed.as_micros() as u64,
            "answered"
        );
        let id = self.id.take().unwrap_or(HeaderValue::from_static("-"));
        if response.status().is_server_error()
            && let Some(FailureCause(cause)) = response.extensions().get()
        {
            let (method, route) = (self.stats.method(), self.stats.route());
            tracing::error!(request_id = ?id, method, route, cause, "a request failed");
        }
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
}

impl<F> Future for EdgeFuture<F>
where
    F: Future<Output = Result<Response, Infallible>> + Unpin,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.poll_inner(cx) {
            Poll::Ready(response) => response,
            Poll::Pending => std::task::ready!(self.poll_time_limit(cx)),
        };
        Poll::Ready(Ok(self.finish(response)))
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
