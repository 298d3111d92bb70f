//! The service itself, as `muhurdar dev` runs it: a SoftHSM2 token, a test CA, ephemeral ports, a folder that goes away.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    binary, certify,
    hsm::{behind_a_distant_hsm, with_a_twin},
    muhurdar,
};

/// Making keys takes most of it, on a machine that has other things to do.
const START: Duration = Duration::from_secs(120);

/// How long what a service has said may take to be written.
const SAID: Duration = Duration::from_secs(5);

/// Starts the service and waits on its standard input. When that ends, the test process has ended, in whatever way; so the
/// service ends and its folder goes. A static fixture is never dropped and a killed test runs no destructor: this is why
/// nothing is left behind all the same.
///
/// Standard error may go elsewhere: to a file, or to a pipe that the keeper holds open and never reads.
const KEEPER: &str = r#"
case $STDERR in
  "") exec 3>>"$LOG" ;;
  pipe) mkfifo "$LOG.pipe"; exec 3<>"$LOG.pipe" ;;
  *) exec 3>>"$STDERR" ;;
esac
(
  sh -c '[ -z "$LIMIT" ] || ulimit $LIMIT; echo "$$" | tee "$LOG.pid"; exec "$@" >>"$LOG" 2>&3 3>&- </dev/null' server "$@"
  echo "$?" >"$LOG.exit"
) &
job=$!
trap '' INT TERM HUP
cat >/dev/null
pid=$(cat "$LOG.pid")
kill -TERM "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
kill -KILL "$pid" 2>/dev/null
wait "$job"
rm -rf "$FOLDER"
"#;

/// What a test wants of its appliance.
#[derive(Debug, Default)]
pub struct Builder {
    arguments: Vec<String>,
    edits: Vec<(String, String)>,
    clients: Vec<(String, String)>,
    hsm: Option<(usize, Duration)>,
    environment: Vec<(String, OsString)>,
    twins: bool,
    listen: Option<(SocketAddr, SocketAddr)>,
}

impl Builder {
    /// A seal for this taxpayer too: a VKN or TCKN, with `:p384` for an EC key.
    #[must_use]
    pub fn taxpayer(mut self, taxpayer: &str) -> Self {
        self.arguments.extend(["--taxpayer".to_owned(), taxpayer.to_owned()]);
        self
    }

    /// So many of the numbered test taxpayers; three where nothing is said.
    #[must_use]
    pub fn taxpayers(mut self, count: usize) -> Self {
        self.arguments.extend(["--taxpayers".to_owned(), count.to_string()]);
        self
    }

    /// Where the service and its admin listener listen; a free port each where nothing is said.
    #[must_use]
    pub fn listen(mut self, service: SocketAddr, admin: SocketAddr) -> Self {
        self.listen = Some((service, admin));
        self
    }

    /// A change in `muhurdar.toml` before the service starts. The text must be there, once.
    #[must_use]
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// These lines in `[limits]`.
    #[must_use]
    pub fn limits(self, lines: &str) -> Self {
        self.edit("[sealing]", &format!("[limits]\n{lines}\n\n[sealing]"))
    }

    /// One more client, with a certificate of the appliance's CA, and these lines in its `[[client]]`.
    #[must_use]
    pub fn client(mut self, name: &str, lines: &str) -> Self {
        self.clients.push((name.to_owned(), lines.to_owned()));
        self
    }

    /// One taxpayer, and a client `vandal` that may use its seal and means no good.
    #[must_use]
    pub fn vandal() -> Self {
        Self::default().taxpayers(1).client("vandal", "taxpayers = [\"*\"]")
    }

    /// A distant HSM in place of the software token: so many engines, so long for each signature. [`Appliance::token`]
    /// commands it.
    #[must_use]
    pub fn hsm(mut self, engines: usize, latency: Duration) -> Self {
        self.hsm = Some((engines, latency));
        self
    }

    /// A variable in the environment of the service.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A limit of the service's process, as the shell's `ulimit` takes it: `-n 400`.
    #[must_use]
    pub fn limit(self, limit: &str) -> Self {
        self.env("LIMIT", limit)
    }

    /// Its standard error into a pipe that nobody reads. [`Appliance::unread`] is what is in it.
    #[must_use]
    pub fn unread(self) -> Self {
        self.env("STDERR", "pipe")
    }

    /// Its standard error into this file.
    #[must_use]
    pub fn standard_error(self, path: &str) -> Self {
        self.env("STDERR", path)
    }

    /// These lines in `[log]`.
    #[must_use]
    pub fn log(self, lines: &str) -> Self {
        self.edit("[sealing]", &format!("[log]\n{lines}\n\n[sealing]"))
    }

