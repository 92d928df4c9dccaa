use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::extract::{BodyBytes, Json};

fn routes() -> Router {
    routes_that_wait_for(Arc::default())
}

fn routes_that_wait_for(go: Arc<Notify>) -> Router {
    async fn panics() -> Json<u8> {
        panic!("words with a secret");
    }
    let wait = async move || {
        go.notified().await;
        Json(1)
    };
    Router::new()
        .route("/ok/{id}", get(async || Json(1)))
        .route("/post", post(async |BodyBytes(_): BodyBytes<4>| Json(1)))
        .route("/panic", get(panics))
        .route("/slow", get(wait.clone()))
        .route("/v1/changes", get(wait))
        .route("/fails", get(async || Problem::internal("select failed")))
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(body["status"], self.status.as_u16());
        body["code"].as_str().unwrap().to_owned()
    }
}

async fn ask(router: &Router, request: HttpRequest<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

async fn got(path: &str) -> Answer {
    let router = edge(routes(), &EdgeSettings::default());
    ask(&router, HttpRequest::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_unknown_route_is_a_problem() {
    let answer = got("/nowhere").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_says_which_ones_are_right() {
    let answer = got("/post").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn a_panic_is_a_problem_that_keeps_its_words() {
    let answer = got("/panic").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "internal"));
    assert!(!answer.text.contains("secret"));
}

#[tokio::test]
async fn a_failure_keeps_its_cause() {
    let answer = got("/fails").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "internal"));
    assert!(!answer.text.contains("select"));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_a_problem() {
    let router = edge(routes(), &EdgeSettings::default());
    let answer = ask(&router, HttpRequest::post("/post").body(Body::from("12345")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_problem_and_a_long_poll_has_its_own_time() {
    let go = Arc::new(Notify::new());
    let request_time_max = Duration::from_millis(20);
    let settings = EdgeSettings { request_time_max, ..EdgeSettings::default() };
    let router = edge(routes_that_wait_for(Arc::clone(&go)), &settings);
    let request = |path| HttpRequest::get(path).body(Body::empty()).unwrap();
    let timed = async {
        let answer = ask(&router, request("/slow")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "timeout"));
        assert_eq!(answer.headers["retry-after"], "1");
        go.notify_one();
    };
    let (long_poll, ()) = tokio::join!(ask(&router, request("/v1/changes")), timed);
    assert_eq!(long_poll.status, 200);
}

#[tokio::test]
async fn each_answer_has_a_request_id_and_a_usable_one_is_taken_over() {
    let router = edge(routes(), &EdgeSettings::default());
    let id = async |sent: Option<&str>| {
        let mut request = HttpRequest::get("/ok/ana");
        if let Some(sent) = sent {
            request = request.header(REQUEST_ID, sent);
        }
        let answer = ask(&router, request.body(Body::empty()).unwrap()).await;
        answer.headers[REQUEST_ID].to_str().unwrap().to_owned()
    };
    assert_eq!(id(Some("abc-1")).await, "abc-1");
    let (one, two) = (id(None).await, id(None).await);
    assert!(one.len() == 16 && one != two);
    assert_eq!(id(Some("two words")).await.len(), 16);
    assert_eq!(id(Some(&"x".repeat(129))).await.len(), 16);
}

#[tokio::test]
async fn requests_are_counted_by_template_and_not_by_path() {
    assert_eq!(got("/ok/ana-the-person").await.status, 200);
    assert_eq!(got("/nowhere/bob-the-person").await.status, 404);
    let text = telemetry::install_metrics().render();
    assert!(
        text.contains(
            r#"rollcall_http_requests_total{method="GET",route="/ok/{id}",status="2xx"}"#
        )
    );
    assert!(text.contains(r#"route="unmatched",status="4xx""#));
    assert!(text.contains(r#"rollcall_http_request_seconds_count{method="GET",route="/ok/{id}"}"#));
    assert!(!text.contains("the-person"));
}

#[tokio::test]
async fn made_up_methods_share_one_name_in_the_metrics() {
    let router = edge(routes(), &EdgeSettings::default());
    let request = HttpRequest::builder().method("BREW").uri("/ok/1");
    assert_eq!(ask(&router, request.body(Body::empty()).unwrap()).await.status, 405);
    let text = telemetry::install_metrics().render();
    assert!(text.contains(r#"method="other""#) && !text.contains("BREW"));
}

fn preflight(path: &str, origin: &str) -> HttpRequest<Body> {
    HttpRequest::options(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_preflight_is_answered_for_the_listed_origins_only() {
    let origin = HeaderValue::from_static("https://app.example");
    let settings = EdgeSettings { allow_origins: vec![origin], ..EdgeSettings::default() };
    let router = edge(routes(), &settings);
    let answer = ask(&router, preflight("/post", "https://app.example")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("author"));
    let answer = ask(&router, preflight("/post", "https://evil.example")).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    // Errors must be readable for the page, too.
    let request = HttpRequest::get("/nowhere").header("origin", "https://app.example");
    let answer = ask(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.code(), "not_found");
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
}

#[tokio::test]
async fn without_a_list_there_is_no_cors() {
    let router = edge(routes(), &EdgeSettings::default());
    let answer = ask(&router, preflight("/post", "https://app.example")).await;
    assert_eq!(answer.status, 405);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}
