//! A headless Chromium, driven over the protocol of its developer tools.
//!
//! One for a whole run: a guard process starts it and reads from a pipe that we hold; when we are
//! gone, however that came about, the pipe ends, and the guard stops it and removes its profile.
//! Each [`Browser`] is a context of its own in it, without the others' storage and caches.

use std::collections::HashMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::eventually;

/// Longer than any command may take.
const ANSWER_MAX: Duration = Duration::from_mins(1);
/// Longer than Chromium may take to start on a busy machine.
const START_MAX: Duration = Duration::from_mins(1);
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// What the guard does. `$1`: the program, `$2`: the profile's directory.
const GUARD: &str = r#"
mkdir -p "$2" || exit 1
"$1" --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run \
    --disable-dev-shm-usage --disable-background-timer-throttling --disable-renderer-backgrounding \
    --disable-backgrounding-occluded-windows --remote-debugging-port=0 --user-data-dir="$2" \
    about:blank < /dev/null > /dev/null 2>&1 &
cat > /dev/null
kill $!
wait $!
rm -rf "$2"
"#;

/// The end of the guard's standard input tells it that we are gone.
struct Running {
    _guard: Child,
    /// Host and port, and the path to its developer tools.
    address: String,
    path: String,
}

/// Where Chromium runs; none, where there is none.
fn running() -> Option<&'static Running> {
    static RUNNING: OnceLock<Option<Running>> = OnceLock::new();
    RUNNING.get_or_init(start).as_ref()
}

fn start() -> Option<Running> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    let found = |name: &&&str| dirs.iter().any(|dir| dir.join(name).is_file());
    let Some(program) = PROGRAMS.iter().find(found) else {
        eprintln!("no Chromium in the PATH: the browser's tests are skipped");
        return None;
    };
    let profile = std::env::temp_dir().join(format!("rollcall-browser-{}", std::process::id()));
    let mut guard = Command::new("/bin/sh");
    guard.args(["-c", GUARD, "rollcall-browser-guard", program]).arg(&profile);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // A Ctrl-C in the terminal is ours; the guard goes after us.
    let guard = guard.process_group(0).spawn().unwrap();
    let (address, path) = developer_tools(&profile);
    Some(Running { _guard: guard, address, path })
}

/// Chromium tells by a file alone where it listens.
fn developer_tools(profile: &Path) -> (String, String) {
    let began = Instant::now();
    loop {
        let said = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = said.split_once('\n') {
            return (format!("127.0.0.1:{port}"), path.trim().to_owned());
        }
        assert!(began.elapsed() < START_MAX, "Chromium did not start");
        std::thread::sleep(Duration::from_millis(20)); // Between two looks at that file.
    }
}

type Wire = WebSocketStream<TcpStream>;

/// A fresh context: the windows of one person.
#[derive(Clone)]
pub struct Browser {
    wire: Arc<AsyncMutex<SplitSink<Wire, Message>>>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
    number: Arc<AtomicU64>,
    context: String,
}

impl Browser {
    /// None, where there is no Chromium: then the test says so and passes.
    pub async fn open() -> Option<Self> {
        let Running { address, path, .. } = tokio::task::spawn_blocking(running).await.unwrap()?;
        let tcp = TcpStream::connect(address).await.unwrap();
        let (wire, _) = client_async(format!("ws://{address}{path}"), tcp).await.unwrap();
        let (to, from) = wire.split();
        let waiting = Arc::default();
        tokio::spawn(hear(from, Arc::clone(&waiting)));
        let mut browser = Self {
            wire: Arc::new(AsyncMutex::new(to)),
            waiting,
            number: Arc::default(),
            context: String::new(),
        };
        let options = json!({ "disposeOnDetach": true });
        let made = browser.call(None, "Target.createBrowserContext", options).await;
        made["browserContextId"].as_str().unwrap().clone_into(&mut browser.context);
        Some(browser)
    }