    /// The same keys on a second token, each token in a process of its own, as two HSMs that mirror each other.
    /// [`Appliance::twin`] commands the second one. Wants [`Builder::hsm`].
    #[must_use]
    pub fn twins(mut self) -> Self {
        self.twins = true;
        self
    }

    /// Prepares the folder, and makes the changes in its configuration.
    #[must_use]
    pub fn prepare(self) -> Prepared {
        let folder = tempfile::Builder::new()
            .prefix("muhurdar-test-")
            .tempdir()
            .expect("a temporary folder");
        let dir = folder.path().join("appliance");
        let mut arguments = vec!["dev".to_owned(), "--dir".to_owned(), dir.display().to_string()];
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (service, admin) = self.listen.unwrap_or((free, free));
        arguments.extend(["--listen".into(), service.to_string()]);
        arguments.extend(["--admin-listen".into(), admin.to_string()]);
        arguments.extend(self.arguments);
        let prepared = Prepared {
            folder,
            dir,
            arguments,
            environment: self.environment,
        };
        let only: Vec<_> = prepared
            .arguments
            .iter()
            .map(String::as_str)
            .chain(["--prepare-only"])
            .collect();
        let output = muhurdar(&only);
        assert!(output.status.success(), "muhurdar dev --prepare-only: {}", output.text);
        let path = prepared.dir.join("muhurdar.toml");
        let mut config = fs::read_to_string(&path).expect("dev writes muhurdar.toml");
        for (from, to) in self.edits {
            assert_eq!(config.matches(&from).count(), 1, "{from:?} in muhurdar.toml:\n{config}");
            config = config.replace(&from, &to);
        }
        if let Some((engines, latency)) = self.hsm {
            config = behind_a_distant_hsm(&config, &prepared.dir, engines, latency);
        }
        if self.twins {
            config = with_a_twin(&config, &prepared.dir);
        }
        for (name, lines) in self.clients {
            let identity = format!("uri:urn:muhurdar:client:{name}");
            config += &format!("\n[[client]]\nname = \"{name}\"\nidentity = \"{identity}\"\n{lines}\n");
            let _ = certify(&prepared.dir, &prepared.dir.join("clients"), &name);
        }
        fs::write(&path, config).expect("muhurdar.toml can be written");
        prepared
    }

    /// Prepares the folder and starts the service.
    #[must_use]
    pub fn start(self) -> Appliance {
        self.prepare().start()
    }
}

/// A folder that is ready to serve. Dropped, it is removed.
#[derive(Debug)]
pub struct Prepared {
    folder: TempDir,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
}

impl Prepared {
    /// The appliance's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the service and waits until it listens.
    #[must_use]
    pub fn start(self) -> Appliance {
        // From here on it is the keeper that removes it.
        let folder = self.folder.keep();
        let log = folder.join("log");
        let keeper = Keeper::start(&folder, &log, &self.arguments, &self.environment);
        let mut appliance = Appliance {
            folder,
            dir: self.dir,
            arguments: self.arguments,
            environment: self.environment,
            log,
            runs: 1,
            address: None,
            admin: None,
            keeper,
        };
        appliance.wait_until_it_listens();
        appliance
    }
}

/// The shell that looks after a service's process, and the process.
#[derive(Debug)]
struct Keeper {
    shell: Child,
    stdin: Option<ChildStdin>,
    pid: String,
}

impl Keeper {
    fn start(folder: &Path, log: &Path, arguments: &[String], environment: &[(String, OsString)]) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(binary("muhurdar"))
            .args(arguments)
            .env("LOG", log)
            .env("FOLDER", folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let stdin = shell.stdin.take();
        let mut line = String::new();
        let said = shell
            .stdout
            .take()
            .map(BufReader::new)
            .map(|mut out| out.read_line(&mut line));
        assert!(
            matches!(said, Some(Ok(1..))),
            "the keeper names the process it has started"
        );
        let pid = line.trim().to_owned();
        Self { shell, stdin, pid }
    }

    /// Goes without a look at what is left: another one has that now.
    fn leave(mut self) {
        // In this order: it cleans up where its input ends. An error would say that it is gone.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}

/// A running service. Dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct Appliance {
    folder: PathBuf,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    log: PathBuf,
    runs: usize,
    address: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    keeper: Keeper,
}

impl Appliance {
    /// One with the three taxpayers of the samples, for all tests of a binary.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Appliance> = OnceLock::new();
        SHARED.get_or_init(|| Builder::default().start())
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("an appliance is returned once it listens")
    }

