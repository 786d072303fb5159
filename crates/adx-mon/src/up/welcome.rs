//! What `up` prints once it runs.

use std::path::Path;

use super::ports::Ports;

/// How a shell finds this program: by its name if it was started so, else by its path, as after `cargo run`.
pub(crate) fn program() -> String {
    let started_by_path = std::env::args_os().next().is_some_and(|name| Path::new(&name).components().count() > 1);
    match std::env::current_exe() {
        Ok(path) if started_by_path => quoted(&path.display().to_string()),
        _ => "adx-mon".to_owned(),
    }
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    match path.contains(|c: char| !c.is_alphanumeric() && !"/._-".contains(c)) {
        true => format!("'{}'", path.replace('\'', r"'\''")),
        false => path.to_owned(),
    }
}

/// Where to send data, and queries to try. `program` is what a shell calls this program, `rules` how many rules run.
pub(crate) fn text(program: &str, ports: &Ports, data_dir: &Path, host: bool, rules: Option<usize>) -> String {
    let endpoint = if ports.kustd.port() == 8080 { String::new() } else { format!("--endpoint http://{} ", ports.kustd) };
    let queries = if host {
        [
            "NodeLoad1 | top 5 by Timestamp",
            "NodeCpuSecondsTotal | where Labels.mode != 'idle' | invoke prom_rate() | summarize CpuPercent = 100 * sum(Value) by bin(Timestamp, 10s) | order by Timestamp desc | take 10",
            "database('Logs').OTelLogs | summarize Lines = count() by tostring(Resource['log.source'])",
        ]
    } else {
        [
            "Up | top 5 by Timestamp",
            "Up | summarize Seen = max(Timestamp) by tostring(Labels.adxmon_pod)",
            "ScrapeSamplesScraped | summarize Samples = sum(Value) by bin(Timestamp, 1m)",
        ]
    };
    let queries: String = queries.iter().map(|query| format!("  {program} query {endpoint}\"{query}\"\n")).collect();
    let rules = match rules {
        Some(count) => format!(
            "{count} rules run; alerts are in this log. Their state: http://{}/rules and http://{}/debug/rules\n\n",
            ports.console, ports.alerter
        ),
        None => String::new(),
    };
    format!(
        "\nADX-Mon is running. Data is kept in {folder}.\n\n\
         Send data to:\n  \
         Prometheus remote write    http://{collector}/api/v1/write\n  \
         OTLP over HTTP             http://{otlp}   (/v1/metrics, /v1/logs, /v1/traces)\n  \
         OTLP over gRPC             http://{otlp_grpc}\n\n\
         Ask in KQL (this host's own telemetry is there within half a minute; without a query a prompt opens):\n{queries}\n\
         Kusto endpoint for SDKs and Grafana: http://{kustd}   databases Metrics, Logs\n\n{rules}\
         Ctrl-C stops it.\n",
        folder = data_dir.display(),
        collector = ports.collector,
        otlp = ports.otlp_http,
        otlp_grpc = ports.otlp_grpc,
        kustd = ports.kustd,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted("/home/me/adx-mon/target/quick/adx-mon"), "/home/me/adx-mon/target/quick/adx-mon");
        assert_eq!(quoted("/my files/it's/adx-mon"), r"'/my files/it'\''s/adx-mon'");
    }
}
