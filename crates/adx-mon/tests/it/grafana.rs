//! The requests of Grafana's Azure Data Explorer plugin, as its documentation and source describe them.

use serde_json::{Value, json};

use crate::support::Up;

fn ask(up: &Up, route: &str, db: &str, csl: &str) -> (u16, Value) {
    // The plugin sends lower-case `options` and no parameters.
    let properties =
        json!({ "options": { "queryconsistency": "strongconsistency", "query_results_cache_max_age": "", "servertimeout": "00:00:30" } });
    let body = json!({ "csl": csl, "db": db, "properties": properties, "querySource": "schema" }).to_string();
    let headers = [("x-ms-app", "Grafana-ADX"), ("x-ms-client-request-id", "KGC.schema;1")];
    let (status, text) = up.post(&format!("{}{route}", up.kustd()), "application/json", &headers, body.as_bytes()).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

#[test]
fn the_plugin_can_test_explore_and_query() {
    let up = Up::start(&["--no-host"]);
    ask(&up, "/v1/rest/mgmt", "NetDefaultDB", ".create table Panel (Timestamp:datetime, Value:real, Labels:dynamic)");
    let (status, _) = ask(
        &up,
        "/v1/rest/mgmt",
        "NetDefaultDB",
        ".ingest inline into table Panel <|\n2024-01-01T00:00:00Z,1.5,\"{\"\"a\"\":\"\"b\"\"}\"\n2024-01-01T00:00:30Z,nan,",
    );
    assert_eq!(status, 200);

    // "Save & test": a command on the query route.
    let (status, answer) = ask(&up, "/v1/rest/query", "NetDefaultDB", ".show databases schema");
    assert_eq!(status, 200);
    assert!(!answer["Tables"][0]["Rows"].as_array().unwrap().is_empty());

    // The editor's schema.
    for command in [".show databases schema as json", ".show databases (['NetDefaultDB']) schema as json"] {
        let (status, answer) = ask(&up, "/v1/rest/mgmt", "NetDefaultDB", command);
        assert_eq!(status, 200, "{command}: {answer}");
        let schema: Value = serde_json::from_str(answer["Tables"][0]["Rows"][0][0].as_str().unwrap()).unwrap();
        let table = &schema["Databases"]["NetDefaultDB"]["Tables"]["Panel"];
        assert_eq!(table["Name"], "Panel");
        assert_eq!(table["OrderedColumns"][0], json!({ "Name": "Timestamp", "Type": "System.DateTime", "CslType": "datetime" }));
    }
    let (status, answer) = ask(&up, "/v1/rest/mgmt", "NetDefaultDB", ".show databases");
    assert_eq!(status, 200);
    assert_eq!(answer["Tables"][0]["Columns"][0]["ColumnName"], "DatabaseName");

    // A panel's query, macros expanded.
    let query = "Panel | where Timestamp >= datetime(2023-12-31T00:00:00Z) and Timestamp <= datetime(2024-01-02T00:00:00Z) | summarize avg(Value) by bin(Timestamp, 60000ms), tostring(Labels.a) | order by Timestamp asc";
    let (status, answer) = ask(&up, "/v1/rest/query", "NetDefaultDB", query);
    assert_eq!(status, 200, "{answer}");
    let types: Vec<&str> =
        answer["Tables"][0]["Columns"].as_array().unwrap().iter().map(|column| column["ColumnType"].as_str().unwrap()).collect();
    assert_eq!(types, ["datetime", "string", "real"]);
    assert!(answer["Tables"][0]["Rows"].as_array().unwrap().contains(&json!(["2024-01-01T00:00:00Z", "b", 1.5])), "{answer}");

    // Errors: the plugin shows error.message, @type and @message.
    let (status, answer) = ask(&up, "/v1/rest/query", "NetDefaultDB", "Panel | where Nope == 1");
    assert_eq!(status, 400);
    assert!(answer["error"]["@message"].as_str().unwrap().contains("Nope"), "{answer}");
    assert!(answer["error"]["@type"].is_string() && answer["error"]["message"].is_string());
}
