//! A headless Chromium, told what to do over its `DevTools` protocol (<https://chromedevtools.github.io/devtools-protocol/>).

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{eventually, process::Process, server, unique};

/// Longest the browser may take to answer.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A browser with one page.
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    commands: u64,
    /// What the page complained about: exceptions, and errors in its console.
    pub complaints: Vec<String>,
    _process: Process,
    folder: PathBuf,
}

impl Browser {
    /// Starts one with an empty page of that size.
    pub async fn start(width: u32, height: u32) -> Self {
        let folder = std::env::temp_dir().join(unique("chromium"));
        let mut command = Command::new(server("STOCKYARD_TEST_CHROMIUM"));
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
            ])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", folder.display()));
        let process = Process::saying(&mut command, Stdio::null());
        let port_file = folder.join("DevToolsActivePort");
        let address = eventually("the browser listens", async || {
            let text = std::fs::read_to_string(&port_file).ok()?;
            let (port, path) = text.split_once('\n')?;
            (!path.is_empty()).then(|| format!("ws://127.0.0.1:{port}{path}"))
        });
        let (socket, _) = connect_async(address.await.trim())
            .await
            .expect("a browser");
        let mut browser = Self {
            socket,
            session: String::new(),
            commands: 0,
            complaints: Vec::new(),
            _process: process,
            folder,
        };
        let target = browser
            .tell("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = target["targetId"].clone();
        let attached = browser
            .tell(
                "Target.attachToTarget",
                json!({"targetId": target, "flatten": true}),
            )
            .await;
        attached["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.tell(domain, json!({})).await;
        }
        browser
    }

    /// Tells it something, and hears what came meanwhile.
    pub async fn tell(&mut self, method: &str, parameters: Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let sent = self.socket.send(Message::text(command.to_string()));
        sent.await.expect("the browser");
        loop {
            let heard = timeout(ANSWER_MAX, self.socket.next()).await;
            let heard = heard.expect("an answer in time").expect("the browser");
            let Message::Text(text) = heard.expect("the browser") else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == id {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].take();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        let parameters = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(&parameters["exceptionDetails"]),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                Some(&parameters["args"])
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                Some(&parameters["entry"])
            }
            _ => None,
        };
        self.complaints.extend(complaint.map(Value::to_string));
    }

    /// Opens an address.
    pub async fn open(&mut self, url: &str) {
        self.tell("Page.navigate", json!({"url": url})).await;
    }

    /// What an expression of the page comes to; a promise is waited for.
    pub async fn ask(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut told = self.tell("Runtime.evaluate", parameters).await;
        assert_eq!(told["exceptionDetails"], Value::Null, "{expression}");
        told["result"]["value"].take()
    }

    /// Waits until an expression of the page is true.
    pub async fn sees(&mut self, expression: &str) {
        // While a page loads, much is not there yet.
        let looking = format!(
            "(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        );
        let this = &mut *self;
        eventually(expression, async || {
            (this.ask(&looking).await == true).then_some(())
        })
        .await;
    }

    /// Types into what a selector finds.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        let found = format!("document.querySelector({})", json!(selector));
        self.ask(&format!("({found}.focus(), {found}.select())"))
            .await;
        self.tell("Input.insertText", json!({"text": text})).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
