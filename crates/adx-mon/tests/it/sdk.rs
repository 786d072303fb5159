//! Microsoft's Kusto SDKs for Python, unmodified, against the embedded Kusto.

use crate::support::{Up, python, run_client};

#[test]
fn data_and_ingest_clients_work() {
    let Some(python) = python() else { return };
    let up = Up::start(&["--no-host"]);
    assert_eq!(run_client(&python, "kusto.py", &[&up.kustd()]).trim(), "ok");
}
