//! Azure Resource Manager with the provider `Microsoft.Kusto`, built from their public description (repository
//! azure-rest-api-specs: Kusto 2022-12-29, resources 2021-04-01) and not from our client: versions, status codes, headers,
//! asynchronous operations, conditions, errors. It goes by tokio's clock, which tests may stop.
//!
//! It keeps a list of what no client may do: [`ResourceManager::violations`].

mod faults;
mod kusto;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use azure_arm::{Transport, TransportError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

pub use faults::{Fault, Faults};

/// What it answers.
pub type Answer = Response<Bytes>;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Registering a provider.
    pub registration: Duration,
    /// Making or changing a cluster.
    pub cluster: Duration,
    /// Making or changing a database or an assignment.
    pub part: Duration,
    /// What is asked for in `Retry-After` of operations, in seconds.
    pub retry_after: u64,
    /// Whether each operation is told of in a header; else every fourth is not.
    pub tells: bool,
}

impl Default for Pace {
    /// As in Azure.
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self { registration: minutes(1), cluster: minutes(12), part: Duration::from_secs(40), retry_after: 15, tells: false }
    }
}

/// A Resource Manager.
pub struct ResourceManager {
    inner: Mutex<Inner>,
}

impl fmt::Debug for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceManager").finish_non_exhaustive()
    }
}

/// Requests of our client that do not leave the process.
#[async_trait]
impl Transport for ResourceManager {
    async fn send(&self, request: Request<Bytes>) -> Result<Answer, TransportError> {
        self.answer(request).await.ok_or_else(|| TransportError("connection reset by peer".to_owned()))
    }
}

struct Inner {
    pace: Pace,
    /// Own address, for links.
    address: String,
    /// When the provider is registered; none before anybody has asked for it.
    registered: Option<Instant>,
    /// By path in lower case.
    resources: BTreeMap<String, Resource>,
    operations: BTreeMap<u64, Operation>,
    /// Names of clusters that others have.
    taken: BTreeSet<String>,
    refusals: Vec<Refusal>,
    faults: Faults,
    next: VecDeque<Fault>,
    /// Nobody may ask before.
    throttled: Option<Instant>,
    log: Vec<String>,
    violations: Vec<String>,
    serial: u64,
}

struct Refusal {
    method: Option<Method>,
    part: String,
    status: u16,
    code: String,
    message: String,
}

struct Resource {
    body: Value,
    since: Instant,
    pending: Option<Pending>,
}

/// A change under way.
struct Pending {
    until: Instant,
    /// The resource afterwards, or code and message of the failure.
    outcome: Result<Value, (String, String)>,
}

struct Operation {
    resource: String,
    until: Instant,
    failure: Option<(String, String)>,
    is_location: bool,
    /// Nobody may ask before.
    not_before: Instant,
}

impl ResourceManager {
    /// One where there is nothing yet.
    pub fn new(pace: Pace) -> Arc<Self> {
        let inner = Inner {
            pace,
            address: "https://management.azure.com".to_owned(),
            registered: None,
            resources: BTreeMap::new(),
            operations: BTreeMap::new(),
            taken: BTreeSet::new(),
            refusals: Vec::new(),
            faults: Faults::none(),
            next: VecDeque::new(),
            throttled: None,
            log: Vec::new(),
            violations: Vec::new(),
            serial: 0,
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Serves it over HTTP on this machine; its address.
    pub async fn serve(self: &Arc<Self>) -> String {
        let router = Router::new().fallback(answer).with_state(Arc::clone(self));
        server::install_crypto();
        let address = format!("http://127.0.0.1:{}", crate::listen(router, None).await);
        self.inner.lock().address.clone_from(&address);
        address
    }

    /// Carries out a request; none if the answer is lost.
    pub async fn answer(&self, request: Request<Bytes>) -> Option<Answer> {
        let decided = self.inner.lock().decide(&request);
        match decided {
            faults::Fate::Answer(answer) => Some(answer),
            faults::Fate::Lost => None,
            faults::Fate::Silence => std::future::pending().await,
        }
    }

    /// Failures from now on.
    pub fn inject(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// What happens to the next request.
    pub fn next(&self, fault: Fault) {
        self.inner.lock().next.push_back(fault);
    }

    /// Requests whose path has this part, of a method or of any, are refused from now on.
    pub fn refuse(&self, method: Option<Method>, part: &str, status: u16, code: &str, message: &str) {
        let (part, code, message) = (part.to_ascii_lowercase(), code.to_owned(), message.to_owned());
        self.inner.lock().refusals.push(Refusal { method, part, status, code, message });
    }

    /// Nothing is refused any more.
    pub fn refuse_nothing(&self) {
        self.inner.lock().refusals.clear();
    }

    /// Somebody else has a cluster of this name.
    pub fn take_name(&self, name: &str) {
        self.inner.lock().taken.insert(name.to_ascii_lowercase());
    }

    /// The client is a new one, which knows nothing of pauses that were asked for.
    pub fn forget_pauses(&self) {
        let mut inner = self.inner.lock();
        inner.throttled = None;
        inner.operations.values_mut().for_each(|operation| operation.not_before = Instant::now());
    }

    /// The provider is registered already.
    pub fn register(&self) {
        self.inner.lock().registered = Some(Instant::now());
    }

    /// Somebody makes or replaces a resource by hand.
    pub fn put(&self, path: &str, body: Value) {
        self.inner.lock().resources.insert(path.to_ascii_lowercase(), Resource { body, since: Instant::now(), pending: None });
    }

    /// Somebody deletes a resource by hand, with all that is in it.
    pub fn remove(&self, path: &str) {
        let path = path.to_ascii_lowercase();
        let below = format!("{path}/");
        self.inner.lock().resources.retain(|key, _| *key != path && !key.starts_with(&below));
    }

    /// Somebody changes a resource by hand.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut inner = self.inner.lock();
        inner.settle();
        change(&mut inner.resources.get_mut(&path.to_ascii_lowercase()).unwrap().body);
        let etag = inner.etag();
        let resource = inner.resources.get_mut(&path.to_ascii_lowercase()).unwrap();
        resource.body["etag"] = etag.into();
    }

    /// A resource as it is now.
    pub fn get(&self, path: &str) -> Option<Value> {
        let mut inner = self.inner.lock();
        inner.settle();
        inner.resources.get(&path.to_ascii_lowercase()).map(|resource| resource.body.clone())
    }

    /// Paths of all resources, in lower case.
    pub fn paths(&self) -> Vec<String> {
        self.inner.lock().resources.keys().cloned().collect()
    }

    /// Method, path and status of the requests so far, which are forgotten.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().log)
    }

    /// What no client may do, and this one did.
    pub fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }
}

