//! A server that hears webhooks, and behaves as it is told.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use standardwebhooks::Webhook;
use tests::eventually;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// What it does with what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Fails,
    Gone,
    Hangs,
    Redirects,
    /// Takes what is about anybody but this user.
    FailsFor(&'static str),
}

/// What it heard, in the order in which it heard it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard {
    pub(super) id: String,
    pub(super) body: Value,
    pub(super) verified: bool,
    pub(super) taken: bool,
    pub(super) at: Instant,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    secret: String,
    heard: Vec<Heard>,
}

/// The server, with a runtime of its own: killed, its connections end with it.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) url: String,
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    serving: Option<Runtime>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let inner = Inner { mood: Mood::Takes, secret: String::new(), heard: Vec::new() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/in");
        let inner = Arc::new(Mutex::new(inner));
        let mut receiver = Self { url, address, inner, serving: None };
        receiver.serve(listener);
        eventually("it listens", async || TcpStream::connect(address).await.is_ok()).await;
        receiver
    }

    fn serve(&mut self, listener: TcpListener) {
        let router = Router::new()
            .route("/in", post(hear))
            .route("/elsewhere", post(hear))
            .with_state(Arc::clone(&self.inner));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.serving = Some(runtime);
    }

    /// Stops listening, and drops every connection.
    pub(super) async fn kill(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
        let address = self.address;
        eventually("it is dead", async || TcpStream::connect(address).await.is_err()).await;
    }

    /// Listens again at the same address.
    pub(super) fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.serve(listener);
    }

    pub(super) fn trust(&self, secret: &Value) {
        secret.as_str().unwrap().clone_into(&mut self.inner.lock().unwrap().secret);
    }

    pub(super) fn set(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.inner.lock().unwrap().heard.clone()
    }

    /// What it took, first times only.
    pub(super) fn taken(&self) -> Vec<Heard> {
        let mut seen = std::collections::HashSet::new();
        let taken = self.heard().into_iter().filter(|heard| heard.taken);
        taken.filter(|heard| seen.insert(heard.id.clone())).collect()
    }

    /// The sequences that it took of each user, in the order of their first taking.
    pub(super) fn sequences(&self) -> HashMap<String, Vec<i64>> {
        let mut users: HashMap<String, Vec<i64>> = HashMap::new();
        for heard in self.taken() {
            let data = &heard.body["data"];
            if let (Some(user), Some(sequence)) =
                (data["user_id"].as_str(), data["sequence"].as_i64())
            {
                users.entry(user.to_owned()).or_default().push(sequence);
            }
        }
        users
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }
}

async fn hear(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mood = {
        let mut inner = inner.lock().unwrap();
        let mood = inner.mood;
        let verified = Webhook::new(&inner.secret)
            .is_ok_and(|webhook| webhook.verify(&body, &headers).is_ok());
        let body: Value = serde_json::from_slice(&body).unwrap();
        let about = |user: &str| body["data"]["user_id"] == user;
        let taken = match mood {
            Mood::Takes => true,
            Mood::FailsFor(user) => !about(user),
            Mood::Fails | Mood::Gone | Mood::Hangs | Mood::Redirects => false,
        };
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        inner.heard.push(Heard { id, body, verified, taken, at: Instant::now() });
        if taken { Mood::Takes } else { mood }
    };
    match mood {
        Mood::Takes => (StatusCode::OK, "\u{1}garbage").into_response(),
        Mood::Fails | Mood::FailsFor(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Gone => StatusCode::GONE.into_response(),
        Mood::Hangs => std::future::pending().await,
        Mood::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response()
        }
    }
}
