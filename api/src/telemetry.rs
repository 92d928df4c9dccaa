//! Logs to stderr, metrics for Prometheus.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Requests answered, by `method`, `route` (its template) and class of `status`.
pub const HTTP_REQUESTS: &str = "rollcall_http_requests_total";
/// Seconds from a request's head to its answer's, by `method` and `route`.
pub const HTTP_SECONDS: &str = "rollcall_http_request_seconds";

/// Connections open now.
pub const HTTP_CONNECTIONS: &str = "rollcall_http_connections";

/// Upper bounds of the histograms whose names end in `_seconds`, in seconds.
const SECONDS_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// How often [`Metrics::tidy`] wants to be called: until then each sample takes 16 bytes, and
/// 100,000 of them take it half a millisecond.
pub const METRICS_TIDY_EVERY: Duration = Duration::from_secs(1);

/// What is logged where `RUST_LOG` says nothing: sqlx tells the server's notices as news.
const FILTER_DEFAULT: &str = "info,sqlx=warn";

/// Logs to stderr from now on: what `RUST_LOG` says, else `info` and above. A second call in one
/// process changes nothing.
pub fn init_logs(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error says that somebody logs already, such as another server in one test process.
    let _ = match format {
        LogFormat::Text => logs.finish().try_init(),
        LogFormat::Json => logs.json().finish().try_init(),
    };
}

/// The process' metrics: one registry for all servers within it.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves samples into their buckets. To be called every [`METRICS_TIDY_EVERY`].
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// The process' metrics, installed by the first call.
pub fn install_metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS
        .get_or_init(|| {
            let suffix = Matcher::Suffix("_seconds".to_owned());
            let builder = PrometheusBuilder::new();
            // An error says that there are no buckets.
            let builder = builder
                .set_buckets_for_metric(suffix, SECONDS_BUCKETS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // An error says that the host process has a recorder already; ours then stays empty.
            let _ = metrics::set_global_recorder(recorder);
            describe_counter!(HTTP_REQUESTS, "HTTP requests answered");
            describe_histogram!(
                HTTP_SECONDS,
                Unit::Seconds,
                "Time from a request's head to its answer's"
            );
            Metrics(handle)
        })
        .clone()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_installed_once_and_rendered_with_buckets() {
        install_metrics();
        metrics::histogram!("telemetry_test_seconds").record(0.003);
        let text = install_metrics().render();
        assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.0025"} 0"#), "{text}");
    }
}
