//! A headless Chromium, driven over its DevTools protocol.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The longest wait for the browser; it shares its processor with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page; its process ends with it.
pub(crate) struct Browser {
    child: Child,
    wire: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    commands: u64,
    /// What the page complained of: exceptions, errors on the console, refused resources.
    pub(crate) complaints: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts one that reaches nothing but this host.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .args(["--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package chromium is installed (tests/run does that)");
        let port = folder.path().join("DevToolsActivePort");
        let told = tokio::time::timeout(PATIENCE, async {
            loop {
                match std::fs::read_to_string(&port) {
                    Ok(told) if told.lines().count() >= 2 => return told,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let told = told.await.expect("chromium starts in time");
        let (port, path) = told.trim().split_once('\n').unwrap();
        let address = format!("ws://127.0.0.1:{port}{path}");
        let (wire, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let mut browser =
            Self { child, wire, session: None, commands: 0, complaints: Vec::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, json!({})).await;
        }
        browser
    }

    /// Sets the size of the window, in the page's pixels.
    pub(crate) async fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Says which colours the user prefers: `light` or `dark`.
    pub(crate) async fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", feature).await;
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'").await;
    }

    /// What an expression is in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", ask).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn wait_for(&mut self, expression: &str) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.evaluate(&format!("Boolean({expression})")).await != true {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        if waited.await.is_err() {
            let body = self.evaluate("document.body.innerText").await;
            panic!("never true: {expression}\ncomplaints: {:?}\npage: {body}", self.complaints);
        }
    }

    /// The page as a picture (PNG).
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.wire.send(Message::text(command.to_string())).await.unwrap();
        let answered = tokio::time::timeout(PATIENCE, self.answer(id)).await;
        answered.unwrap_or_else(|_| panic!("no answer to {method}"))
    }

    async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.wire.next().await.expect("the browser lives").unwrap();
            let Message::Text(text) = message else { continue };
            let said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == id {
                assert!(said.get("error").is_none(), "{said}");
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        let bad = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|it| params["type"] == *it)
            }
            Some("Log.entryAdded") => {
                params["entry"]["level"] != "verbose" && params["entry"]["level"] != "info"
            }
            _ => false,
        };
        if bad {
            self.complaints.push(params.to_string());
        }
    }
}
