//! Processes that the benchmark starts, and ends with itself.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Failure;

/// How long a process may take until it can be asked.
const READY_PATIENCE: Duration = Duration::from_mins(1);
/// How long a process may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// What stands before the address in the line by which a server says that it is ready.
pub(crate) const READY: &str = "ready on http://";

/// A process that answers on a port.
pub(crate) struct Server {
    child: Child,
    /// Where it answers.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a program that prints a line with `ready on http://ADDR`. What it logs goes to a file
    /// of its name in `dir`.
    pub(crate) async fn start(
        mut command: Command,
        name: &str,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let log = dir.join(format!("{name}.log"));
        // Nothing of our own surroundings: as shipped.
        for (key, _) in std::env::vars_os() {
            if key == "RUST_LOG" || key.to_string_lossy().starts_with("ROLLCALL_") {
                command.env_remove(key);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.kill_on_drop(true).spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(output).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once(READY) {
                    return Ok::<_, Failure>(Some(address.trim().parse()?));
                }
            }
            Ok(None)
        };
        match tokio::time::timeout(READY_PATIENCE, ready).await?? {
            Some(address) => Ok(Self { child, address }),
            None => Err(format!("{name} has not started:\n{}", tail(&log)).into()),
        }
    }

    /// A program that says nothing when it is ready, but listens on `address` then.
    pub(crate) async fn start_silent(
        mut command: Command,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn()?;
        let reached = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(READY_PATIENCE, reached).await?;
        Ok(Self { child, address })
    }

    /// Its process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        if let Some(id) = self.child.id()
            && let Some(id) = rustix::process::Pid::from_raw(id.cast_signed())
        {
            rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The `rollcall` that is shipped, built if it is not up to date, beside this program.
pub(crate) async fn rollcall() -> Result<PathBuf, Failure> {
    let profile_dir = std::env::current_exe()?;
    let profile_dir = profile_dir.parent().ok_or("this program lies nowhere")?;
    let target_dir = profile_dir.parent().ok_or("this program lies in no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--package", "api", "--bin", "rollcall", "--target-dir"])
        .arg(target_dir)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if !build.status().await?.success() {
        return Err("rollcall cannot be built".into());
    }
    Ok(profile_dir.join("rollcall"))
}
