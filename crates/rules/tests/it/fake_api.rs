//! An API server that answers as told.

use std::pin::Pin;

use futures::channel::mpsc;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube_client::Client;
use kube_client::client::Body;
use serde_json::{Value, json};
use tower_test::mock::{self, SendResponse};

use crate::support::soon;

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;
type Answer = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>>;
type Handle = mock::Handle<Request<Body>, Response<Answer>>;

pub(crate) struct FakeApi(Pin<Box<Handle>>);

/// A request that waits for its answer.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    answer: SendResponse<Response<Answer>>,
}

/// The open answer to a watch.
pub(crate) struct Watch(Sender);

impl FakeApi {
    pub(crate) fn new() -> (Self, Client) {
        let (service, handle) = mock::pair::<Request<Body>, Response<Answer>>();
        (Self(Box::pin(handle)), Client::new(service, "default"))
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Asked {
        let (request, answer) = soon(self.0.as_mut().next_request()).await.unwrap();
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            content_type: head.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            answer,
        }
    }

    /// Answers a list with these objects and then a watch from its version.
    pub(crate) async fn list_and_watch(&mut self, version: &str, objects: &[Value]) -> Watch {
        let list = self.asked().await;
        assert!(!list.is_watch(), "{}?{}", list.path, list.query);
        list.answer_list(version, objects);
        let watch = self.asked().await;
        assert!(watch.is_watch() && watch.query.contains(&format!("resourceVersion={version}")), "{}", watch.query);
        watch.open()
    }
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.split('&').any(|pair| pair == "watch=true")
    }

    pub(crate) fn answer(self, body: &Value) {
        self.answer_with(StatusCode::OK, body);
    }

    pub(crate) fn answer_list(self, version: &str, objects: &[Value]) {
        self.answer(&json!({
            "apiVersion": "test.adx-mon.azure.com/v1", "kind": "ProbeList",
            "metadata": {"resourceVersion": version}, "items": objects,
        }));
    }

    pub(crate) fn refuse(self, code: u16, message: &str) {
        self.answer_with(StatusCode::from_u16(code).unwrap(), &status(code, message));
    }

    fn answer_with(self, status: StatusCode, body: &Value) {
        let (sender, answer) = mpsc::unbounded();
        sender.unbounded_send(Ok(Frame::data(body.to_string().into_bytes().into()))).unwrap();
        self.answer.send_response(Response::builder().status(status).body(StreamBody::new(answer)).unwrap());
    }

    /// As if nobody listened.
    pub(crate) fn drop_connection(self) {
        self.answer.send_error(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    }

    pub(crate) fn open(self) -> Watch {
        let (events, body) = mpsc::unbounded();
        self.answer.send_response(Response::new(StreamBody::new(body)));
        Watch(events)
    }
}

impl Watch {
    pub(crate) fn send(&self, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.0.unbounded_send(Ok(Frame::data(line.into_bytes().into()))).unwrap();
    }
}

pub(crate) fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "", "code": code})
}

pub(crate) fn probe(name: &str, version: u64, runs: u64) -> Value {
    json!({
        "apiVersion": "test.adx-mon.azure.com/v1", "kind": "Probe",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
                     "generation": 1, "managedFields": [{"manager": "kubectl", "operation": "Update"}]},
        "spec": {"database": "Metrics"}, "status": {"runs": runs},
    })
}
