//! Taking over from a system that keeps a table of who is online: its rows as history, and a
//! comparison with what Rollcall says now. The real binary beside a server.

use std::path::Path;

use serde_json::{Value, json};
use tests::process::scratch::Scratch;
use tests::process::{Ran, binary, rollcall, run};
use tests::{World, eventually};

async fn ran(world: &World, args: &[&str]) -> Ran {
    Ran::of(rollcall().args(args).args(["--database-url", &world.database.url])).await
}

fn file(scratch: &Scratch, text: &str) -> String {
    let path = scratch.join("table.csv");
    std::fs::write(&path, text).unwrap();
    Path::to_str(&path).unwrap().to_owned()
}

fn report(out: &str) -> Value {
    serde_json::from_str(out.trim()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_statuses_becomes_history_once_however_often_it_is_read() {
    let (world, scratch) = (World::start().await, Scratch::new());
    world.user("dora").login().await;
    let table = file(
        &scratch,
        "id,online_status,last_activity\n\
         ana,online,2020-01-01 08:00:00\n\
         ben,offline,1577865600\n\
         carl,offline,\n\
         dora,online,2999-01-01T00:00:00Z\n\
         not a user,online,2020-01-01T08:00:00Z\n",
    );
    let import = ["import", "--format", "status-csv", &table];
    let first = ran(&world, &import).await;
    assert!(first.err.contains("line 4: never_seen: "), "{}", first.err);
    let first = report(&first.ok());
    assert_eq!((&first["imported"], &first["skipped"]), (&json!(2), &json!(0)));
    let codes = first["rejected"].as_array().unwrap().iter();
    let codes: Vec<_> = codes.map(|r| (r["line"].as_u64(), r["code"].as_str().unwrap())).collect();
    let expected =
        [(Some(4), "never_seen"), (Some(5), "overlaps_history"), (Some(6), "invalid_user_id")];
    assert_eq!(codes, expected);
    for user in ["ana", "ben"] {
        eventually("the server knows", async || {
            world.auditor().get(&format!("/v1/users/{user}/status")).await.status == 200
        })
        .await;
        let status = world.user("x").status(user).await;
        let at = "2020-01-01T08:00:00.000000Z";
        let expected = (&json!("offline"), &json!(at), &json!(at));
        assert_eq!((&status["status"], &status["since"], &status["last_seen"]), expected);
    }
    let again = report(&ran(&world, &import).await.ok());
    assert_eq!((&again["imported"], &again["skipped"]), (&json!(0), &json!(2)));
    // Her first own login ends what was taken over; a later row is no news any more.
    world.user("ana").login().await;
    let later = file(&scratch, "user\tstatus\tlast_seen\nana\tonline\t2998-01-01T00:00:00Z\n");
    let later = report(&ran(&world, &["import", "--format", "status-csv", &later]).await.ok());
    assert_eq!(later["rejected"][0]["code"], "overlaps_history");
    for wrong in ["", "ana,online\n"] {
        let wrong = file(&scratch, wrong);
        let ran = ran(&world, &["import", "--format", "status-csv", &wrong]).await;
        assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{}", ran.err);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_says_who_differs_and_likely_why() {
    binary(); // Leases run while it is built.
    let (world, scratch) = (World::start().await, Scratch::new());
    world.user("slow").login().await;
    world.advance_s(130).await;
    eventually("her lease is over", async || world.count("slow", "session_expired").await == 1)
        .await;
    let mut sessions = Vec::new();
    for user in ["same", "gone", "here", "busy", "mine", "veiled"] {
        sessions.push(world.user(user).login().await);
    }
    world.user("gone").logout(&sessions[1]).await.expect(200);
    let busy = json!({ "status": "busy" });
    world.user("busy").put("/v1/users/busy/claims/manual", busy).await.expect(200);
    let veil = json!({ "invisible": true });
    world.user("veiled").put("/v1/users/veiled/visibility", veil).await.expect(200);
    let now = world.now().await.format("%F %T").to_string();
    let events = world.events().await;
    let rows = [
        ("same", "online", &now),
        ("gone", "online", &now),
        ("here", "offline", &now),
        ("busy", "online", &now),
        ("slow", "online", &now),
        ("veiled", "offline", &now),
        ("stuck", "online", &"2020-01-01 08:00:00".to_owned()),
        ("new", "online", &now),
        ("nobody", "offline", &now),
    ];
    let rows = rows.map(|(user, status, seen)| format!("{user},{status},{seen}\n")).concat();
    let table = file(&scratch, &format!("user_id,status,last_seen\n{rows}x y,online,\n"));
    let found = ran(&world, &["compare", &table, "--json"]).await;
    assert_eq!(found.code, Some(3), "{}", found.err);
    let found = report(&found.out);
    let differences = found["differences"].as_array().unwrap().iter();
    let codes: Vec<_> = differences
        .map(|d| (d["user_id"].as_str().unwrap(), d["code"].as_str().unwrap()))
        .collect();
    let expected = [
        ("gone", "logged_out"),
        ("here", "only_here"),
        ("busy", "claim_here"),
        ("slow", "lease_over"),
        ("stuck", "stuck_there"),
        ("new", "never_here"),
        ("mine", "not_listed"),
    ];
    assert_eq!(codes, expected);
    assert_eq!((&found["same"], &found["different"]), (&json!(3), &json!(7)));
    assert_eq!(found["rejected"][0]["code"], "invalid_user_id");
    let text = ran(&world, &["compare", &table, "--as", "chat"]).await;
    assert_eq!((text.code, text.out.lines().count()), (Some(3), 6), "{}", text.out);
    assert!(text.err.contains("10 compared, 4 the same, 6 not, 1 rejected"), "{}", text.err);
    assert_eq!(world.events().await, events, "it only reads");
    let twice = file(&scratch, "user,is_online\nsame,1\nnobody,0\nsame,1\nnobody,1\n");
    let twice = report(&ran(&world, &["compare", &twice, "--json"]).await.out);
    assert_eq!(twice["rejected_count"], 2);
    let lines = twice["rejected"].as_array().unwrap().iter();
    let lines: Vec<_> = lines.map(|r| (r["line"].as_u64(), r["code"].as_str())).collect();
    assert_eq!(lines, [(Some(4), Some("listed_twice")), (Some(5), Some("listed_twice"))]);
    let agreed = "user,is_online\nsame,1\ngone,0\nhere,true\nbusy,t\nslow,f\nmine,yes\n";
    let agreed = ran(&world, &["compare", &file(&scratch, agreed)]).await;
    assert_eq!((agreed.ok(), run(["compare"]).await.code), (String::new(), Some(2)));
    world.finish().await;
}
