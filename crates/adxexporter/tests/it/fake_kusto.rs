//! A Kusto that answers queries as a test says, and keeps what it was asked.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The answer to one query.
#[derive(Clone)]
pub(crate) struct Answer {
    /// Names and types.
    columns: Vec<(&'static str, &'static str)>,
    rows: Arc<dyn Fn(usize) -> Value + Send + Sync>,
    count: usize,
    /// Status and body in place of rows.
    refusal: Option<(u16, Value)>,
    /// Seconds that a refusal asks to wait.
    retry_after: Option<u64>,
    /// Whether there is no answer at all.
    silent: bool,
    /// An error behind the rows.
    late: bool,
    /// Rows after which the answer stands still.
    hangs_after: Option<usize>,
    /// How many rows may be sent so far.
    allowed: Option<watch::Receiver<usize>>,
}

impl Answer {
    pub(crate) fn rows(columns: &[(&'static str, &'static str)], rows: Vec<Value>) -> Answer {
        Answer::made(columns, rows.len(), move |n| rows[n].clone())
    }

    /// Rows that are made while they are sent.
    pub(crate) fn made(
        columns: &[(&'static str, &'static str)],
        count: usize,
        row: impl Fn(usize) -> Value + Send + Sync + 'static,
    ) -> Answer {
        Answer {
            columns: columns.to_vec(),
            rows: Arc::new(row),
            count,
            refusal: None,
            retry_after: None,
            silent: false,
            late: false,
            hangs_after: None,
            allowed: None,
        }
    }

    pub(crate) fn refusal(status: u16, code: &str, message: &str, permanent: bool) -> Answer {
        let body = json!({"error": {"code": "General", "@message": message, "@permanent": permanent, "innererror": {"code": code}}});
        Answer { refusal: Some((status, body)), ..Answer::made(&[], 0, |_| Value::Null) }
    }

    /// The same, with an error behind the last row.
    pub(crate) fn failing_late(self) -> Answer {
        Answer { late: true, ..self }
    }

    /// The same refusal, which asks to wait.
    pub(crate) fn asking_to_wait(self, seconds: u64) -> Answer {
        Answer { retry_after: Some(seconds), ..self }
    }

    /// None, for ever.
    pub(crate) fn silence() -> Answer {
        Answer { silent: true, ..Answer::made(&[], 0, |_| Value::Null) }
    }

    /// The same, of which no more rows are made than the receiver says.
    pub(crate) fn allowed_by(self, allowed: watch::Receiver<usize>) -> Answer {
        Answer { allowed: Some(allowed), ..self }
    }

    pub(crate) fn hanging_after(self, rows: usize) -> Answer {
        Answer { hangs_after: Some(rows), ..self }
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) database: String,
    pub(crate) query: String,
    pub(crate) options: Value,
}

type Script = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

#[derive(Clone)]
pub(crate) struct FakeKusto {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Rows made so far.
    pub(crate) made: Arc<AtomicUsize>,
    script: Arc<Mutex<Script>>,
    commands: watch::Sender<Vec<String>>,
}

impl FakeKusto {
    pub(crate) async fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> FakeKusto {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = FakeKusto {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
            made: Arc::default(),
            script: Arc::new(Mutex::new(Arc::new(script))),
            commands: watch::Sender::default(),
        };
        let router = Router::new().route("/v2/rest/query", post(answer)).route("/v1/rest/mgmt", post(command)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub(crate) fn answer_with(&self, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn client(&self) -> kusto::Client {
        kusto::Client::builder(&self.url).retry(kusto::RetryPolicy::none()).build().unwrap()
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.commands.borrow().clone()
    }

    /// Waits for a command that starts like this.
    pub(crate) async fn until_commanded(&self, start: &str) -> String {
        let mut commands = self.commands.subscribe();
        let came = commands.wait_for(|commands| commands.iter().any(|command| command.starts_with(start)));
        let came = tokio::time::timeout(std::time::Duration::from_secs(20), came).await.unwrap().unwrap();
        came.iter().find(|command| command.starts_with(start)).unwrap().clone()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// `_startTime` and `_endTime` of every query so far.
    pub(crate) fn windows(&self) -> Vec<(String, String)> {
        let time = |query: &str, name: &str| {
            let rest = query.split_once(&format!("let {name}=datetime(")).unwrap().1;
            rest.split_once(')').unwrap().0.to_owned()
        };
        self.asked().iter().map(|asked| (time(&asked.query, "_startTime"), time(&asked.query, "_endTime"))).collect()
    }
}

/// Takes every command: as an operation that never ends, since no row tells of it.
async fn command(State(fake): State<FakeKusto>, Json(body): Json<Value>) -> Json<Value> {
    let text = body["csl"].as_str().unwrap().to_owned();
    let rows = if text.starts_with('.') && !text.starts_with(".show") { json!([["op-1"]]) } else { json!([]) };
    fake.commands.send_modify(|commands| commands.push(text));
    let columns = json!([{"ColumnName": "OperationId", "ColumnType": "string"}]);
    Json(json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]}))
}

async fn answer(State(fake): State<FakeKusto>, Json(body): Json<Value>) -> Response {
    let asked = Asked {
        database: body["db"].as_str().unwrap().to_owned(),
        query: body["csl"].as_str().unwrap().to_owned(),
        options: body["properties"]["Options"].clone(),
    };
    let script = fake.script.lock().unwrap().clone();
    let answer = script(&asked);
    fake.asked.lock().unwrap().push(asked);
    if answer.silent {
        std::future::pending::<()>().await;
    }
    if let Some((status, body)) = answer.refusal {
        let mut response = (axum::http::StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
        if let Some(seconds) = answer.retry_after {
            response.headers_mut().insert("retry-after", seconds.to_string().parse().unwrap());
        }
        return response;
    }
    let columns: Vec<Value> = answer.columns.iter().map(|(name, ty)| json!({"ColumnName": name, "ColumnType": ty})).collect();
    let start = format!(
        r#"[{{"FrameType":"DataSetHeader","Version":"v2.0"}},{{"FrameType":"DataTable","TableId":1,"TableKind":"PrimaryResult","Columns":{},"Rows":["#,
        Value::from(columns)
    );
    let error = json!([{"error": {"code": "LimitsExceeded", "@message": "memory ran out", "@permanent": false}}]);
    let end = match answer.late {
        true => format!(r#"]}},{{"FrameType":"DataSetCompletion","HasErrors":true,"Cancelled":false,"OneApiErrors":{error}}}]"#),
        false => r#"]},{"FrameType":"DataSetCompletion","HasErrors":false,"Cancelled":false}]"#.to_owned(),
    };
    let (made, rows) = (fake.made.clone(), answer.rows);
    let rows = futures::stream::iter(0..answer.count).then(move |n| {
        let hangs = answer.hangs_after == Some(n);
        let text = format!("{}{}", if n == 0 { "" } else { "," }, rows(n));
        let (made, allowed) = (made.clone(), answer.allowed.clone());
        async move {
            if let Some(mut allowed) = allowed {
                allowed.wait_for(|rows| n < *rows).await.unwrap();
            }
            made.fetch_add(1, Ordering::Relaxed);
            if hangs {
                std::future::pending::<()>().await;
            }
            text
        }
    });
    let text = futures::stream::iter([start]).chain(rows).chain(futures::stream::iter([end]));
    Body::from_stream(text.map(|text| Ok::<_, Infallible>(Bytes::from(text)))).into_response()
}
