//! Counters of one method of one route.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};

use crate::limits::UNTIMED_ROUTES;
use crate::telemetry::{HTTP_REQUESTS, HTTP_SECONDS};

/// The `route` of requests that no route took.
const UNMATCHED: &str = "unmatched";

/// Handles into the metrics' registry, so that a request pays no look-up.
#[derive(Debug)]
pub(super) struct RouteStats {
    method: &'static str,
    route: Arc<str>,
    timed: bool,
    by_class: [Counter; 5],
    seconds: Histogram,
}

impl RouteStats {
    fn new(method: &'static str, route: &str) -> Self {
        let class = |class: &'static str| {
            counter!(
                HTTP_REQUESTS,
                "method" => method, "route" => route.to_owned(), "status" => class
            )
        };
        Self {
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            seconds: histogram!(HTTP_SECONDS, "method" => method, "route" => route.to_owned()),
            timed: !UNTIMED_ROUTES.contains(&route),
            route: route.into(),
            method,
        }
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    pub(super) fn route(&self) -> &str {
        &self.route
    }

    /// Whether the time limit holds here.
    pub(super) fn timed(&self) -> bool {
        self.timed
    }

    pub(super) fn count(&self, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.by_class.get(class) {
            counter.increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }
}

/// Filled at the first request, when the route's template is known.
#[derive(Debug, Clone, Default)]
pub(super) struct StatsCell(Arc<OnceLock<Arc<RouteStats>>>);

impl StatsCell {
    /// The counters of this method and route. A handler mostly has one of each; where it does not
    /// (`HEAD` on a `GET` route, the fallbacks) they are looked up anew.
    pub(super) fn get(&self, method: &Method, route: Option<&str>) -> Arc<RouteStats> {
        let (method, route) = (name_of(method), route.unwrap_or(UNMATCHED));
        let stats = self.0.get_or_init(|| Arc::new(RouteStats::new(method, route)));
        if stats.method == method && *stats.route == *route {
            Arc::clone(stats)
        } else {
            Arc::new(RouteStats::new(method, route))
        }
    }
}

/// Methods are made up by clients: those that we do not know share one name.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
