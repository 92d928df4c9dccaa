use chrono::DateTime;

use super::*;

async fn shown(problem: Problem) -> (StatusCode, HeaderMap, Value) {
    let response = problem.into_response();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_problem_has_the_members_of_rfc_9457_and_a_code() {
    let at = DateTime::from_timestamp(0, 5_000).unwrap();
    let (status, headers, body) =
        shown(Problem::session_closed(Some("user_request"), Some(at))).await;
    assert_eq!(status, 410);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(body["type"], "/docs#session_closed");
    assert_eq!(body["title"], "Session closed");
    assert_eq!(body["status"], 410);
    assert_eq!(body["code"], "session_closed");
    assert_eq!(body["reason"], "user_request");
    assert_eq!(body["closed_at"], "1970-01-01T00:00:00.000005Z");
    assert!(body["detail"].is_string());
    assert!(body.get("retry_after_ms").is_none());
}

#[tokio::test]
async fn whoever_must_wait_is_told_how_long_in_whole_seconds_and_at_least_one() {
    for (problem, seconds, ms) in [
        (Problem::rate_limited(Duration::from_millis(5)), "1", 5),
        (Problem::overloaded(Duration::from_millis(1_001)), "2", 1_001),
        (Problem::rate_limited(Duration::from_nanos(1)), "1", 1),
        (Problem::timeout(), "1", 1_000),
        (Problem::position_not_reached(7), "1", 1_000),
    ] {
        let (_, headers, body) = shown(problem).await;
        assert_eq!(headers["retry-after"], seconds);
        assert_eq!(body["retry_after_ms"], ms);
    }
}

#[tokio::test]
async fn the_cause_of_a_failure_is_kept_from_the_client() {
    let response = Problem::internal("relation \"event\" does not exist").into_response();
    assert!(response.extensions().get::<FailureCause>().unwrap().0.contains("relation"));
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(!String::from_utf8(body.to_vec()).unwrap().contains("relation"));
}

#[tokio::test]
async fn a_401_challenges_with_bearer() {
    let (_, headers, _) = shown(Problem::unauthenticated()).await;
    assert_eq!(headers["www-authenticate"], "Bearer");
    let (_, headers, _) = shown(Problem::token_expired()).await;
    assert_eq!(headers["www-authenticate"], r#"Bearer error="invalid_token""#);
}

#[test]
fn a_result_that_holds_a_problem_stays_small() {
    assert_eq!(size_of::<Problem>(), size_of::<usize>());
}
