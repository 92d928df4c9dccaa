//! The workflow planner's backend, as it has always called.

use api::auth::Role;
use api::compat::{Adapter, Adapters, CompatSettings};
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, Client, Options, World};

const PATH: &str = "/api/daily_planner_workflow";
const FORM: &str = "application/x-www-form-urlencoded";

async fn ask(client: &Client, action: &str, task: &str) -> Answer {
    let body = json!({ "action": action, "user_id": "ana", "task_id": task });
    client.post(PATH, body).await
}

async fn done(client: &Client, action: &str, task: &str) -> Value {
    let body = ask(client, action, task).await.expect(200);
    assert_eq!(body["success"], true, "{action} {task}: {body}");
    body
}

async fn refused(client: &Client, action: &str, task: &str, error: &str) -> Value {
    let body = ask(client, action, task).await.expect(200);
    assert_eq!((&body["success"], &body["error"]), (&json!(false), &json!(error)), "{body}");
    body
}

const INVALID: &str = "Invalid user status";

#[tokio::test]
async fn a_timer_makes_busy_while_it_runs_and_never_stands_in_its_own_way() {
    let world = World::start().await;
    let (ana, ben, planner) = (world.user("ana"), world.user("ben"), world.service());
    ana.login().await;
    let started = done(&planner, "start", "t1").await;
    assert_eq!(started["status"], "online");
    assert!(started["position"].is_i64());
    assert_eq!(started.as_object().unwrap().len(), 3, "{started}");
    for (action, word) in [("pause", "online"), ("resume", "busy"), ("stop", "online")] {
        done(&planner, action, "t1").await;
        assert_eq!(ben.status_word("ana").await, word, "{action}");
    }
    // Who works on one task may begin another.
    done(&planner, "start", "t1").await;
    done(&planner, "start", "t2").await;
    done(&planner, "stop", "t1").await;
    assert_eq!(ben.status_word("ana").await, "busy");
    done(&planner, "stop", "t2").await;
    done(&planner, "stop", "t2").await;
    assert_eq!(ben.status_word("ana").await, "online");
    world.finish().await;
}

#[tokio::test]
async fn a_refusal_says_what_was_found_and_what_was_required() {
    let world = World::start().await;
    let (ana, planner) = (world.user("ana"), world.service());
    let session = ana.login().await;
    done(&planner, "start", "t1").await;
    ana.logout(&session).await.expect(200);
    for action in ["start", "pause", "resume", "stop"] {
        let body = refused(&planner, action, "t1", INVALID).await;
        assert_eq!(body["current_status"], "offline");
        assert_eq!(body["required_status"], "online");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("offline") && message.contains("requires online"), "{message}");
        assert_eq!(body.as_object().unwrap().len(), 5, "{body}");
    }
    ana.login_idle(600_000).await;
    let body = refused(&planner, "stop", "t1", INVALID).await;
    assert_eq!(body["current_status"], "away", "what is beneath the timer's own busy");
    // Busy for another reason is busy.
    ana.put("/v1/users/ana/claims/manual", json!({ "status": "busy" })).await.expect(200);
    assert_eq!(refused(&planner, "stop", "t1", INVALID).await["current_status"], "busy");
    world.finish().await;
}

#[tokio::test]
async fn what_is_required_is_one_status_or_a_list_and_comes_back_as_it_was_asked() {
    let world = World::start().await;
    let planner = world.service();
    world.user("ana").login_idle(600_000).await;
    let asked = |required: Value| {
        let body = json!({ "action": "stop", "user_id": "ana", "task_id": 1,
            "required_status": required });
        planner.post(PATH, body)
    };
    for good in [json!("away"), json!(["online", "away"]), json!("AWAY")] {
        assert_eq!(asked(good).await.expect(200)["status"], "away");
    }
    for refused in [json!("online"), json!(["online"]), json!(["online", "busy"])] {
        let body = asked(refused.clone()).await.expect(200);
        assert_eq!((&body["error"], &body["required_status"]), (&json!(INVALID), &refused));
    }
    assert_eq!(asked(Value::Null).await.expect(200)["required_status"], "online");
    // The visible status is good enough.
    world.user("ana").login().await;
    done(&planner, "start", "1").await;
    assert_eq!(asked(json!("busy")).await.expect(200)["status"], "busy");
    for wrong in [json!("asleep"), json!([]), json!(["online", 5]), json!({})] {
        let body = asked(wrong).await.expect(400);
        assert_eq!(body["success"], false);
    }
    world.finish().await;
}

