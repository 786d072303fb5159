//! Starts the program and other servers on free loopback ports, and asks queries.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for something that happens within seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A child process that is killed when dropped, its output in a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Process {
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        Process { child: child.unwrap_or_else(|error| panic!("starting {command:?}: {error}")), log }
    }

    /// Kills it as `kill -9` does, if it still runs, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends SIGKILL through the pid: for a shared reference while others talk to the process.
    pub(crate) fn kill_by_pid(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    }

    /// Asks it to end as Kubernetes does, and gives its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the process does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            eprintln!("--- last output of {}", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// `count` consecutive free ports, below those that the kernel gives to outgoing connections: a port must still be free
/// when a killed process is started again.
pub(crate) fn free_ports(count: u16) -> u16 {
    const FIRST: u32 = 10_000;
    const LAST: u32 = 32_000;
    let mut random = std::process::id() ^ std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    for _ in 0..200 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let base = u16::try_from(FIRST + (random >> 8) % (LAST - FIRST)).unwrap();
        if (base..base + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no {count} consecutive free ports");
}

/// Waits for a condition that another process brings about.
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, check)
}

/// Waits for a condition that takes its time even on an idle machine.
pub(crate) fn eventually_within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// `adx-mon up` in a folder of its own.
pub(crate) struct Up {
    pub(crate) process: Process,
    pub(crate) folder: TempDir,
    /// What it printed when it was ready.
    pub(crate) welcome: String,
    base: u16,
    options: Vec<String>,
    agent: ureq::Agent,
}

impl Up {
    /// Starts it with further options, without the host's own telemetry unless asked for.
    pub(crate) fn start(options: &[&str]) -> Up {
        let folder = tempfile::tempdir().unwrap();
        let base = free_ports(7);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = launch(folder.path(), base, &options);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent();
        let mut up = Up { process, folder, welcome: String::new(), base, options, agent };
        up.wait();
        up
    }

    /// Starts it again in the same folder after it was killed or ended.
    pub(crate) fn restart(&mut self) {
        self.process = launch(self.folder.path(), self.base, &self.options);
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.process.output().contains("ADX-Mon is running") || ureq::get(self.collector("/readyz")).call().is_err() {
            assert!(self.process.is_running(), "adx-mon ended:\n{}", self.process.output());
            assert!(Instant::now() < deadline, "adx-mon does not come up:\n{}", self.process.output());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.welcome = self.process.output();
        // The next wait is for the next start's message.
        std::fs::write(self.folder.path().join("up.log"), "").unwrap();
    }

    pub(crate) fn kustd(&self) -> String {
        format!("http://127.0.0.1:{}", self.base)
    }

    pub(crate) fn console(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + 1)
    }

    pub(crate) fn collector(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + 2)
    }

    pub(crate) fn otlp(&self) -> String {
        format!("http://127.0.0.1:{}", self.base + 3)
    }

    pub(crate) fn otlp_grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.base + 7)
    }

    pub(crate) fn ingestor(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + 5)
    }

    /// Posts a body and gives status and text of the answer; an error when nothing answered.
    pub(crate) fn post(&self, url: &str, content_type: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, String), String> {
        let mut request = self.agent.post(url).header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).map_err(|error| error.to_string())?;
        let text = answer.body_mut().with_config().limit(256 << 20).read_to_string().map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), text))
    }

    pub(crate) fn get(&self, url: &str) -> Result<String, String> {
        let mut answer = self.agent.get(url).call().map_err(|error| error.to_string())?;
        answer.body_mut().read_to_string().map_err(|error| error.to_string())
    }

    /// Rows of the first table that a query gives, or the error's text.
    pub(crate) fn query(&self, database: &str, csl: &str) -> Result<Vec<Vec<Value>>, String> {
        let body = json!({ "db": database, "csl": csl }).to_string();
        let (status, text) = self.post(&format!("{}/v1/rest/query", self.kustd()), "application/json", &[], body.as_bytes())?;
        if status != 200 {
            return Err(format!("{status}: {text}"));
        }
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
        let rows = answer["Tables"][0]["Rows"].as_array().ok_or_else(|| format!("no rows in {text}"))?;
        Ok(rows.iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect())
    }

    /// The first cell of a query as a whole number.
    pub(crate) fn number(&self, database: &str, csl: &str) -> Result<i64, String> {
        let rows = self.query(database, csl)?;
        rows.first().and_then(|row| row.first()).and_then(Value::as_i64).ok_or_else(|| format!("no number in {rows:?}"))
    }
}

fn launch(folder: &Path, base: u16, options: &[String]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adx-mon"));
    command.arg("up").arg("--data-dir").arg(folder.join("data")).args(["--port-base", &base.to_string()]).args(options);
    Process::start(&mut command, folder.join("up.log"))
}

/// The Python of the test environment, or None when it may be missing: never in CI.
pub(crate) fn python() -> Option<PathBuf> {
    let folder = std::env::var_os("ADXMON_PYTHON_VENV").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("adx-mon/python"))
    })?;
    needed(folder.join("bin/python"), "the Python test environment")
}

/// A program that a test needs. Missing: the test is left out with a word, in CI it fails.
pub(crate) fn needed(program: PathBuf, what: &str) -> Option<PathBuf> {
    if program.exists() {
        return Some(program);
    }
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{what} is missing: {}", program.display());
    eprintln!("not run: {what} is missing; `cargo xtask setup` installs it");
    None
}

/// Runs one of the client scripts to its end.
pub(crate) fn run_client(python: &Path, script: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let output = Command::new(python).arg(&script).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} failed:\n{text}\n{}", script.display(), String::from_utf8_lossy(&output.stderr));
    text
}

/// How often a loop runs: its short count, times the factor of a soak.
pub(crate) fn rounds(short: u32) -> u32 {
    short * std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse::<u32>().ok()).unwrap_or(1)
}
