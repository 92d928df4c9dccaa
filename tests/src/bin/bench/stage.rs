//! A PostgreSQL and a server over it: whatever is measured happens on one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::auth::{ISSUER_DEFAULT, Role, TokenSigner, load_or_make_secret};
use api::embedded::Embedded;
use projections::db::Database;
use serde_json::Value;
use tokio::process::Command;

use crate::Failure;
use crate::child::Server;
use crate::fill::Fill;
use crate::http::Request;
use crate::load;
use crate::log::Log;
use crate::scripts::{Names, UUID_WIDTH};

/// How long a token is good: longer than any run.
const TOKEN_TTL: Duration = Duration::from_hours(48);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long views may take to catch up with a log that was filled.
const CATCH_UP_PATIENCE: Duration = Duration::from_mins(30);
/// Heartbeats in one request of everybody's.
const BEATS_A_REQUEST: usize = 1_000;
/// How much of an unexpected answer is shown.
const COMPLAINT_CHARS_MAX: usize = 300;
/// Bytes in a kibibyte, as `/proc` counts.
const KIBIBYTE: u64 = 1_024;

/// What is different from the server as shipped, and from an empty log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    /// How long a lease is, in milliseconds; none: as shipped. Where sessions are put in by the
    /// million, keeping them alive would be all that is measured.
    pub(crate) lease_ms: Option<u32>,
    /// What is in the log before the server starts.
    pub(crate) fill: Option<Fill>,
}

/// A database with a server.
pub(crate) struct Stage {
    dir: PathBuf,
    database: Embedded,
    /// The server.
    pub(crate) server: Server,
    /// What stands in the database.
    pub(crate) log: Log,
    /// A service's, who may see everything.
    pub(crate) token: String,
    signer: TokenSigner,
}

impl Stage {
    /// Starts both in `dir`, which is made.
    pub(crate) async fn open(
        dir: PathBuf,
        rollcall: &Path,
        setting: &Setting,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(&dir)?;
        let database = Embedded::start(&dir).await?;
        let url = database.url();
        let log = Log::new(&url)?;
        if let Some(fill) = &setting.fill {
            Database::new(&url)?.migrate().await?;
            log.fill(fill).await?;
        }
        let secret = load_or_make_secret(&dir)?;
        let signer = TokenSigner::new(&secret.0, ISSUER_DEFAULT, ISSUER_DEFAULT);
        let roles = [Role::Service, Role::Admin, Role::Auditor];
        let token = signer.mint(&"bench".parse()?, roles, TOKEN_TTL)?;
        let server = serve(rollcall, &dir, &url, setting).await?;
        if !log.is_durable().await? {
            return Err("PostgreSQL would lose data in a crash: nothing to measure".into());
        }
        Ok(Self { dir, database, server, log, token, signer })
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> String {
        self.database.url()
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A token of an ordinary user's.
    pub(crate) fn token_of(&self, user_id: &str) -> Result<String, Failure> {
        Ok(self.signer.mint(&user_id.parse()?, [Role::User], TOKEN_TTL)?)
    }

    /// One call outside any round, by the service. Errors: an answer other than 200, 201, 202.
    pub(crate) async fn call(&self, call: &str, body: &str) -> Result<Value, Failure> {
        let request = Request::new(call, &self.token, body, 0);
        let (status, body) = load::once(self.server.address, request.bytes()).await?;
        if !matches!(status, 200..=202) {
            return Err(format!("{call}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// The text of the server's `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<String, Failure> {
        let request = Request::new("GET /metrics", &self.token, "", 0);
        let (_, body) = load::once(self.server.address, request.bytes()).await?;
        Ok(String::from_utf8(body)?)
    }

    /// Waits until no view is behind the log, so that views at work are not measured along.
    pub(crate) async fn caught_up(&self) -> Result<(), Failure> {
        let caught_up = async {
            while !is_caught_up(&self.call("GET /v1/views", "").await?) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(CATCH_UP_PATIENCE, caught_up).await?
    }

    /// The same, and what PostgreSQL would do about it at a time of its own is done.
    pub(crate) async fn settled(&self) -> Result<(), Failure> {
        self.caught_up().await?;
        self.log.tidy().await
    }

    /// A heartbeat of everybody. Errors: one of them is not live.
    pub(crate) async fn beat_all(&self, sessions: &Names) -> Result<(), Failure> {
        let batch = BEATS_A_REQUEST.min(sessions.len());
        let mut request =
            Request::new("POST /v1/heartbeats", &self.token, &beats(batch), UUID_WIDTH);
        for first in (0..sessions.len()).step_by(batch) {
            for slot in 0..batch {
                request.fill(slot, sessions.get((first + slot) % sessions.len()));
            }
            let (status, body) = load::once(self.server.address, request.bytes()).await?;
            let answer = String::from_utf8_lossy(&body);
            if status != 200 || !answer.contains(r#""rejected":[]"#) {
                let answer: String = answer.chars().take(COMPLAINT_CHARS_MAX).collect();
                return Err(format!("keeping everybody alive: {status} {answer}").into());
            }
        }
        Ok(())
    }

    /// Memory of the server's process that is in use, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        let id = self.server.id().ok_or("the server has ended")?;
        let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        resident_bytes(&text).ok_or_else(|| "nothing is said of its memory".into())
    }

    /// Ends both and removes what they have left.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.server.stop().await?;
        self.log.close().await;
        self.database.stop().await?;
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

/// The body of so many heartbeats, with a slot for each session.
pub(crate) fn beats(count: usize) -> String {
    format!("[{}]", vec![r#"{"session_id":"{}","idle_ms":0}"#; count].join(","))
}

/// The server as shipped, but for where it listens and where its database is.
async fn serve(
    rollcall: &Path,
    dir: &Path,
    url: &str,
    setting: &Setting,
) -> Result<Server, Failure> {
    let mut command = Command::new(rollcall);
    command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir"]);
    command.arg(dir);
    if let Some(lease_ms) = setting.lease_ms {
        command.args(["--lease-ms", &lease_ms.to_string()]);
    }
    Server::start(command, "rollcall", dir).await
}

/// From the answer of `GET /v1/views`, while nothing is appended.
fn is_caught_up(views: &Value) -> bool {
    let Some(items) = views["items"].as_array() else { return false };
    let mut live = items.iter().filter(|view| view["state"] == "live").peekable();
    let at_head = |view: &Value| view["position"].as_i64() >= view["head"].as_i64();
    live.peek().is_some() && live.all(at_head)
}

/// From `/proc/ID/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * KIBIBYTE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn views_have_caught_up_when_no_live_one_is_behind() {
        let view =
            |state: &str, position: i64| json!({ "state": state, "position": position, "head": 7 });
        let all = |items: Value| is_caught_up(&json!({ "items": items }));
        assert!(all(json!([view("live", 7), view("kept", 1)])));
        assert!(!all(json!([view("live", 7), view("live", 6)])));
        assert!(!all(json!([])) && !is_caught_up(&Value::Null));
    }

    #[test]
    fn memory_is_read_from_what_the_kernel_says() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1_024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
