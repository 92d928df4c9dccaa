//! One attempt: signed, posted, judged by its status alone.

use std::time::Duration;

use projections::deliveries::UNREACHABLE;
use projections::webhooks::Secrets;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Url, redirect};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};

use super::address::{self, AddressRefused, GuardedResolver};
use crate::auth;

/// How long one attempt may take.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// Of which to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Idle connections kept for one host, and how long.
const IDLE_MAX: usize = 4;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// The bytes of a secret, before base64: Standard Webhooks asks for 24 to 64.
const SECRET_BYTES: usize = 32;
const SECRET_PREFIX: &str = "whsec_";

/// What is posted.
#[derive(Debug)]
pub struct Letter<'a> {
    /// Where to.
    pub url: &'a str,
    /// `webhook-id`: the same at every attempt.
    pub id: &'a str,
    /// JSON.
    pub body: String,
    /// What it is signed with.
    pub secrets: &'a Secrets,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// Why it is no success.
    pub fault: Option<String>,
    /// How long the endpoint asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Posts letters.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    /// Whether private addresses, and plain HTTP, are allowed.
    pub allow_private: bool,
}

impl Sender {
    /// Errors: TLS cannot be set up.
    pub fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        auth::install_tls();
        let client = Client::builder()
            .user_agent(concat!("rollcall/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_FOR)
            .dns_resolver(GuardedResolver { allow_private })
            .build()?;
        Ok(Self { client, allow_private })
    }

    /// Posts, within `limit` in all. The answer's body is not read: it decides nothing.
    pub async fn post(&self, letter: Letter<'_>, limit: Duration) -> Answered {
        let fault = |fault: &dyn std::fmt::Display| Answered {
            status: None,
            fault: Some(fault.to_string()),
            retry_after: None,
        };
        let Ok(url) = letter.url.parse::<Url>() else { return fault(&AddressRefused::Shape) };
        // Again: what may be called may have changed since the endpoint was made.
        if let Err(refused) = address::check(&url, self.allow_private) {
            return fault(&refused);
        }
        let at = chrono::Utc::now().timestamp();
        let Some(signature) = sign(letter.secrets, letter.id, at, letter.body.as_bytes()) else {
            return fault(&"the endpoint has no secret");
        };
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, letter.id)
            .header(HEADER_WEBHOOK_TIMESTAMP, at)
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .timeout(limit)
            .body(letter.body);
        match request.send().await {
            Ok(response) => judged(&response),
            Err(error) => fault(&why(&error)),
        }
    }
}

/// Only 2xx says that it was taken.
fn judged(response: &reqwest::Response) -> Answered {
    let status = response.status();
    let fault = (!status.is_success()).then(|| format!("answered {}", status.as_u16()));
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    Answered { status: Some(status.as_u16()), fault, retry_after }
}

/// In words of ours: the error's own name the address, which may hold a secret.
fn why(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<AddressRefused>() {
            return refused.to_string();
        }
        source = cause.source();
    }
    // First: a connection that takes too long is a time-out, too.
    let words = if error.is_connect() {
        UNREACHABLE
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "no answer that can be read"
    };
    words.to_owned()
}

/// Signed with every secret that holds now, the newest first, as Standard Webhooks has it.
fn sign(secrets: &Secrets, id: &str, at: i64, body: &[u8]) -> Option<String> {
    let one = |secret: &String| Webhook::new(secret).ok()?.sign(id, at, body).ok();
    let signed: Option<Vec<String>> = secrets.0.iter().map(one).collect();
    signed.map(|signed| signed.join(" ")).filter(|text| !text.is_empty())
}

/// A new secret; none: the machine gives no randomness.
pub fn new_secret() -> Option<String> {
    use base64::Engine as _;
    let mut bytes = [0_u8; SECRET_BYTES];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Some(format!("{SECRET_PREFIX}{text}"))
}
