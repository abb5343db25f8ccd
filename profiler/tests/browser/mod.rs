//! A browser without a screen: Chromium, told by its `DevTools` protocol where to go and what to click, asked what it shows
//! and what it has fetched.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

use crate::ask;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(50);

/// One page of a browser, which ends with this.
pub(crate) struct Browser {
    child: Child,
    page: WebSocket<TcpStream>,
    last_id: u64,
    /// What has happened so far.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it with its files in a folder; `None`, and a word why, where there is none.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let mut chromium = Command::new("chromium");
        chromium
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--remote-debugging-port=0", "--window-size=1200,1000"])
            .arg(format!("--user-data-dir={}", folder.display()))
            .arg("about:blank");
        let child = chromium.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child
            .inspect_err(|error| eprintln!("skipped: `chromium` cannot be run: {error}"))
            .ok()?;
        let listens = wait(|| fs::read_to_string(folder.join("DevToolsActivePort")).ok());
        let port = listens.lines().next().and_then(|port| port.parse().ok());
        let port: u16 = port.expect("a port");
        let pages = wait(|| pages(port));
        let address = pages[0]["webSocketDebuggerUrl"].as_str().expect("a page");
        let stream = connect(port);
        let (page, _) = client(address, stream).expect("it speaks WebSocket");
        let mut browser = Self {
            child,
            page,
            last_id: 0,
            events: Vec::new(),
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Goes there and waits until all of it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", &json!({ "url": url }));
        while !self.happened("Page.loadEventFired") {
            self.hear();
        }
    }

    /// What an expression gives in the page.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let what = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &what);
        assert!(answer.get("exceptionDetails").is_none(), "{answer:#}");
        answer["result"]["value"].clone()
    }

    /// Clicks into the middle of the element that an expression gives, as a mouse does.
    pub(crate) fn click(&mut self, element: &str) {
        let middle = self.ask(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let what = json!({
                "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", &what);
        }
    }

    /// What it has fetched since it went to the page.
    pub(crate) fn fetched(&self) -> Vec<String> {
        let requests = self.named("Network.requestWillBeSent");
        requests
            .filter_map(|event| Some(event["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    /// What it has complained of since: of policies, of scripts that failed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.named("Log.entryAdded");
        entries
            .filter(|event| event["entry"]["level"] == "error")
            .chain(self.named("Runtime.exceptionThrown"))
            .map(ToString::to_string)
            .collect()
    }

    fn named(&self, method: &'static str) -> impl Iterator<Item = &Value> {
        let of_it = move |event: &&Value| event["method"] == method;
        self.events
            .iter()
            .filter(of_it)
            .map(|event| &event["params"])
    }

    fn happened(&self, method: &'static str) -> bool {
        self.named(method).next().is_some()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let call = json!({ "id": self.last_id, "method": method, "params": parameters });
        let sent = self.page.send(Message::text(call.to_string()));
        sent.expect("the browser listens");
        loop {
            let message = self.hear();
            if message["id"] == self.last_id {
                assert!(message.get("error").is_none(), "{method}: {message:#}");
                return message["result"].clone();
            }
        }
    }

    /// The next message, which is kept if nobody asked for it.
    fn hear(&mut self) -> Value {
        let message = self.page.read().expect("the browser goes on");
        let message = message.to_text().expect("it is text");
        let message: Value = serde_json::from_str(message).expect("it is JSON");
        if message.get("method").is_some() {
            self.events.push(message.clone());
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its pages, once there is one.
fn pages(port: u16) -> Option<Value> {
    let stream = connect(port);
    // It may leave the connection open behind its answer.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let host = format!("Host: 127.0.0.1:{port}");
    let (_, body) = ask(stream, "GET /json/list", &[&host, "Connection: close"]);
    let targets: Value = serde_json::from_str(&body).ok()?;
    let pages = targets.as_array()?.iter();
    let pages: Vec<Value> = pages.filter(|one| one["type"] == "page").cloned().collect();
    (!pages.is_empty()).then_some(Value::Array(pages))
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let limit = stream.set_read_timeout(Some(PATIENCE));
    limit.expect("it can wait");
    stream
}

#[track_caller]
fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if let Some(found) = look() {
            return found;
        }
        sleep(STEP);
    }
    panic!("Chromium does not come up");
}