    /// Where metrics and probes are served.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("an appliance is returned once it listens")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> &str {
        &self.keeper.pid
    }

    /// Everything it wrote so far, with what it had to say when this was asked: lines are written a moment after they are said.
    #[must_use]
    pub fn log(&self) -> String {
        let end = Instant::now() + SAID;
        while self.admin.is_some_and(has_lines_to_write) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The pipe that nobody reads ([`Builder::unread`]).
    #[must_use]
    pub fn unread(&self) -> PathBuf {
        self.log.with_extension("pipe")
    }

    /// Commands its HSM ([`Builder::hsm`]), and returns what that says.
    ///
    /// # Panics
    /// Where it does not obey.
    pub fn token(&self, command: &str) -> String {
        muhurdar_faulty_token::send(&self.dir.join("token.sock"), command)
            .unwrap_or_else(|e| panic!("{command:?} to the token: {e}"))
    }

    /// Commands the second of its HSMs ([`Builder::twins`]), and returns what that says.
    ///
    /// # Panics
    /// Where it does not obey.
    pub fn twin(&self, command: &str) -> String {
        // A child that has just crashed is replaced by one that listens again.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match muhurdar_faulty_token::send(&self.dir.join("twin.sock"), command) {
                Ok(said) => return said,
                Err(error) => assert!(Instant::now() < end, "{command:?} to the twin: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Signatures that its HSM was asked for so far.
    #[must_use]
    pub fn signatures(&self) -> usize {
        let said = self.token("stat");
        let calls = said.split_whitespace().find_map(|word| word.strip_prefix("C_Sign="));
        calls.map_or(0, |calls| calls.parse().expect("the module counts in numbers"))
    }

    /// The value of a metric, with its labels as they are written.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics");
        let line = metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }

    /// An HTTP GET on the admin listener: status line and body.
    ///
    /// # Panics
    /// Where nobody answers.
    #[must_use]
    pub fn get(&self, path: &str) -> (String, String) {
        let answer = ask(self.admin_address(), path).expect("the admin listener answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP has a head and a body");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, self.pid()])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "SIG{name} to the appliance");
    }

    /// Waits until the process is gone, and tells its exit code as a shell does (128 and more: a signal). None where it
    /// still runs after this time.
    #[must_use]
    pub fn exit_code_within(&self, time: Duration) -> Option<i32> {
        let end = Instant::now() + time;
        loop {
            let said = fs::read_to_string(self.log.with_extension("exit")).unwrap_or_default();
            if let Some(code) = said.strip_suffix('\n') {
                return code.parse().ok();
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, while the test's own connections go on.
    pub async fn ends_within(&self, time: Duration) -> Option<i32> {
        let end = Instant::now() + time;
        loop {
            let code = self.exit_code_within(Duration::ZERO);
            if code.is_some() || Instant::now() > end {
                return code;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the service again, where it has ended: on the same folder, and at the same address where that was given
    /// ([`Builder::listen`]). What [`Appliance::log`] tells begins anew.
    ///
    /// # Panics
    /// Where it still runs.
    pub fn start_again(&mut self) {
        assert!(
            self.exit_code_within(Duration::ZERO).is_some(),
            "one at a time in a folder"
        );
        self.runs += 1;
        self.log = self.folder.join(format!("log-{}", self.runs));
        let keeper = Keeper::start(&self.folder, &self.log, &self.arguments, &self.environment);
        std::mem::replace(&mut self.keeper, keeper).leave();
        self.wait_until_it_listens();
    }

    /// Whether the process runs; one that has ended and waits for its keeper does not.
    fn alive(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        status
            .lines()
            .find(|l| l.starts_with("State:"))
            .is_some_and(|state| !state.contains('Z'))
    }

    fn wait_until_it_listens(&mut self) {
        let end = Instant::now() + START;
        loop {
            let log = self.log();
            self.address = after(&log, "at https://");
            self.admin = after(&log, "metrics at http://");
            if self.address.is_some() && self.admin.is_some() {
                return;
            }
            assert!(
                self.alive() && Instant::now() < end,
                "the appliance does not start; it wrote:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // An error would say that the keeper is gone already.
        drop(self.keeper.shell.wait());
    }
}

/// An HTTP GET.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes())?;
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether a service that is there has said something that is not written yet.
fn has_lines_to_write(admin: SocketAddr) -> bool {
    let metrics = ask(admin, "/metrics").unwrap_or_default();
    let mut queues = metrics
        .lines()
        .filter(|line| line.starts_with("muhurdar_log_queued_bytes{"));
    queues.any(|line| !line.ends_with(" 0"))
}

/// The address that follows a text, once its line is whole.
fn after(log: &str, text: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(text)?;
    let (line, _) = rest.split_once('\n')?;
    line.split('/').next()?.trim().parse().ok()
}