    /// A new tab with that page, loaded.
    pub async fn tab(&self, url: &str) -> Tab {
        let about = json!({ "url": "about:blank", "browserContextId": self.context });
        let made = self.call(None, "Target.createTarget", about).await;
        let target = made["targetId"].as_str().unwrap().to_owned();
        let about = json!({ "targetId": target, "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", about).await;
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let tab = Tab { browser: self.clone(), target, session };
        tab.call("Network.enable", json!({})).await;
        tab.call("Page.navigate", json!({ "url": url })).await;
        eventually("the page is loaded", async || {
            tab.try_eval("document.readyState === 'complete' && location.href !== 'about:blank'")
                .await
                .is_ok_and(|loaded| loaded == true)
        })
        .await;
        tab
    }

    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.try_call(session, method, params).await.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    async fn try_call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, Value> {
        let id = self.number.fetch_add(1, Ordering::Relaxed);
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, answer);
        self.wire.lock().await.send(Message::text(command.to_string())).await.unwrap();
        let mut answer = timeout(ANSWER_MAX, answered).await.expect(method).expect(method);
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error),
        }
    }
}

async fn hear(
    mut from: SplitStream<Wire>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
) {
    while let Some(Ok(message)) = from.next().await {
        let Message::Text(text) = message else { continue };
        let answer: Value = serde_json::from_str(&text).unwrap();
        let asked = answer["id"].as_u64().and_then(|id| waiting.lock().unwrap().remove(&id));
        if let Some(asked) = asked {
            drop(asked.send(answer));
        }
    }
}

/// One tab.
pub struct Tab {
    browser: Browser,
    target: String,
    session: String,
}

impl Tab {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }

    /// What an expression comes to, awaited if it is a promise.
    #[track_caller]
    pub fn eval(&self, expression: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let expression = expression.to_owned();
        async move {
            let value = self.try_eval(&expression).await;
            value.unwrap_or_else(|error| panic!("{caller}: {expression}: {error}"))
        }
    }

    async fn try_eval(&self, expression: &str) -> Result<Value, Value> {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let session = Some(self.session.as_str());
        let mut answer = self.browser.try_call(session, "Runtime.evaluate", params).await?;
        match answer["exceptionDetails"].take() {
            Value::Null => Ok(answer["result"]["value"].take()),
            thrown => Err(thrown),
        }
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        eventually(expression, async || self.eval(expression).await == true).await;
    }

    /// Moves the pointer, as a person does.
    pub async fn move_pointer(&self, x: u32, y: u32) {
        let params = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.call("Input.dispatchMouseEvent", params).await;
    }

    /// Presses a key, as a person does.
    pub async fn press(&self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "text": key });
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Tells the browser that there is no network, or that there is one again.
    pub async fn offline(&self, offline: bool) {
        let params = json!({ "offline": offline, "latency": 0,
            "downloadThroughput": -1, "uploadThroughput": -1 });
        self.call("Network.emulateNetworkConditions", params).await;
    }

    /// Lets requests to addresses that match (`*`) fail.
    pub async fn block(&self, urls: &[&str]) {
        self.call("Network.setBlockedURLs", json!({ "urls": urls })).await;
    }

    /// Takes a picture, to be looked at: `target/tmp/browser/NAME.png`.
    pub async fn picture(&self, dir: &Path, name: &str) -> PathBuf {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let file = dir.join("browser").join(format!("{name}.png"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, base64(taken["data"].as_str().unwrap())).unwrap();
        file
    }

    /// Closes the tab, as a person does.
    pub async fn close(self) {
        let params = json!({ "targetId": self.target });
        self.browser.call(None, "Target.closeTarget", params).await;
    }
}

/// Decodes base64 with padding (RFC 4648, 4): all that pictures need of it.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bytes = text.trim_end_matches('=').as_bytes();
    let chunks = bytes.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(digit(*byte)));
        let bits = bits << (6 * (4 - chunk.len()));
        let [_, three @ ..] = bits.to_be_bytes();
        three.into_iter().take(chunk.len() - 1)
    });
    chunks.collect()
}
