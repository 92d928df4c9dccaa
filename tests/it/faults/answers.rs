//! A line to the database that breaks: each accepted command is in the log exactly once.

use std::path::PathBuf;
use std::time::Duration;

use api::auth::Role;
use tests::cluster;
use tests::process::Serve;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::proxy::{Fault, Proxy};
use tests::process::scratch::Scratch;
use tests::process::wait::until;

const CLIENTS: usize = 16;
const ROUNDS: usize = 6;
const ACKS_BETWEEN: usize = 60;
/// A batch is asked for again after 50 ms, then after twice as long each time.
const PROGRESS_MAX: Duration = Duration::from_secs(30);

/// The socket that a URL of the run's cluster leads to.
pub(super) fn socket_of(url: &str) -> PathBuf {
    let host = url.rsplit('@').next().unwrap().split('/').next().unwrap();
    PathBuf::from(host.replace("%2F", "/")).join(".s.PGSQL.5432")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_answer_was_lost_is_in_the_log_exactly_once() {
    let scratch = Scratch::new();
    let database = cluster::empty_database().await;
    let proxy = Proxy::start(socket_of(&database.url)).await;
    let serve = Serve::new(&scratch.join("data")).database(&proxy.url(&database.name));
    let server = serve.start().await;
    let api = Api::at(&server, "planner", Role::Service);
    let load = Load::start(&api, "a", CLIENTS);
    let mut planned = 0;
    for _ in 0..ROUNDS {
        for fault in [Fault::Unanswered, Fault::Sent, Fault::Unsent, Fault::Unanswered] {
            load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
            proxy.plan(fault);
            planned += 1;
            until("it broke", PROGRESS_MAX, async || (proxy.happened() == planned).then_some(()))
                .await;
        }
        // Those of the reads, too, whatever they are doing.
        proxy.cut_all();
    }
    load.progress(ACKS_BETWEEN, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    let audit = Audit::connect(&database.url).await;
    audit.holds(&ledger).await;
    assert_eq!(audit.count("session_expired").await, 0);
    assert_eq!(audit.count("service_resumed").await, 0, "no outage was long enough to be one");
    let (acks, refused) = (ledger.acks.len(), ledger.refused);
    println!("{planned} faults: acknowledged {acks}, refused {refused}");
    assert_eq!(server.stop().await.code(), Some(0));
    drop(proxy);
    audit.pool().close().await;
    database.drop().await;
}
