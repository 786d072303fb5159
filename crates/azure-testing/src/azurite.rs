//! Azurite, Microsoft's emulator of Azure Storage, on free ports of the loopback: blobs, queues and tables of one account.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The account of the emulator.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which Microsoft has published.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running Azurite, which keeps everything in memory and ends with its owner.
#[derive(Debug)]
pub struct Azurite {
    process: Child,
    blob: String,
    queue: String,
    table: String,
    /// Where it runs: it may write a file or two.
    _folder: TempDir,
}

impl Azurite {
    /// Starts it, in about two seconds; none, with a line that says so, where it is not installed. With `CI=true` that is a
    /// failure.
    ///
    /// # Panics
    /// When it does not start, and in CI when it is missing.
    pub fn start() -> Option<Azurite> {
        let script = cache().join("adx-mon/azurite/node_modules/azurite/dist/src/azurite.js");
        if !script.exists() {
            let why = format!("{} is missing: run `cargo xtask setup`", script.display());
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
            eprintln!("not run: {why}");
            return None;
        }
        let folder = TempDir::new().expect("a scratch folder");
        let mut command = Command::new("node");
        command.arg(script).current_dir(folder.path()).stdout(Stdio::piped());
        // without --disableTelemetry it calls home
        command.args(["--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"]);
        for service in ["blob", "queue", "table"] {
            command.args([&format!("--{service}Host"), "127.0.0.1", &format!("--{service}Port"), "0"]);
        }
        let mut process = command.spawn().expect("starting node");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut address = || {
            let line = lines.find_map(|line| line.ok().filter(|line| line.contains("successfully listening at")));
            let line = line.expect("Azurite says where it listens");
            let (_, address) = line.rsplit_once(" at ").expect("an address");
            format!("{}/{ACCOUNT}", address.trim())
        };
        let (blob, queue, table) = (address(), address(), address());
        // the rest of its output has to go somewhere
        std::thread::spawn(move || lines.for_each(drop));
        Some(Azurite { process, blob, queue, table, _folder: folder })
    }

    /// How to reach it, with its key.
    pub fn connection_string(&self) -> String {
        let Azurite { blob, queue, table, .. } = self;
        format!("AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={blob};QueueEndpoint={queue};TableEndpoint={table}")
    }

    /// Ends it, for those who want to see what happens without it.
    pub fn stop(&mut self) {
        // it may have ended
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        self.stop();
    }
}

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}
