//! The program itself, alone.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use kustd::DatabaseSetting;
use serde_json::json;

/// The program on a free port; killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// Kept to the end: the program must be able to write.
    _log: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(folder: &Path) -> Program {
        Self::start_with(folder, &[])
    }

    pub(crate) fn start_with(folder: &Path, flags: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kustd"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = log.find_map(|line| {
            let line = line.unwrap();
            let (_, behind) = line.split_once("127.0.0.1:").filter(|_| line.contains("ready"))?;
            let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().ok()
        });
        let address = format!("http://127.0.0.1:{}", port.expect("the log says where it listens"));
        Program { child, address, _log: log }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn databases_may_say_how_long_they_keep_rows() {
    let day = std::time::Duration::from_secs(86_400);
    for (text, retention) in [("Logs", None), ("Logs=90d", Some(day * 90)), ("Logs=1.12:00:00", Some(day * 3 / 2))] {
        assert_eq!(text.parse(), Ok(DatabaseSetting { name: "Logs".to_owned(), retention }), "{text}");
    }
    for text in ["Logs=", "Logs=-1d", "Logs=long"] {
        assert!(text.parse::<DatabaseSetting>().unwrap_err().contains("7d"), "{text}");
    }
}

#[test]
fn help_names_every_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_kustd")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for flag in
        ["--data-dir", "--listen", "--durability", "--databases", "--retention", "--max-bytes", "--allowed-clusters", "--remote-timeout"]
    {
        assert!(help.contains(flag), "{flag} is not in:\n{help}");
    }
}

#[tokio::test]
async fn it_answers_in_the_default_database_and_ends_when_told() {
    server::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path());
    let request = reqwest::Client::new().post(format!("{}/v1/rest/query", program.address)).json(&json!({"csl": "print current = 1"}));
    let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["Tables"][0]["Rows"], json!([[1]]));
    assert!(Command::new("kill").args(["-TERM", &program.child.id().to_string()]).status().unwrap().success());
    assert!(program.child.wait().unwrap().success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let refused = Command::new(env!("CARGO_BIN_EXE_kustd")).args(["--listen", &listen, "--data-dir"]).arg(folder.path()).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&listen), "{refused:?}");
}
