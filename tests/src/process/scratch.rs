//! Directories that go away with their test, and with them whatever PostgreSQL runs there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::wait::comes_to_hold;

/// An immediate shutdown, on a busy machine.
const END_MAX: Duration = Duration::from_secs(15);

/// Waits for our end, however it comes, and then ends what has its directories on its command line.
/// A test that ends as it should leaves nothing to do. `$SCRATCH` is how the directories begin.
const GUARD: &str = r#"
cat
for process in /proc/[0-9]*; do
    grep -qa "$SCRATCH" "$process/cmdline" && kill -9 "${process#/proc/}"
done
for dir in "$SCRATCH"*; do
    [ -d "$dir/disk" ] && umount -l "$dir/disk"
    rm -rf "$dir"
done
"#;

/// How the names of this run's directories begin.
fn prefix() -> PathBuf {
    static GUARDED: OnceLock<Child> = OnceLock::new();
    let prefix = std::env::temp_dir().join(format!("rollcall-faults-{}-", std::process::id()));
    GUARDED.get_or_init(|| {
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD]).env("SCRATCH", &prefix).current_dir("/").process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        guard.spawn().unwrap()
    });
    prefix
}

/// A directory of this test alone, which every account may pass through.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one. The name is short: sockets live in it.
    #[allow(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut path = prefix().into_os_string();
        path.push(count.to_string());
        let path = PathBuf::from(path);
        let _ = fs::remove_dir_all(&path); // Of an earlier process with our id.
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_clusters(&self.0, 3);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends every PostgreSQL that runs below `dir`.
fn end_clusters(dir: &Path, depth: u32) {
    end_cluster(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            end_clusters(&entry.path(), depth - 1);
        }
    }
    if let Ok(home) = fs::read_to_string(dir.join("pg.location")) {
        let home = PathBuf::from(home.trim());
        end_cluster(&home.join("pg"));
        // The server keeps it apart from the data dir, in a directory of its own.
        assert!(home.starts_with("/var/lib/rollcall"), "{}", home.display());
        let _ = fs::remove_dir_all(home);
    }
}

/// Ends the server of one cluster, if it runs, and waits for its end.
pub fn end_cluster(cluster: &Path) {
    let Some(pid) = postmaster(cluster) else { return };
    let _ = kill_process(pid, Signal::QUIT);
    if !comes_to_hold(END_MAX, || !is_alive(pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The running server of a cluster.
pub fn postmaster(cluster: &Path) -> Option<Pid> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)?;
    is_alive(pid).then_some(pid)
}

/// Whether a process runs, and is not one that only waits to be waited for.
pub fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.as_deref().ok().and_then(|stat| stat.rsplit(") ").next());
    test_kill_process(pid).is_ok() && !state.is_some_and(|state| state.starts_with('Z'))
}
