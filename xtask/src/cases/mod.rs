//! Scores the KQL engine on recorded answers of Kusto's own.
//!
//! The cases are not part of the repository: `ADXMON_KQL_CASES` names the folder that holds `cases.jsonl`. The ids of
//! the cases that pass are kept in `xtask/kql-cases-passing.txt`; one that passed and no longer does fails the run.

mod compare;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::{in_ci, root, run};

/// Shares, in percent, that the engine must keep to.
const PASS_MIN: f64 = 80.0;
const WRONG_MAX: f64 = 1.0;

/// Options of `cargo xtask kql-cases`.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// A running Kusto endpoint; without it kustd is built and started
    #[arg(long)]
    url: Option<String>,
    /// Write what did not pass, one JSON object a line
    #[arg(long)]
    fails: Option<PathBuf>,
    /// Record the cases that pass now
    #[arg(long)]
    update: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Pass,
    Wrong,
    Refused,
    Error,
}

/// Runs all cases whose answers come from Kusto's engine and prints the report.
pub(crate) fn run_cases(options: &Options) -> Result<()> {
    let Some(folder) = std::env::var_os("ADXMON_KQL_CASES").map(PathBuf::from).filter(|folder| folder.join("cases.jsonl").is_file()) else {
        if in_ci() {
            bail!("ADXMON_KQL_CASES does not name a folder with cases.jsonl");
        }
        eprintln!("kql-cases: did not run, because ADXMON_KQL_CASES does not name a folder with cases.jsonl");
        return Ok(());
    };
    let (cases, unusable): (Vec<Value>, Vec<Value>) =
        load(&folder.join("cases.jsonl"))?.into_iter().partition(|case| !compare::is_no_answer(case));
    println!("{} recordings set aside: what they give as the answer is a parameter of the recorded test", unusable.len());
    let server = match &options.url {
        Some(_) => None,
        None => Some(Kustd::start()?),
    };
    let url = options.url.clone().or_else(|| server.as_ref().map(|server| server.url.clone())).unwrap_or_default();
    let verdicts = ask(&url, &cases)?;
    drop(server);
    report(&cases, &verdicts);
    if let Some(path) = &options.fails {
        write_fails(path, &cases, &verdicts)?;
    }
    judge(&cases, &verdicts, options.update)
}

fn load(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let cases = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(cases.into_iter().filter(|case| case["authority"].as_str().is_some_and(|authority| authority.starts_with("emulator"))).collect())
}

/// A kustd of our own on a free port with an empty folder; stopped when dropped.
struct Kustd {
    child: Child,
    url: String,
    folder: PathBuf,
}

