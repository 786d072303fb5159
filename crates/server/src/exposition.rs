//! Our own metrics as text: OpenMetrics as `prometheus-client` writes it, and the classic
//! Prometheus format (0.0.4) made from that.
//!
//! The two differ in little: the classic format names a counter's family with its `_total`, knows
//! neither `# UNIT` nor `# EOF` nor exemplars, and calls `unknown` `untyped`. Source: the Prometheus
//! text exposition format 0.0.4 and OpenMetrics 1.0.

/// The content type of the classic format.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The content type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics.
pub(crate) fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let asked = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
        asked && !parts.any(|p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q <= 0.0))
    })
}

/// The classic format of an OpenMetrics text.
///
/// `HELP` and `TYPE` of a counter are written under `name_total`, which is why a family's header is
/// held back until its type is known.
pub(crate) fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            header(&mut out, name, kind, help.take());
        } else if !line.starts_with('#') {
            out.push_str(line.split_once(" # ").filter(|_| has_exemplar(line)).map_or(line, |(sample, _)| sample));
            out.push('\n');
        }
    }
    out
}

fn header(out: &mut String, name: &str, kind: &str, help: Option<(&str, &str)>) {
    let (suffix, kind) = match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        "stateset" => ("", "gauge"),
        "gaugehistogram" => ("", "histogram"),
        other => ("", other),
    };
    if let Some((family, text)) = help
        && family == name
    {
        out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
    }
    out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
}

/// An exemplar follows the sample's value, so its mark stands behind the closing brace.
fn has_exemplar(line: &str) -> bool {
    match (line.find(" # {"), line.find('}')) {
        (Some(mark), Some(brace)) => mark > brace,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Registry;

    #[test]
    fn counters_carry_their_suffix_and_nothing_of_open_metrics_is_left() {
        let mut registry = Registry::default();
        let requests = Family::<Vec<(String, String)>, Counter>::default();
        registry.register("requests", "Requests", requests.clone());
        registry.register("size_bytes", "Bytes", Gauge::<i64>::default());
        requests.get_or_create(&vec![("path".to_owned(), "/a # {b".to_owned())]).inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let expected = "# HELP requests_total Requests.\n# TYPE requests_total counter\nrequests_total{path=\"/a # {b\"} 1\n\
                        # HELP size_bytes Bytes.\n# TYPE size_bytes gauge\nsize_bytes 0\n";
        assert_eq!(classic(&text), expected);
    }

    #[test]
    fn exemplars_are_cut_off() {
        let text = "# TYPE a histogram\na_bucket{le=\"1.0\"} 3 # {trace=\"x\"} 0.5\n# EOF\n";
        assert_eq!(classic(text), "# TYPE a histogram\na_bucket{le=\"1.0\"} 3\n");
    }

    #[test]
    fn open_metrics_is_given_to_those_who_ask() {
        assert!(wants_open_metrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"));
        assert!(!wants_open_metrics("text/plain"));
        assert!(!wants_open_metrics("application/openmetrics-text;q=0"));
    }
}
