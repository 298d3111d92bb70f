//! A real browser without a window, spoken to over its debugging pipe (Chrome DevTools Protocol: JSON, ended by NUL).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Its start takes most of it, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// One page in a browser of its own. Dropped, the browser ends; so it does when the test process ends in another way, since
/// then its pipe does.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next: u64,
    session: Option<String>,
    complaints: Vec<String>,
    loads: usize,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with an empty page; none where none is installed.
    ///
    /// # Panics
    /// Where there is one that does not work.
    #[must_use]
    pub fn start() -> Option<Self> {
        let name = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| {
                let version = Command::new(name).arg("--version").output();
                version.is_ok_and(|output| output.status.success())
            })?;
        let profile = tempfile::tempdir().expect("a temporary folder");
        // It reads its commands from descriptor 3 and answers on 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#,
                "sh",
                name,
            ])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let to = child.stdin.take().expect("it is piped");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let (said, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let text = message.strip_suffix(&[0]).unwrap_or(&message);
                if let Ok(value) = serde_json::from_slice(text)
                    && said.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            next: 0,
            session: None,
            complaints: Vec::new(),
            loads: 0,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = browser.call(
            "Target.attachToTarget",
            &json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}));
        }
        // A picture has no use for them.
        browser.call("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
        Some(browser)
    }

    /// Goes to a page, and waits until it is there.
    ///
    /// # Panics
    /// Where nobody answers.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        let end = Instant::now() + PATIENCE;
        // The empty page before it may only now say that it was loaded.
        while self.loads == 0 || self.ask("location.href") != url {
            assert!(Instant::now() < end, "{url} is never loaded");
            if let Ok(said) = self.from.recv_timeout(Duration::from_millis(50)) {
                self.hear(&said);
            }
        }
    }

    /// As large as a window, or as a telephone; and whether its owner likes it dark.
    pub fn look_like(&mut self, width: u32, height: u32, mobile: bool, dark: bool) {
        let scale = if mobile { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile }),
        );
        let scheme = if dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    /// What an expression is in the page.
    ///
    /// # Panics
    /// Where it throws.
    pub fn ask(&mut self, expression: &str) -> Value {
        let mut answer = self.call(
            "Runtime.evaluate",
            &json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Panics
    /// Where it does not become so; with what the page shows.
    pub fn wait_until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.ask(expression) != Value::Bool(true) {
            assert!(
                Instant::now() < end,
                "never {expression}; the page shows:\n{}",
                self.ask("document.body.innerText").as_str().unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whatever was said on the console, or refused by the page's policy, so far.
    pub fn complaints(&mut self) -> &[String] {
        // What came before this answer has been heard.
        self.ask("0");
        &self.complaints
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn picture(&mut self, file: &Path) {
        let shot = self.call(
            "Page.captureScreenshot",
            &json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let data = shot["data"].as_str().expect("a screenshot has data");
        let png = BASE64_STANDARD.decode(data).expect("it is in base64");
        std::fs::write(file, png).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser runs");
        loop {
            let said = self.from.recv_timeout(PATIENCE);
            let mut said = said.unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            if said["id"] == self.next {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].take();
            }
            self.hear(&said);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => self.complaints.push(parameters["args"].to_string()),
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            Some("Page.loadEventFired") => self.loads += 1,
            Some("Log.entryAdded") => self.complaints.push(parameters["entry"].to_string()),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
