//! `kill -9` under load: nothing acknowledged is lost, nobody is logged out by our outage.

use std::time::Duration;

use api::auth::Role;
use rustix::process::{Pid, Signal, kill_process};
use tests::fold;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::scratch::Scratch;
use tests::process::wait::until;
use tests::process::{Serve, run};
use tokio::sync::watch;

const KILLS: usize = 10;
/// Besides, server and PostgreSQL at one time, as when the power fails.
const POWER_CUTS: usize = 2;
/// Besides, the one backend that appends: PostgreSQL then throws everybody out and recovers.
const BACKEND_KILLS: usize = 2;
const CLIENTS: usize = 32;
/// Between two kills: each client has been everywhere in its round.
const ACKS_BETWEEN: usize = 200;
/// For the service to be back and to have acknowledged so much, on a busy machine.
const PROGRESS_MAX: Duration = Duration::from_secs(45);

async fn audit(data_dir: &str) -> Audit {
    Audit::connect(run(["db-url", "--data-dir", data_dir]).await.ok().trim()).await
}

/// What must be true after each restart, while the load goes on.
async fn nothing_was_lost(audit: &Audit, load: &Load) {
    let ledger = load.ledger().clone();
    audit.kept(&ledger).await;
    let gone = audit.gone(&ledger.live()).await;
    // Some may have been asked to end since we looked.
    let live_still = load.ledger().live();
    let lost: Vec<_> = gone.iter().filter(|session| live_still.contains(session)).collect();
    assert!(lost.is_empty(), "logged out by the outage: {lost:?}");
    assert_eq!(audit.count("session_expired").await, 0, "nobody timed out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_ten_times_under_load_loses_nothing_and_logs_nobody_out() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let serve = Serve::new(&data_dir);
    let mut server = serve.start().await;
    let (place, _) = watch::channel(server.address);
    let api = Api::following(&place.subscribe(), "planner", Role::Service);
    let load = Load::start(&api, "k", CLIENTS);
    for round in 0..KILLS + POWER_CUTS {
        load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
        let power_cut = round >= KILLS;
        if power_cut {
            kill_process(server.postmaster().unwrap(), Signal::KILL).unwrap();
        }
        server.kill().await;
        server = serve.start().await;
        let adopted = server.said.count("adopting the PostgreSQL");
        assert_eq!(adopted, usize::from(!power_cut), "{}", server.said.tail());
        place.send_replace(server.address);
        nothing_was_lost(&audit(data_dir.to_str().unwrap()).await, &load).await;
    }
    load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    let audit = audit(data_dir.to_str().unwrap()).await;
    audit.holds(&ledger).await;
    // Killed in the middle of many a page, the views are still what the log folds to.
    fold::caught_up(audit.pool()).await;
    fold::check(audit.pool()).await;
    println!("acknowledged {}, refused {}", ledger.acks.len(), ledger.refused);
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_killed_ten_times_under_load_comes_back_without_a_restart_of_ours() {
    let scratch = Scratch::new();
    let data_dir = scratch.join("data");
    let mut server = Serve::new(&data_dir).start().await;
    let api = Api::at(&server, "planner", Role::Service);
    let load = Load::start(&api, "p", CLIENTS);
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
        let before = until("PostgreSQL runs", PROGRESS_MAX, async || server.postmaster()).await;
        kill_process(before, Signal::KILL).unwrap();
        let killed = std::time::Instant::now();
        until("another PostgreSQL runs", PROGRESS_MAX, async || {
            server.postmaster().filter(|pid| *pid != before)
        })
        .await;
        load.progress(1, PROGRESS_MAX).await;
        longest = longest.max(killed.elapsed());
        nothing_was_lost(&audit(data_dir.to_str().unwrap()).await, &load).await;
        assert!(server.runs(), "the same process serves on");
    }
    for _ in 0..BACKEND_KILLS {
        let audit = audit(data_dir.to_str().unwrap()).await;
        let appending = "select pid from pg_stat_activity where query like '%from append(%'
                         and pid <> pg_backend_pid()";
        let pid: i32 = sqlx::query_scalar(appending).fetch_one(audit.pool()).await.unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
    }
    load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    audit(data_dir.to_str().unwrap()).await.holds(&ledger).await;
    let (acks, refused, busy) = (ledger.acks.len(), ledger.refused, ledger.busy);
    println!("acknowledged {acks}, refused {refused} (503: {busy}), back within {longest:?}");
    assert_eq!(server.stop().await.code(), Some(0));
}