impl Kustd {
    fn start() -> Result<Self> {
        // With the tests, because the engine is built for them already: alone it would be built once more.
        run("cargo", &["test", "--workspace", "--no-run", "--locked"])?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| root().join("target"));
        let folder = std::env::temp_dir().join(format!("adx-mon-kql-cases-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(target.join("debug/kustd"))
            .args(["--listen", &address, "--data-dir"])
            .arg(folder.join("data"))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("starting kustd")?;
        let server = Kustd { child, url: format!("http://{address}"), folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(&address).is_err() {
            if Instant::now() > deadline {
                bail!("kustd did not open its port within a minute; its log is in {}", server.folder.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Kustd {
    fn drop(&mut self) {
        // It is a throw-away server: nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ask(url: &str, cases: &[Value]) -> Result<Vec<(Verdict, String)>> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).http_status_as_error(false).build().new_agent();
    let mut verdicts = Vec::with_capacity(cases.len());
    let mut down = 0;
    for (number, case) in cases.iter().enumerate() {
        if number % 100 == 0 {
            eprint!("\rkql-cases: {number} of {}", cases.len());
            std::io::stderr().flush()?;
        }
        let verdict = ask_one(&agent, url, case);
        down = if verdict.0 == Verdict::Error { down + 1 } else { 0 };
        verdicts.push(verdict);
        if down > 20 {
            bail!("the endpoint {url} is down: 20 cases in a row had no answer; the last: {}", verdicts[verdicts.len() - 1].1);
        }
    }
    eprintln!("\rkql-cases: {} of {0}", cases.len());
    Ok(verdicts)
}

fn ask_one(agent: &ureq::Agent, url: &str, case: &Value) -> (Verdict, String) {
    let body = json!({ "db": "NetDefaultDB", "csl": case["query"], "properties": { "Options": { "servertimeout": "00:00:20" } } });
    let answer = agent.post(format!("{url}/v1/rest/query")).header("content-type", "application/json").send(body.to_string());
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (Verdict::Error, error.to_string()),
    };
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(256 << 20).read_to_string().unwrap_or_default();
    if status != 200 {
        let verdict = if (400..500).contains(&status) { Verdict::Refused } else { Verdict::Error };
        return (verdict, text.chars().take(300).collect());
    }
    match serde_json::from_str::<Value>(&text) {
        Err(error) => (Verdict::Wrong, format!("the answer is not JSON: {error}")),
        Ok(answer) if answer.get("Exceptions").is_some() => (Verdict::Refused, answer["Exceptions"].to_string()),
        Ok(answer) => match compare::compare(case, &answer["Tables"][0]) {
            Ok(()) => (Verdict::Pass, String::new()),
            Err(why) => (Verdict::Wrong, why),
        },
    }
}

fn report(cases: &[Value], verdicts: &[(Verdict, String)]) {
    for feature in ["operators", "functions"] {
        let mut counts: BTreeMap<&str, BTreeMap<Verdict, usize>> = BTreeMap::new();
        for (case, (verdict, _)) in cases.iter().zip(verdicts) {
            for name in case[feature].as_array().into_iter().flatten().filter_map(Value::as_str) {
                *counts.entry(name).or_default().entry(*verdict).or_default() += 1;
            }
        }
        println!("\n{feature:<28} pass wrong refused error");
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<usize>()));
        for (name, counts) in rows {
            let of = |verdict| counts.get(&verdict).copied().unwrap_or(0);
            println!("  {name:<26} {:4} {:5} {:7} {:5}", of(Verdict::Pass), of(Verdict::Wrong), of(Verdict::Refused), of(Verdict::Error));
        }
    }
}

fn write_fails(path: &Path, cases: &[Value], verdicts: &[(Verdict, String)]) -> Result<()> {
    let mut text = String::new();
    for (case, (verdict, why)) in cases.iter().zip(verdicts).filter(|(_, (verdict, _))| *verdict != Verdict::Pass) {
        text.push_str(&json!({ "id": case["id"], "kind": format!("{verdict:?}"), "why": why, "query": case["query"] }).to_string());
        text.push('\n');
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Fails when the shares are not kept or a case that passed does no longer.
fn judge(cases: &[Value], verdicts: &[(Verdict, String)], update: bool) -> Result<()> {
    let share = |wanted| 100.0 * verdicts.iter().filter(|(verdict, _)| *verdict == wanted).count() as f64 / verdicts.len().max(1) as f64;
    let (pass, wrong) = (share(Verdict::Pass), share(Verdict::Wrong));
    println!(
        "\npass {pass:.1} % wrong {wrong:.1} % refused {:.1} % error {:.1} % of {} cases",
        share(Verdict::Refused),
        share(Verdict::Error),
        verdicts.len()
    );
    let stable = |case: &Value| case["nondeterministic"] != true && case["approximate"] != true;
    let ids = cases.iter().zip(verdicts).filter(|(case, _)| stable(case));
    let passing: BTreeSet<&str> =
        ids.filter(|(_, (verdict, _))| *verdict == Verdict::Pass).filter_map(|(case, _)| case["id"].as_str()).collect();
    let list = root().join("xtask/kql-cases-passing.txt");
    if update {
        let text = passing.iter().fold(String::new(), |text, id| text + id + "\n");
        return std::fs::write(&list, text).with_context(|| format!("writing {}", list.display()));
    }
    let recorded = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let lost: Vec<&str> = recorded.lines().filter(|id| !passing.contains(id)).collect();
    if !lost.is_empty() {
        bail!("{} cases passed before and do not now: {}", lost.len(), lost.join(", "));
    }
    if pass < PASS_MIN || wrong > WRONG_MAX {
        bail!("at least {PASS_MIN} % must pass and at most {WRONG_MAX} % may be wrong");
    }
    Ok(())
}
