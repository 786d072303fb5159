//! What `up` prints once it runs.

use std::path::Path;

use super::ports::Ports;

/// Where to send data, and queries to try.
pub(crate) fn text(ports: &Ports, data_dir: &Path, host: bool) -> String {
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
    let queries: String = queries.iter().map(|query| format!("  adx-mon query {endpoint}\"{query}\"\n")).collect();
    format!(
        "\nADX-Mon is running. Data is kept in {folder}.\n\n\
         Send data to:\n  \
         Prometheus remote write    http://{collector}/api/v1/write\n  \
         OTLP over HTTP             http://{otlp}   (/v1/metrics, /v1/logs, /v1/traces)\n\n\
         Ask in KQL (this host's own telemetry is there within half a minute):\n{queries}\n\
         Kusto endpoint for SDKs and Grafana: http://{kustd}   databases Metrics, Logs\n\
         Ctrl-C stops it.\n",
        folder = data_dir.display(),
        collector = ports.collector,
        otlp = ports.otlp_http,
        kustd = ports.kustd,
    )
}
