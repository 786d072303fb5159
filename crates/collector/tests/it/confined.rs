//! The program with mounts that nobody else sees.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client;

/// A collector that runs in a mount namespace of its own.
pub(crate) struct Confined {
    pub(crate) url: String,
    dir: TempDir,
    child: Child,
    namespace: &'static [&'static str],
}

impl Confined {
    /// Runs `mounts`, a shell script whose first parameter is `dir`, and then the program with `config`. None where mounts are
    /// not allowed, which with `CI=true` is a failure.
    pub(crate) fn start(dir: TempDir, mounts: &str, config: &str) -> Option<Confined> {
        let namespace = namespace(dir.path(), mounts)?;
        let file = dir.path().join("c.toml");
        std::fs::write(&file, config).unwrap();
        let script = format!("{mounts} && exec \"$2\" --config \"$3\"");
        let mut command = Command::new("unshare");
        command.args(namespace).args(["sh", "-c", &script, "sh"]).arg(dir.path()).arg(env!("CARGO_BIN_EXE_collector")).arg(file);
        command.env_remove("COLLECTOR_STORAGE_BACKEND").env_remove("ADXMON_DURABILITY").env_remove("LOG_LEVEL");
        let output = std::fs::File::create(dir.path().join("output")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).spawn().unwrap();
        let mut confined = Confined { url: String::new(), dir, child, namespace };
        let addr = (0..1200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let started = confined.log().into_iter().find(|line| line["msg"] == "collector started")?;
            Some(started["addr"].as_str()?.to_owned())
        });
        confined.url = format!("http://{}", addr.expect("it starts"));
        Some(confined)
    }

    /// A path of its folder as the program sees it.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        Path::new(&format!("/proc/{}/root", self.child.id())).join(path.strip_prefix("/").unwrap())
    }

    /// Unmounts what the program has at a path of its folder.
    pub(crate) fn unmount(&self, path: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.child.id())).arg("--mount");
        if self.namespace.contains(&"--map-root-user") {
            command.args(["--user", "--preserve-credentials"]);
        }
        assert!(command.arg("umount").arg(self.dir.path().join(path)).status().unwrap().success(), "{path}");
    }

    /// What the program has said so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("output")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the program has said this.
    pub(crate) async fn until_said(&self, text: &str) {
        self.wait(text, async || self.log().iter().any(|line| line["msg"].as_str().is_some_and(|msg| msg.contains(text)))).await;
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = client().get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        self.wait(name, async || self.metric(name).await.is_some_and(&wanted)).await;
    }

    async fn wait(&self, what: &str, come: impl AsyncFn() -> bool) {
        let wait = async {
            while !come().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), wait).await;
        assert!(waited.is_ok(), "{what} does not get there: {:?}", self.metric(what).await);
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Options of unshare(1) with which this user can run `mounts`.
fn namespace(dir: &Path, mounts: &str) -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["sh", "-c", mounts, "sh"]).arg(dir).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(works).copied();
    if way.is_none() {
        let reason = "unshare(1) of util-linux cannot mount here: it takes root with the capability SYS_ADMIN, or user namespaces, and /dev/fuse for FUSE";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        println!("not run: {reason}");
    }
    way
}
