//! What the OpenAPI document says of all calls alike. That the answers are as it says, CI asks
//! schemathesis: `.ci/schemathesis`.

use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(api::routes::document()).unwrap()
}

/// Every call: its method and path, and what is said of it.
fn calls(document: &Value) -> Vec<(String, &Value)> {
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            if call["responses"].is_object() {
                calls.push((format!("{method} {path}"), call));
            }
        }
    }
    assert!(calls.len() > 70, "{} calls", calls.len());
    calls
}

/// The path of a replaced system's call: the shapes of its errors are not ours.
fn is_adapted(name: &str) -> bool {
    name.contains(" /api/") || name.contains(" /ws/")
}

fn kinds(answer: &Value) -> Vec<&str> {
    answer["content"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn calls_of_replaced_systems_never_answer_422_and_the_edge_s_503_is_no_shape_of_theirs() {
    let document = document();
    for (name, call) in calls(&document) {
        let answers = &call["responses"];
        let late = kinds(&answers["503"]);
        if is_adapted(&name) {
            assert!(answers["422"].is_null(), "{name}");
            assert_eq!(late, ["application/json", "application/problem+json"], "{name}");
        } else {
            assert_eq!(late, ["application/problem+json"], "{name}");
        }
    }
}

#[test]
fn who_reads_a_json_body_may_say_413_and_415() {
    let document = document();
    for (name, call) in calls(&document) {
        let reads = call["requestBody"]["content"]["application/json"].is_object();
        for status in ["413", "415"] {
            assert_eq!(call["responses"][status].is_object(), reads, "{name}: {status}");
        }
    }
}

#[test]
fn refusals_that_carry_headers_say_so() {
    let document = document();
    for (name, call) in calls(&document) {
        for (status, header) in
            [("401", "WWW-Authenticate"), ("429", "Retry-After"), ("503", "Retry-After")]
        {
            let answer = &call["responses"][status];
            let said = answer["headers"][header].is_object();
            assert!(answer.is_null() || said, "{name}: {status}");
        }
    }
}

#[test]
fn a_choice_of_forms_is_described_with_all_of_them() {
    let document = document();
    for (name, call) in calls(&document) {
        let choice = call["responses"]["406"].is_object();
        let described = &call["responses"]["200"]["content"];
        assert_eq!(described["text/csv"].is_object(), choice, "{name}");
        let pictures = choice && name.contains("/analytics/");
        assert_eq!(described["image/svg+xml"].is_object(), pictures, "{name}");
    }
}

#[test]
fn two_lists_of_sessions_are_two_schemas() {
    let document = document();
    let of = |path: &str| {
        let answer = &document["paths"][path]["get"]["responses"]["200"];
        let schema = answer["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        document.pointer(schema.trim_start_matches('#')).unwrap()["properties"].clone()
    };
    assert!(of("/v1/users/{id}/sessions")["count"].is_object());
    assert!(of("/v1/analytics/sessions")["open"].is_object());
}

#[test]
fn feeds_of_groups_may_be_forbidden_and_say_which_groups_these_are() {
    let document = document();
    for path in ["/v1/changes", "/v1/stream"] {
        let refused = &document["paths"][path]["get"]["responses"]["403"];
        assert!(refused["description"].as_str().unwrap().contains("`groups`"), "{path}");
        assert_eq!(kinds(refused), ["application/problem+json"], "{path}");
    }
}
