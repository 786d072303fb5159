//! The protocol, byte by byte where clients insist.

use serde_json::{Value, json};

use crate::harness::Kustd;

#[tokio::test]
async fn version_1_has_an_index_and_commands_have_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let reply = kustd.query("print a = 1, b = 'x'").await;
    let tables = reply.json()["Tables"].as_array().unwrap().clone();
    assert_eq!(tables[0]["Rows"], json!([[1, "x"]]));
    assert_eq!(tables[0]["Columns"][0], json!({"ColumnName": "a", "DataType": "Int64", "ColumnType": "long"}));
    let index = tables.last().unwrap()["Rows"].as_array().unwrap();
    let kinds: Vec<&str> = index.iter().map(|row| row[1].as_str().unwrap()).collect();
    assert_eq!(kinds, ["QueryResult", "QueryProperties", "QueryStatus"]);
    assert_eq!(kustd.command(".show databases").await.json()["Tables"].as_array().unwrap().len(), 1);
    kustd.stop().await;
}

#[tokio::test]
async fn version_2_frames_stand_on_lines_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let body = json!({"db": "Metrics", "csl": "print d = dynamic({\"a\": [1, 2]}), t = datetime(2024-05-01 10:00:00.5), r = real(nan)"});
    let reply = kustd.post("/v2/rest/query", body).await;
    let lines: Vec<&str> = reply.text.lines().collect();
    assert!(lines[0].starts_with("[{\"FrameType\":\"DataSetHeader\""), "{}", lines[0]);
    assert!(lines[1..lines.len() - 1].iter().all(|line| line.starts_with(",{\"FrameType\":")), "{}", reply.text);
    assert_eq!(*lines.last().unwrap(), "]");
    let prefix =
        ",{\"FrameType\":\"DataTable\",\"TableId\":1,\"TableKind\":\"PrimaryResult\",\"TableName\":\"PrimaryResult\",\"Columns\":[";
    assert!(lines[2].starts_with(prefix), "{}", lines[2]);
    assert!(lines[2].ends_with(r#""Rows":[[{"a":[1,2]},"2024-05-01T10:00:00.5Z","NaN"]]}"#), "{}", lines[2]);
    let frames = reply.json();
    let kinds: Vec<&Value> = frames.as_array().unwrap().iter().map(|frame| &frame["FrameType"]).collect();
    assert_eq!(kinds, ["DataSetHeader", "DataTable", "DataTable", "DataTable", "DataSetCompletion"]);
    kustd.stop().await;
}

#[tokio::test]
async fn fragments_when_the_client_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let properties = json!({"Options": {"results_v2_fragment_primary_tables": true, "results_v2_newlines_between_frames": true}});
    let body = json!({"db": "Metrics", "csl": "range x from 1 to 3 step 1", "properties": properties});
    let frames = kustd.post("/v2/rest/query", body).await.json();
    let kinds: Vec<&Value> = frames.as_array().unwrap().iter().map(|frame| &frame["FrameType"]).collect();
    let expected = ["DataSetHeader", "DataTable", "TableHeader", "TableFragment", "TableCompletion", "DataTable", "DataSetCompletion"];
    assert_eq!(kinds, expected);
    assert_eq!(frames[3]["Rows"], json!([[1], [2], [3]]));
    assert_eq!(frames[4]["RowCount"], 3);
    kustd.stop().await;
}

#[tokio::test]
async fn parameters_come_as_python_sends_them() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let properties = json!({"Options": {}, "Parameters": {"n": "41", "s": "'x'"}}).to_string();
    let csl = "declare query_parameters(n:long, s:string); print n + 1, s";
    let reply = kustd.post("/v1/rest/query", json!({"db": "Metrics", "csl": csl, "properties": properties})).await;
    assert_eq!(reply.rows(), [json!([42, "x"])]);
    kustd.stop().await;
}

#[tokio::test]
async fn options_come_with_the_request_or_in_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let ten = "range x from 1 to 10 step 1";
    let ask = |options: Value| {
        let body = json!({"db": "Metrics", "csl": ten, "properties": {"Options": options}});
        kustd.post("/v1/rest/query", body)
    };
    assert_eq!(ask(json!({"query_take_max_records": 3})).await.rows().len(), 3);
    assert!(ask(json!({"truncationmaxrecords": 3})).await.error(400).contains("E_QUERY_RESULT_SET_TOO_LARGE"));
    assert_eq!(ask(json!({"truncationmaxrecords": 10})).await.rows().len(), 10);
    assert_eq!(kustd.query(&format!("set query_take_max_records = 2; {ten}")).await.rows().len(), 2);
    assert_eq!(kustd.query(&format!("set truncationmaxrecords=3; set unheard_of; {ten}")).await.status, 400);
    let now = kustd.query("set query_now = datetime(2020-02-03 04:05:06); print now()").await;
    assert_eq!(now.rows(), [json!(["2020-02-03T04:05:06Z"])]);
    let late = kustd.query("set servertimeout = 1tick; range x from 1 to 50000000 step 1 | summarize count() by x % 1000").await;
    assert_eq!(late.status, 504, "{}", late.text);
    kustd.stop().await;
}

