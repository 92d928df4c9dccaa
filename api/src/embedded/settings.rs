//! How the server is run: what must hold stands on its command line, the rest in a file that is
//! written at every start. `alter system` beats the file, so an operator can tune; nothing beats
//! the command line.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::{Context, EmbeddedError};
use super::{home, logs, socket};

const FILE: &str = "rollcall.conf";
/// It holds no secret, and root may write what the server's account reads.
const FILE_MODE: u32 = 0o644;

const SHARED_BUFFERS_MB_MIN: u64 = 32;
const SHARED_BUFFERS_MB_MAX: u64 = 256;
/// Of the memory, as the page cache and the connections want most of it.
const SHARED_BUFFERS_SHARE: u64 = 8;
/// Where the memory cannot be found out: PostgreSQL's own default.
const SHARED_BUFFERS_MB_UNKNOWN: u64 = 128;
const WAL_MB_MIN: u64 = 512;
const WAL_MB_MAX: u64 = 4096;
/// Of the free disk space, so that the log of a small disk's database does not fill it.
const WAL_SHARE: u64 = 8;
const MEBIBYTE: u64 = 1024 * 1024;

/// The arguments of `postgres` for this cluster: what nobody may change by `alter system`.
pub(super) fn arguments(cluster: &Path, socket_dir: &Path) -> Vec<OsString> {
    let option = |name: &str, value: &std::ffi::OsStr| {
        let mut text = OsString::from(format!("{name}="));
        text.push(value);
        [OsString::from("-c"), text]
    };
    let mut quoted = OsString::from("\""); // The setting is a list, split at commas.
    quoted.push(socket_dir);
    quoted.push("\"");
    let mut all = vec![OsString::from("-D"), cluster.into()];
    all.extend(option("config_file", cluster.join(FILE).as_os_str()));
    all.extend(option("unix_socket_directories", &quoted));
    all.extend(option("cluster_name", cluster_name(cluster).as_ref()));
    all.extend(option("port", socket::PORT.to_string().as_ref()));
    for (name, value) in [
        ("listen_addresses", ""), // No TCP: the private directory guards the door.
        ("unix_socket_permissions", "0700"), // The socket itself, too.
        ("fsync", "on"),          // An acknowledged event survives a power cut.
        ("full_page_writes", "on"), // And a page torn by one is mended.
    ] {
        all.extend(option(name, value.as_ref()));
    }
    all
}

/// What the server's processes are called in their titles, to tell them from others'.
pub(super) fn cluster_name(cluster: &Path) -> String {
    format!("rollcall-{}", home::hash(cluster))
}

/// Writes the settings file of a cluster.
pub(super) fn write(cluster: &Path) -> Result<(), EmbeddedError> {
    let text = text(memory_bytes(), disk_free_bytes(cluster));
    let (path, fresh) = (cluster.join(FILE), cluster.join(format!("{FILE}.new")));
    replace(&path, &fresh, &text).or_say("write", &path)
}

/// The cluster's owner is not trusted with what root writes: `create_new` follows no link.
fn replace(path: &Path, fresh: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).open(fresh)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?; // Whatever our umask says.
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

fn text(memory_bytes: Option<u64>, disk_free_bytes: Option<u64>) -> String {
    let shared_buffers = memory_bytes.map_or(SHARED_BUFFERS_MB_UNKNOWN, |bytes| {
        let share = bytes / SHARED_BUFFERS_SHARE / MEBIBYTE;
        share.clamp(SHARED_BUFFERS_MB_MIN, SHARED_BUFFERS_MB_MAX)
    });
    let wal_max = disk_free_bytes
        .map_or(WAL_MB_MAX, |bytes| (bytes / WAL_SHARE / MEBIBYTE).clamp(WAL_MB_MIN, WAL_MB_MAX));
    let wal_min = WAL_MB_MIN.min(wal_max / 2);
    let (log_file, log_size) = (logs::FILE_NAME, logs::FILE_MB_MAX);
    format!(
        "\
# Written by rollcall at every start: changes here are lost. Use `alter system`.
include 'postgresql.conf'

max_connections = 100           # A node's pools, psql and Grafana, with room to spare
shared_buffers = {shared_buffers}MB          # The hot tables; an eighth of the memory at most
synchronous_commit = on         # Acknowledged means on disk
max_wal_size = {wal_max}MB           # Fewer checkpoints, so fewer full pages under load
min_wal_size = {wal_min}MB            # Segments are reused, not made anew
checkpoint_timeout = 15min      # As max_wal_size; a crash then replays at most that much
wal_compression = on            # Full pages are most of the write-ahead log, and compress well
autovacuum_naptime = 10s        # Heartbeats rewrite the same rows all the time
jit = off                       # Short statements: compiling costs more than it saves
timezone = 'UTC'                # One clock, one zone
log_timezone = 'UTC'

logging_collector = on          # Its own file: our terminal is for our own lines
log_destination = 'stderr'
log_directory = 'log'
log_filename = '{log_file}'
log_rotation_size = {log_size}MB        # rollcall removes the oldest files
log_rotation_age = 0
log_file_mode = 0600
log_line_prefix = '%m [%p] '
log_error_verbosity = terse     # The details of an error quote rows, and so persons
log_min_error_statement = panic # And so do statements
"
    )
}

/// What this machine, or the container we are in, has.
fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
        line.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    })?;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    Some(limit.map_or(machine, |limit: u64| limit.min(machine)))
}

fn disk_free_bytes(dir: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(dir).ok()?;
    Some(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_gets_small_buffers_and_a_small_disk_a_small_log() {
        let small = text(Some(512 * MEBIBYTE), Some(2000 * MEBIBYTE));
        assert!(small.contains("shared_buffers = 64MB"), "{small}");
        assert!(small.contains("max_wal_size = 512MB"), "{small}");
        assert!(small.contains("min_wal_size = 256MB"), "{small}");
        let large = text(Some(64 * 1024 * MEBIBYTE), Some(1024 * 1024 * MEBIBYTE));
        assert!(large.contains("shared_buffers = 256MB"), "{large}");
        assert!(large.contains("max_wal_size = 4096MB"), "{large}");
    }
}
