//! Programs that are started, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::random::Random;

/// Longest wait for something that happens within seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How long programs are killed for: a minute, or so many times as long.
pub(crate) fn torment_time() -> Duration {
    Duration::from_secs(60) * soak_factor()
}

/// How many times longer than in CI, as `ADXMON_SOAK` says.
pub(crate) fn soak_factor() -> u32 {
    std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// A running program. It ends with its owner, whose panic prints the end of its output.
pub(crate) struct Program {
    path: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
    /// How often it was killed.
    pub(crate) kills: usize,
}

impl Program {
    pub(crate) fn start(path: &'static str, log: &Path, arguments: &[&str]) -> Program {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(path, log, &arguments);
        Program { path, arguments, log: log.to_owned(), child, kills: 0 }
    }

    /// SIGKILL, and a new process. `between` runs while there is none.
    pub(crate) async fn kill(&mut self, between: impl Future<Output = ()>) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{} has ended by itself", self.path);
        self.child.kill().await.unwrap();
        self.kills += 1;
        between.await;
        self.child = spawn(self.path, &self.log, &self.arguments);
    }

    /// SIGTERM, and the end, which must be a good one.
    pub(crate) async fn terminate(&mut self) {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.expect("it has ended by itself"), rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} does not end", self.log.display())).unwrap();
        assert!(status.success(), "{}: {status}", self.log.display());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.expect("it has ended by itself"), signal).unwrap();
    }

    /// SIGKILL, and no new process.
    pub(crate) async fn stop(&mut self) {
        self.child.kill().await.unwrap();
        self.kills += 1;
    }

    /// A new process after the end of the old one.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "{} still runs", self.path);
        self.child = spawn(self.path, &self.log, &self.arguments);
    }

    /// What it has written.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it at random moments: in the middle of its start, and of its work.
    pub(crate) async fn torment(&mut self, random: &mut Random, until: Instant) {
        while Instant::now() < until {
            let life = if random.percent(30) { random.milliseconds(10, 1000) } else { random.milliseconds(1000, 8000) };
            tokio::time::sleep(life).await;
            let pause = random.milliseconds(0, 1500);
            self.kill(tokio::time::sleep(pause)).await;
        }
    }
}

/// Starts a program whose host has the name of its log.
fn spawn(path: &str, log: &Path, arguments: &[String]) -> Child {
    let name = log.file_stem().unwrap_or_default().to_owned();
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
    command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOSTNAME", name);
    command.spawn().unwrap()
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!("--- last output of {}", self.log.display());
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
