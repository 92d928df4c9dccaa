//! A bare loop over sockets: whoever is there is sent the same bytes, one after the other.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::Mutex;

use crate::Failure;
use crate::works::watchers::now_us;

/// Everybody who is there. What they say is never read.
type Sockets = Arc<Mutex<Vec<WebSocket>>>;

/// Serves until it is killed.
pub(crate) async fn serve() -> Result<(), Failure> {
    let router = Router::new()
        .route("/v1/ws", get(open))
        .route("/broadcast", post(broadcast))
        .with_state(Sockets::default());
    super::listen(router).await
}

async fn open(State(sockets): State<Sockets>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols([api::live::ws::PROTOCOL]).on_upgrade(async move |mut socket| {
        let mut sockets = sockets.lock().await;
        let ack = Message::Text(Utf8Bytes::from_static(r#"{"type":"ack","ref":1}"#));
        // Whoever has gone already is not waited for.
        if socket.send(ack).await.is_ok() {
            sockets.push(socket);
        }
    })
}

/// The instant at which the loop began, in microseconds.
async fn broadcast(State(sockets): State<Sockets>, body: String) -> Result<String, StatusCode> {
    let mut sockets = sockets.lock().await;
    let frame = Utf8Bytes::from(body);
    let began = now_us();
    for socket in sockets.iter_mut() {
        let sent = socket.send(Message::Text(frame.clone())).await;
        sent.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok(began.to_string())
}
