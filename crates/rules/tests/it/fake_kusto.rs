//! A Kusto that notes what it is told and answers as a test wants.

use std::sync::Arc;

use async_trait::async_trait;
use kusto::{Delivery, Error, Kind};
use parking_lot::Mutex;
use rules::runner::Executor;
use rules::target::{Management, Target};
use serde_json::Value;
use tokio::sync::watch;

type Answer = dyn Fn(&str, &str) -> Result<(), Error> + Send + Sync;

pub(crate) struct FakeKusto {
    said: Mutex<Vec<(String, String)>>,
    answer: Mutex<Box<Answer>>,
    /// What is in the commands that get no answer.
    hangs: watch::Sender<Option<&'static str>>,
}

impl std::fmt::Debug for FakeKusto {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("FakeKusto")
    }
}

impl FakeKusto {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { said: Mutex::default(), answer: Mutex::new(Box::new(|_, _| Ok(()))), hangs: watch::Sender::new(None) })
    }

    /// Answers to a database and a command.
    pub(crate) fn answers(&self, answer: impl Fn(&str, &str) -> Result<(), Error> + Send + Sync + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    /// Whether it takes commands and does not answer them.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs.then_some(""));
    }

    /// Takes commands with that text and does not answer them.
    pub(crate) fn hang_on(&self, text: &'static str) {
        self.hangs.send_replace(Some(text));
    }

    pub(crate) fn target(self: &Arc<Self>, database: &str) -> Target {
        self.target_at(database, "https://c")
    }

    pub(crate) fn target_at(self: &Arc<Self>, database: &str, endpoint: &str) -> Target {
        Target { database: database.to_owned(), endpoint: endpoint.to_owned(), client: self.clone() }
    }

    /// The databases and commands since the last call.
    pub(crate) fn said(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.said.lock())
    }

    /// The commands since the last call.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.said().into_iter().map(|(_, command)| command).collect()
    }
}

#[async_trait]
impl Management for FakeKusto {
    async fn run(&self, database: &str, command: &str) -> Result<(), Error> {
        self.said.lock().push((database.to_owned(), command.to_owned()));
        let _ = self.hangs.subscribe().wait_for(|hangs| !hangs.is_some_and(|text| command.contains(text))).await;
        (self.answer.lock())(database, command)
    }
}

/// The executor of the only endpoint.
pub(crate) fn only(mut executors: Vec<Box<dyn Executor>>) -> Box<dyn Executor> {
    assert_eq!(executors.len(), 1);
    executors.remove(0)
}

pub(crate) fn error(kind: Kind, status: Option<u16>, message: &str) -> Error {
    let message = format!("running a command in DB: {message}");
    Error { kind, delivery: Delivery::Unknown, code: "X".to_owned(), message, position: None, status, retry_after: None }
}

/// The error of a vector, as the client makes it of the service's answer.
pub(crate) fn error_of_vector(text: &str) -> Option<Error> {
    let Ok(body) = serde_json::from_str::<Value>(text) else {
        return match text {
            "" => None,
            "connection reset" => Some(error(Kind::Transient, None, text)),
            _ => Some(error(Kind::Permanent, None, "boom")),
        };
    };
    let body = &body["error"];
    let kind = if body["@permanent"] == true { Kind::Permanent } else { Kind::Transient };
    let status = if body["code"] == "TooManyRequests" { 429 } else { 400 };
    Some(error(kind, Some(status), body["@message"].as_str().unwrap()))
}

/// The cases of a vector file.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/vectors/control/{file}", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    vectors["cases"].as_array().unwrap().clone()
}

/// Labels of a vector.
pub(crate) fn labels(case: &Value) -> crds::criteria::Labels {
    let labels = case["clusterLabels"].as_object().cloned().unwrap_or_default();
    labels.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect()
}

/// The reference's CEL words its errors otherwise: only the class is compared.
pub(crate) fn without_cel(text: &str) -> &str {
    text.split_inclusive("cel typecheck:").next().unwrap_or_default()
}