#[tokio::test]
async fn errors_carry_code_place_and_permanence() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let reply = kustd.query("Missing | take 1").await;
    let error = &reply.json()["error"];
    assert_eq!(reply.status, 400);
    assert_eq!(error["code"], "General_BadRequest");
    assert_eq!(error["@permanent"], true);
    assert_eq!(error["innererror"]["code"], "SEM0100");
    assert_eq!(error["innererror"]["@type"], "Kusto.Data.Exceptions.SemanticException");
    let message = error["@message"].as_str().unwrap();
    assert!(message.contains("Failed to resolve table"), "{message}");
    let syntax = kustd.query("print 1 |\n | x").await;
    assert_eq!(syntax.json()["error"]["innererror"]["@type"], "Kusto.Data.Exceptions.SyntaxException");
    assert_eq!(syntax.json()["error"]["innererror"]["@line"], 2);
    assert!(syntax.headers.contains_key("x-ms-activity-id"));
    let unknown = kustd.post("/v1/rest/query", json!({"db": "Nope", "csl": "print 1"})).await;
    assert!(unknown.error(400).contains("'Nope'"));
    assert_eq!(kustd.post("/v9/rest/query", json!({})).await.status, 404);
    kustd.stop().await;
}

#[tokio::test]
async fn depth_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    for text in [
        format!("print {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("print dynamic({}{})", "[".repeat(100_000), "]".repeat(100_000)),
        format!("print {}1", "-".repeat(100_000)),
        format!("T {}", "| where a ".repeat(100_000)),
    ] {
        assert_eq!(kustd.query(&text).await.status, 400, "{}", &text[..40]);
    }
    let body = format!("{{\"db\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let address = format!("{}/v1/rest/query", kustd.address);
    assert_eq!(kustd.send(kustd.client.post(address).body(body)).await.status, 400);
    kustd.stop().await;
}

#[tokio::test]
async fn metadata_compression_and_browsers() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let get = |path: &str| kustd.client.get(format!("{}{path}", kustd.address));
    let metadata = kustd.send(get("/v1/rest/auth/metadata")).await;
    assert!(metadata.json()["AzureAD"]["KustoServiceResourceId"].is_string());
    for path in ["/readyz", "/healthz", "/metrics"] {
        assert_eq!(kustd.send(get(path)).await.status, 200, "{path}");
    }
    let by_get = kustd.send(get("/v1/rest/query?db=Metrics&csl=print%20x%3D7")).await;
    assert_eq!(by_get.rows(), [json!([7])]);
    // this client asks for gzip and undoes it, and takes the header away then
    let large = kustd.query("range x from 1 to 5000 step 1").await;
    assert_eq!(large.rows().len(), 5000);
    let address = format!("{}/v2/rest/query", kustd.address);
    let preflight = |origin: &'static str| {
        let request = kustd.client.request(reqwest::Method::OPTIONS, &address);
        kustd.send(request.header("Origin", origin).header("Access-Control-Request-Headers", "x-ms-app, authorization"))
    };
    let allowed = preflight("https://dataexplorer.azure.com").await;
    assert_eq!(allowed.headers["access-control-allow-headers"], "x-ms-app, authorization");
    assert!(!preflight("https://evil.example").await.headers.contains_key("access-control-allow-origin"));
    kustd.stop().await;
}

#[tokio::test]
async fn grafana_asks_commands_on_the_query_route() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table T (a:long, b:dynamic)").await;
    let reply = kustd.query(".show databases schema").await;
    assert!(reply.rows().iter().any(|row| row[1] == "T" && row[2] == "b"));
    let schema = kustd.done(".show databases (['Metrics']) schema as json").await;
    let schema: Value = serde_json::from_str(schema[0][0].as_str().unwrap()).unwrap();
    let column = &schema["Databases"]["Metrics"]["Tables"]["T"]["OrderedColumns"][0];
    assert_eq!(*column, json!({"Name": "a", "Type": "System.Int64", "CslType": "long"}));
    kustd.stop().await;
}

/// Columns that only the data tells: of constants, of stored rows, and with operators behind them.
#[tokio::test]
async fn plugins_find_their_columns() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table Bags (Id:long, Bag:dynamic)").await;
    kustd.done(".ingest inline into table Bags <|\n1,\"{\"\"b\"\":\"\"x\"\",\"\"a\"\":2}\"\n2,\"{\"\"a\"\":3}\"").await;
    let reply = kustd.query("Bags | evaluate bag_unpack(Bag) | order by Id asc").await;
    assert_eq!(reply.columns(), ["Id", "a", "b"]);
    assert_eq!(reply.rows(), [serde_json::json!([1, 2, "x"]), serde_json::json!([2, 3, ""])]);
    let reply = kustd.query("datatable(n:long, bag:dynamic)[1, dynamic({'z':1,'bag':'in place'})] | evaluate bag_unpack(bag)").await;
    assert_eq!(reply.columns(), ["n", "bag", "z"]);
    assert_eq!(reply.rows(), [serde_json::json!([1, "in place", 1])]);
    let reply = kustd.query("Bags | extend k = strcat('p', Id) | evaluate pivot(k, count(), Id) | order by Id asc").await;
    assert_eq!(reply.columns(), ["Id", "p1", "p2"]);
}