#[tokio::test]
async fn forms_numbers_unknown_fields_and_the_old_name_are_taken() {
    let world = World::start().await;
    world.client("5", &[Role::User]).login().await;
    let planner = world.service();
    for (path, kind, body) in [
        (PATH, "application/json", r#"{"action":"start","user_id":5,"task_id":77,"x":[]}"#),
        ("/api/daily_planner_workflow.php", FORM, "action=pause&user_id=5&task_id=77&csrf=x"),
        (
            "/api/daily_planner_workflow/",
            FORM,
            "action=resume&user_id=5&task_id=77\
            &required_status[]=online&required_status[]=away",
        ),
        // What `curl -d` makes of JSON.
        (PATH, FORM, r#"{"action": "stop", "user_id": "5", "task_id": "77"}"#),
    ] {
        let body = planner.post_raw(path, kind, body).await.expect(200);
        assert_eq!((&body["success"], &body["status"]), (&json!(true), &json!("online")), "{path}");
    }
    let sources = world.transitions("5").await;
    let claims = sources.iter().filter(|event| event["type"] == "claim_set");
    assert!(claims.clone().all(|event| event["data"]["source"] == "system:timer:77"));
    assert_eq!(claims.count(), 2);
    world.finish().await;
}

#[tokio::test]
async fn an_unknown_user_is_refused_and_nothing_is_written() {
    let world = World::start().await;
    let planner = world.service();
    let events = world.events().await;
    let body = refused(&planner, "start", "t1", INVALID).await;
    assert_eq!(body["current_status"], "offline");
    let body = json!({ "action": "start", "user_id": "no such name!", "task_id": 1 });
    assert_eq!(planner.post(PATH, body).await.expect(200)["error"], INVALID);
    assert_eq!(world.events().await, events);
    world.finish().await;
}

#[tokio::test]
async fn the_trail_explains_each_decision() {
    let world = World::start().await;
    world.user("ana").login().await;
    let planner = world.service();
    done(&planner, "start", "t1").await;
    refused(&planner, "start", "t1", "Timer already running").await;
    done(&planner, "stop", "t1").await;
    let events = world.transitions("ana").await;
    let of = |name: &'static str| events.iter().filter(move |event| event["type"] == name);
    let allowed: Vec<_> = of("action_allowed").collect();
    assert_eq!(allowed.len(), 2);
    for (event, action, beneath) in
        [(allowed[0], "start", Value::Null), (allowed[1], "stop", json!("online"))]
    {
        assert_eq!(
            (&event["actor"], &event["data"]["action"]),
            (&json!("backend"), &json!(action))
        );
        assert_eq!(
            (&event["data"]["task_id"], &event["data"]["beneath"]),
            (&json!("t1"), &beneath)
        );
    }
    let conflict = of("action_refused").next().unwrap();
    assert_eq!(conflict["data"]["code"], "claim_conflict");
    world.finish().await;
}

#[tokio::test]
async fn of_starts_at_once_one_wins() {
    let world = World::with_nodes(2).await;
    world.user("ana").login().await;
    let nodes = [world.service(), world.at_node(&world.service(), 1)];
    let answers = join_all((0..20).map(|n| ask(&nodes[n % 2], "start", "t1"))).await;
    let answers: Vec<Value> = answers.into_iter().map(|answer| answer.expect(200)).collect();
    assert_eq!(answers.iter().filter(|body| body["success"] == true).count(), 1);
    assert!(answers.iter().filter(|body| body["success"] == false).all(|body| {
        body["error"] == "Timer already running" && body["current_status"] == "online"
    }));
    assert_eq!(world.count("ana", "claim_set").await, 1);
    world.finish().await;
}

#[tokio::test]
async fn errors_have_the_planners_shape() {
    let world = World::start().await;
    let planner = world.service();
    let told = |answer: Answer, status: u16| {
        assert_eq!(answer.header("content-type"), "application/json");
        let body = answer.expect(status);
        assert_eq!(body["success"], false);
        assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
    };
    for (kind, body) in [
        ("application/json", r#"{"user_id": 5, "task_id": 1}"#),
        ("application/json", r#"{"action": "explode", "user_id": 5, "task_id": 1}"#),
        ("application/json", r#"{"action": "start", "task_id": 1}"#),
        ("application/json", r#"{"action": "start", "user_id": 5}"#),
        ("application/json", r#"{"action": "start", "user_id": 5, "task_id": "a b"}"#),
        ("application/json", r#"{"action": "start", "user_id": 1.5, "task_id": 1}"#),
        ("application/json", r#"{"action": "start", "#),
        (FORM, ""),
        (FORM, "action=start&user_id=5&task_id=%00"),
    ] {
        told(planner.post_raw(PATH, kind, body).await, 400);
    }
    told(planner.post_raw(PATH, "multipart/form-data; boundary=x", "--x--").await, 415);
    told(planner.post_raw(PATH, FORM, vec![b'a'; 70_000]).await, 413);
    told(planner.get(PATH).await, 405);
    let user = world.user("ana").post(PATH, json!({})).await;
    told(user, 403);
    let nobody = world.nobody().post(PATH, json!({})).await;
    assert_eq!(nobody.header("www-authenticate"), "Bearer");
    told(nobody, 401);
    world.finish().await;
}

#[tokio::test]
async fn an_adapter_that_is_switched_off_is_not_there() {
    let only = |adapters: &[Adapter]| CompatSettings {
        adapters: Adapters(adapters.to_vec()),
        chat_login_url: None,
        ..CompatSettings::default()
    };
    for on in [&[][..], &[Adapter::Planner], &[Adapter::Chat], &[Adapter::Polling]] {
        let world = World::with(Options { compat: only(on), ..Options::default() }).await;
        let described = world.nobody().get("/openapi.json").await.expect(200);
        for (adapter, path, method) in [
            (Adapter::Planner, PATH, "post"),
            (Adapter::Chat, "/api/users/heartbeat/", "post"),
            (Adapter::Polling, "/api/status", "put"),
        ] {
            let there = on.contains(&adapter);
            let answer = match method {
                "put" => world.service().put(path, json!({})).await,
                _ => world.service().post(path, json!({})).await,
            };
            assert_eq!(answer.status != 404, there, "{adapter:?} of {on:?}: {}", answer.text);
            assert_eq!(described["paths"][path][method].is_object(), there, "{adapter:?}");
        }
        world.finish().await;
    }
}
