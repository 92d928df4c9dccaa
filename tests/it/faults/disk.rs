//! A disk that is full: 503 until there is space again, and nothing acknowledged is lost.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use api::auth::Role;
use tests::process::api::Api;
use tests::process::audit::Audit;
use tests::process::load::Load;
use tests::process::scratch::{Scratch, end_cluster};
use tests::process::wait::until;
use tests::process::{Serve, Server, run};
use uuid::Uuid;

/// An empty cluster, the schema, and some write-ahead log.
const DISK: &str = "size=192m,mode=0711";
const CLIENTS: usize = 8;
const PROGRESS_MAX: Duration = Duration::from_mins(1);
/// How long the disk stays full once it is.
const FULL_FOR: Duration = Duration::from_secs(4);

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "rollcall-faults"]).arg(&at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        top_up(&OpenOptions::new().append(true).create(true).open(&path).unwrap());
        path
    }
}

fn top_up(mut file: &File) {
    for size in [1 << 20, 1 << 12] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        end_cluster(&self.0.join("data/pg"));
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn audit(data_dir: &Path) -> Audit {
    Audit::connect(run(["db-url", "--data-dir", data_dir.to_str().unwrap()]).await.ok().trim())
        .await
}

/// While it is full nobody is told that anything was done.
async fn refuses_everything(disk: &Disk, server: &mut Server) {
    let probe = Api::at(server, "probe", Role::Service);
    let ask = async || {
        let answer = probe.login("probe", Uuid::now_v7()).await.unwrap();
        disk.fill(); // Whatever PostgreSQL has given back meanwhile.
        answer
    };
    until("the disk is full for the server, too", PROGRESS_MAX, async || {
        (ask().await.status == 503).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < FULL_FOR {
        let answer = ask().await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(probe.get("/healthz").await.status, 200, "the server itself lives");
    }
    assert!(server.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing_and_space_brings_the_service_back() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::mount(scratch.join("disk")) else {
        return println!("skipped: no file system can be mounted here");
    };
    let data_dir = disk.0.join("data");
    let serve = Serve::new(&data_dir).args(["--request-timeout-ms", "1000"]);
    let mut server = serve.start().await;
    let load = Load::start(&Api::at(&server, "planner", Role::Service), "f", CLIENTS);
    load.progress(200, PROGRESS_MAX).await;

    let ballast = disk.fill();
    refuses_everything(&disk, &mut server).await;
    let told = load.ledger().clone();

    std::fs::remove_file(ballast).unwrap();
    let freed = Instant::now();
    load.progress(1, PROGRESS_MAX).await;
    let back = freed.elapsed();
    audit(&data_dir).await.kept(&told).await;
    load.progress(200, PROGRESS_MAX).await;
    let ledger = load.stop().await;
    // Who asked in vain has sessions, too: the load's are what is counted.
    audit(&data_dir).await.kept(&ledger).await;
    audit(&data_dir).await.nothing_twice(&ledger).await;
    let (acks, busy) = (ledger.acks.len(), ledger.busy);
    println!("acknowledged {acks}, refused {busy}, back {back:?} after there was space");
    assert_eq!(server.stop().await.code(), Some(0));
}