async fn answer(
    State(manager): State<Arc<ResourceManager>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    match manager.answer(request).await {
        Some(answer) => answer.map(axum::body::Body::from),
        None => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Inner {
    /// Common to all requests: versions, tokens, refusals, faults.
    fn decide(&mut self, request: &Request<Bytes>) -> faults::Fate {
        self.settle();
        let (method, path) = (request.method().clone(), request.uri().path().to_ascii_lowercase());
        let fault = self.next.pop_front().unwrap_or_else(|| self.faults.draw(&method, &path));
        self.look_for_violations(request, &path);
        let (answer, fate) = match fault.before() {
            Some(answer) => (answer, None),
            None if fault == Fault::LostBefore => return faults::Fate::Lost,
            None if fault == Fault::SilenceBefore => return faults::Fate::Silence,
            None => (self.admit(request, &path).unwrap_or_else(|| self.carry_out(request, &path, &fault)), fault.after()),
        };
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            self.throttled = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        }
        self.log.push(format!("{method} {} {}", request.uri().path(), answer.status().as_u16()));
        fate.unwrap_or(faults::Fate::Answer(answer))
    }

    fn look_for_violations(&mut self, request: &Request<Bytes>, path: &str) {
        let now = Instant::now();
        if request.method() == Method::DELETE {
            self.violations.push(format!("DELETE {path}"));
        }
        if self.throttled.is_some_and(|until| now < until) {
            self.violations.push(format!("{} {path}, though asked to wait", request.method()));
        }
    }

    /// The answer to a request that may not enter.
    fn admit(&self, request: &Request<Bytes>, path: &str) -> Option<Answer> {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !token.starts_with("Bearer ") || token == "Bearer EXPIRED" {
            return Some(error(401, "ExpiredAuthenticationToken", "The access token is missing, expired or not yet valid."));
        }
        let query = request.uri().query().unwrap_or_default();
        let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
        let is_kusto = path.contains("/microsoft.kusto/") && !path.ends_with("/register");
        let wanted = if is_kusto { "2022-12-29" } else { "2021-04-01" };
        match version {
            None => {
                return Some(error(
                    400,
                    "MissingApiVersionParameter",
                    "The api-version query parameter (?api-version=) is required for all requests.",
                ));
            }
            Some(version) if version != wanted => {
                return Some(error(400, "InvalidApiVersionParameter", &format!("The api-version '{version}' is invalid.")));
            }
            Some(_) => {}
        }
        let fits =
            |refusal: &&Refusal| refusal.method.as_ref().is_none_or(|method| method == request.method()) && path.contains(&refusal.part);
        let refusal = self.refusals.iter().find(fits)?;
        Some(error(refusal.status, &refusal.code, &refusal.message))
    }

    fn carry_out(&mut self, request: &Request<Bytes>, path: &str, fault: &Fault) -> Answer {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let method = request.method().as_str();
        match (method, segments.as_slice()) {
            ("GET", ["subscriptions", _, "providers", "microsoft.kusto"]) => self.provider(),
            ("POST", ["subscriptions", _, "providers", "microsoft.kusto", "register"]) => {
                let ready = Instant::now() + self.pace.registration;
                self.registered.get_or_insert(ready);
                self.provider()
            }
            ("HEAD", ["subscriptions", _, "resourcegroups", _]) => {
                // Without a body, as HEAD has it.
                let status = if self.resources.contains_key(path) { 204 } else { 404 };
                empty(status)
            }
            ("PUT", ["subscriptions", _, "resourcegroups", _]) => self.put_group(path, request),
            (_, ["subscriptions", _, "providers", "microsoft.kusto", "locations", _, "operationresults", id]) => self.progress(id),
            (_, [_, _, _, _, "providers", "microsoft.kusto", ..]) | (_, ["subscriptions", _, "providers", "microsoft.kusto", ..]) => {
                self.kusto(request, path, fault)
            }
            _ => error(404, "InvalidResourceType", &format!("{method} {path} is not described")),
        }
    }

    fn provider(&self) -> Answer {
        let state = match self.registered {
            None => "NotRegistered",
            Some(ready) if Instant::now() < ready => "Registering",
            Some(_) => "Registered",
        };
        answer_with(200, json!({"namespace": "Microsoft.Kusto", "registrationState": state, "resourceTypes": []}))
    }

    fn put_group(&mut self, path: &str, request: &Request<Bytes>) -> Answer {
        let Some(location) = body(request)["location"].as_str().map(str::to_owned) else {
            return error(400, "LocationRequired", "The location property is required for this definition.");
        };
        if let Some(group) = self.resources.get(path) {
            let same = group.body["location"] == location.as_str();
            if !same {
                return error(409, "InvalidResourceGroupLocation", "The resource group already exists in another location.");
            }
            return answer_with(200, group.body.clone());
        }
        let body = json!({"id": path, "location": location, "properties": {"provisioningState": "Succeeded"}});
        self.resources.insert(path.to_owned(), Resource { body: body.clone(), since: Instant::now(), pending: None });
        answer_with(201, body)
    }

    /// `OperationStatus`, or for a location the status code alone.
    fn progress(&mut self, id: &str) -> Answer {
        let now = Instant::now();
        let pause = self.pace.retry_after;
        let Some(operation) = id.parse().ok().and_then(|id: u64| self.operations.get_mut(&id)) else {
            return error(404, "OperationNotFound", "The operation was not found.");
        };
        if now < operation.not_before {
            self.violations.push(format!("operation {id} is asked for before Retry-After"));
        }
        operation.not_before = now + Duration::from_secs(pause);
        let (is_over, failure) = (now >= operation.until, operation.failure.clone());
        let status = match (is_over, &failure) {
            (false, _) => "InProgress",
            (true, None) => "Succeeded",
            (true, Some(_)) => "Failed",
        };
        let mut response = match (operation.is_location, is_over) {
            (true, false) => empty(202),
            (true, true) => empty(200),
            (false, _) => {
                let mut body = json!({"name": id, "status": status, "resourceId": operation.resource});
                if let Some((code, message)) = failure.filter(|_| is_over) {
                    body["error"] = json!({"code": code, "message": message});
                }
                answer_with(200, body)
            }
        };
        response.headers_mut().insert("retry-after", pause.into());
        response
    }

    /// Changes whose time has come are carried out.
    fn settle(&mut self) {
        let now = Instant::now();
        let mut serial = self.serial;
        for resource in self.resources.values_mut() {
            let Some(pending) = resource.pending.take_if(|pending| now >= pending.until) else { continue };
            match pending.outcome {
                Ok(after) => resource.body = after,
                Err(_) => resource.body["properties"]["provisioningState"] = "Failed".into(),
            }
            serial += 1;
            resource.body["etag"] = format!("\"{serial}\"").into();
        }
        self.serial = serial;
    }

    fn etag(&mut self) -> String {
        self.serial += 1;
        format!("\"{}\"", self.serial)
    }
}

fn body(request: &Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap_or_default()
}

fn empty(status: u16) -> Answer {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn answer_with(status: u16, body: Value) -> Answer {
    let mut response = empty(status);
    *response.body_mut() = body.to_string().into();
    response.headers_mut().insert("content-type", "application/json; charset=utf-8".parse().unwrap());
    response
}

/// `CloudError`.
fn error(status: u16, code: &str, message: &str) -> Answer {
    let mut response = answer_with(status, json!({"error": {"code": code, "message": message}}));
    response.headers_mut().insert("x-ms-request-id", "00000000-0000-0000-0000-000000000001".parse().unwrap());
    response
}
