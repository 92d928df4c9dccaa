use axum::Router;
use axum::routing::{get, post};
use domain::UserId;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user_id: UserId,
    #[serde(default)]
    idle_ms: u64,
    #[serde(default)]
    text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beat {
    #[serde(default)]
    idle_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

fn router() -> Router {
    Router::new()
        .route(
            "/login",
            post(async |Json(login): Json<Login>| {
                Json(json!([login.user_id, login.idle_ms, login.text]))
            }),
        )
        .route("/small", post(async |JsonUpTo(value): JsonUpTo<16, Value>| Json(value)))
        .route("/beat", post(async |OptionalJson(beat): OptionalJson<Beat>| Json(beat.idle_ms)))
        .route("/page", get(async |Query(page): Query<Page>| Json(page.limit)))
        .route("/s/{id}", get(async |Path(id): Path<Uuid>| Json(id)))
        .route("/u/{id}", get(async |Path(id): Path<UserId>| Json(id)))
}

/// The status, and the code or the answer.
async fn sent(request: Request) -> (u16, Value) {
    let response = router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let code = body.get("code").cloned();
    (status, code.unwrap_or(body))
}

async fn posted(path: &str, content_type: Option<&str>, body: impl Into<Body>) -> (u16, Value) {
    let mut request = Request::post(path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    sent(request.body(body.into()).unwrap()).await
}

async fn got(path: &str) -> (u16, Value) {
    sent(Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn bodies_are_refused_for_what_is_wrong_with_them() {
    let json_type = Some("application/json");
    for (body, expected) in [
        (r#"{"user_id":"ana","idle_ms":5}"#, (200, json!(["ana", 5, ""]))),
        ("{", (400, json!("malformed_json"))),
        ("", (400, json!("malformed_json"))),
        (r#"{"user_id":"ana"} x"#, (400, json!("malformed_json"))),
        ("{\"user_id\":\"\u{1}\"}", (400, json!("malformed_json"))),
        (r#"{"user_id":"ana","nope":1}"#, (400, json!("unknown_field"))),
        (r#"{"idle_ms":1}"#, (400, json!("missing_field"))),
        (r#"{"user_id":"ana","idle_ms":"x"}"#, (400, json!("invalid_field"))),
        (r#"{"user_id":"ana","idle_ms":-1}"#, (422, json!("invalid_value"))),
        (r#"{"user_id":"a b"}"#, (422, json!("invalid_user_id"))),
        (r#"{"user_id":"ana","text":"a\u0000"}"#, (422, json!("nul_character"))),
        (r#"{"user_id":"ana","text":"\\u0000"}"#, (200, json!(["ana", 0, "\\u0000"]))),
        (r#"{"user_id":"ana","text":"\\\u0000"}"#, (422, json!("nul_character"))),
    ] {
        assert_eq!(posted("/login", json_type, body).await, expected, "{body}");
    }
    let not_utf8 = b"{\"user_id\":\"\xff\"}".to_vec();
    assert_eq!(posted("/login", json_type, not_utf8).await.0, 400);
}

#[test]
fn what_is_no_object_or_lacks_its_one_member_is_told_in_words_of_ours() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "read, and that is all")]
    struct Outer {
        then: Then,
        #[serde(default)]
        beat: Option<Beat>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "read, and that is all")]
    #[serde(rename_all = "snake_case")]
    enum Then {
        Webhook(String),
    }
    for (body, code) in [
        ("[", "malformed_json"),
        ("[]", "invalid_field"),
        ("null", "invalid_field"),
        ("[{\"webhook\":\"x\"}]", "invalid_field"),
        ("{\"then\":{}", "malformed_json"),
        ("{\"then\":{}}", "invalid_field"),
        ("{\"then\":5}", "invalid_field"),
        ("{\"then\":{\"webhook\":\"x\"},\"beat\":5}", "invalid_field"),
    ] {
        let problem = parse_object::<Outer>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code(), code, "{body}");
        for ours in ["struct", "enum", "Outer", "Beat", "Then"] {
            assert!(!problem.detail().contains(ours), "{}", problem.detail());
        }
    }
}

#[tokio::test]
async fn only_json_is_taken_for_json() {
    let body = r#"{"user_id":"ana"}"#;
    for (content_type, status) in [
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=utf-8"), 200),
        (Some("application/vnd.rollcall+json"), 200),
        (Some("text/plain"), 415),
        (Some("json"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (None, 415),
    ] {
        assert_eq!(posted("/login", content_type, body).await.0, status, "{content_type:?}");
    }
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_with_and_without_a_length() {
    let json_type = Some("application/json");
    assert_eq!(posted("/small", json_type, r#"{"a":1,"b":2345}"#).await.0, 200);
    let long = r#"{"a":1,"b":23456}"#;
    assert_eq!(posted("/small", json_type, long).await, (413, json!("payload_too_large")));
    let chunks = [Ok::<_, std::io::Error>(&long[..9]), Ok(&long[9..])];
    let streamed = Body::from_stream(futures::stream::iter(chunks));
    assert_eq!(posted("/small", json_type, streamed).await, (413, json!("payload_too_large")));
    let broken = [Ok(&long[..9]), Err(std::io::Error::other("gone"))];
    let broken = Body::from_stream(futures::stream::iter(broken));
    assert_eq!(posted("/small", json_type, broken).await, (400, json!("incomplete_body")));
    let login = format!(r#"{{"user_id":"ana","text":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    assert_eq!(posted("/login", json_type, login).await, (413, json!("payload_too_large")));
}

#[tokio::test]
async fn an_empty_body_is_the_default_where_it_is_optional() {
    assert_eq!(posted("/beat", None, "").await, (200, json!(0)));
    assert_eq!(posted("/beat", Some("text/plain"), "").await, (200, json!(0)));
    assert_eq!(posted("/beat", Some("application/json"), "{}").await, (200, json!(0)));
    let beat = r#"{"idle_ms":7}"#;
    assert_eq!(posted("/beat", Some("application/json"), beat).await, (200, json!(7)));
    assert_eq!(posted("/beat", None, beat).await, (415, json!("unsupported_media_type")));
    let empty = Body::from_stream(futures::stream::empty::<Result<Bytes, std::io::Error>>());
    assert_eq!(posted("/beat", None, empty).await, (200, json!(0)));
}

#[tokio::test]
async fn queries_and_paths_are_refused_for_what_is_wrong_with_them() {
    for (path, expected) in [
        ("/page", (200, json!(null))),
        ("/page?limit=5", (200, json!(5))),
        ("/page?limit=x", (400, json!("invalid_parameter"))),
        ("/page?limit=-1", (400, json!("invalid_parameter"))),
        ("/page?nope=1", (400, json!("unknown_parameter"))),
        ("/page?limit=%00", (422, json!("nul_character"))),
        ("/s/nope", (400, json!("invalid_parameter"))),
        ("/s/%ff", (400, json!("invalid_parameter"))),
        ("/u/ana", (200, json!("ana"))),
        ("/u/a%20b", (422, json!("invalid_user_id"))),
        ("/u/a%2Bb", (200, json!("a+b"))),
        ("/u/%ff", (400, json!("invalid_parameter"))),
    ] {
        assert_eq!(got(path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_streamed_body_comes_in_chunks_and_tells_an_end_from_a_break() {
    let chunks = |last| futures::stream::iter([Ok("one"), last]);
    let mut whole = Body::from_stream(chunks(Ok("two")));
    assert_eq!(next_chunk(&mut whole).await.unwrap().unwrap(), "one");
    assert_eq!(next_chunk(&mut whole).await.unwrap().unwrap(), "two");
    assert!(next_chunk(&mut whole).await.unwrap().is_none());
    let mut broken = Body::from_stream(chunks(Err(std::io::Error::other("gone"))));
    assert_eq!(next_chunk(&mut broken).await.unwrap().unwrap(), "one");
    assert_eq!(next_chunk(&mut broken).await.unwrap_err().code(), "incomplete_body");
}
