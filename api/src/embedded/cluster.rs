//! Making a cluster, once, in a way that an interruption leaves no half of one behind.
//!
//! Everything is done in a directory of a passing name; the rename at the end is the one step
//! that makes it the cluster.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::account::Account;
use super::binaries::Binaries;
use super::error::{Context, EmbeddedError};
use super::home::Home;
use super::{logs, socket};

/// How the directories of unfinished clusters are called, before a unique ending.
pub(super) const UNFINISHED: &str = "pg.new-";

/// Makes the cluster of `home`, with an empty database. The caller holds the lock.
pub(super) async fn create(
    home: &Home,
    tools: &Binaries,
    account: &Account,
) -> Result<(), EmbeddedError> {
    let cluster = home.cluster();
    if fs::read_dir(&cluster).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(EmbeddedError::NotACluster(cluster));
    }
    remove_unfinished(home.dir());
    // A name never used before: the `initdb` of a killed start may still be writing to its own.
    let fresh = home.dir().join(format!("{UNFINISHED}{:x}", super::unique()));
    account.make_private_dir(&fresh).or_say("make", &fresh)?;
    tracing::info!(cluster = %cluster.display(), major = tools.major, "making the database");
    let made = fill(&fresh, tools, account).await;
    if made.is_err() {
        let _ = fs::remove_dir_all(&fresh); // A full disk gets its space back.
    }
    made?;
    fs::rename(&fresh, &cluster).or_say("rename the new cluster to", &cluster)?;
    remove_unfinished(home.dir()); // What was still being written to before is quiet by now.
    // The rename itself must survive a power cut, or what is written from now on would not.
    fs::File::open(home.dir()).and_then(|dir| dir.sync_all()).or_say("sync", home.dir())
}

async fn fill(dir: &Path, tools: &Binaries, account: &Account) -> Result<(), EmbeddedError> {
    let mut initdb = account.command(&tools.initdb());
    initdb.arg("-D").arg(dir).args([
        "--username=rollcall",
        "--encoding=UTF8",
        "--locale=C",         // Fast comparisons, the same on every machine.
        "--data-checksums",   // A disk that lies is found out.
        "--auth-local=trust", // Safe behind a private directory: see `socket`.
        "--auth-host=reject", // There is no TCP; should somebody open it, nobody gets in.
    ]);
    run("initdb", initdb, "").await?;

    let mut single = account.command(&tools.postgres());
    single.arg("--single").arg("-D").arg(dir);
    // It would otherwise report an error and succeed all the same.
    single.args(["-c", "exit_on_error=on", "postgres"]);
    run("creating the database", single, &format!("create database {};\n", socket::DATABASE)).await
}

/// Runs one step to its end, with `input`. It stays in our process group: a Ctrl-C at this point
/// is for it, too.
async fn run(step: &'static str, mut command: Command, input: &str) -> Result<(), EmbeddedError> {
    let failed = |status: String, output: &str| EmbeddedError::Create {
        step,
        status,
        output: logs::last_lines(output),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output: std::io::Result<Output> = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ended early says why by its status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    }
    .await;
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(failed(output.status.to_string(), &String::from_utf8_lossy(&output.stderr)))
        }
        Err(error) => Err(failed("not run".to_owned(), &error.to_string())),
    }
}

/// Removes what interrupted starts have left, as far as it can be.
fn remove_unfinished(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            tracing::warn!(path = %entry.path().display(), "removing an unfinished database");
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove it");
            }
        }
    }
}
