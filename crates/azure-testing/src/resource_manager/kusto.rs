//! The provider `Microsoft.Kusto`.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Answer, Fault, Inner, Operation, Pending, Resource, answer_with, body, error};

/// How long something is new: a stale answer has nothing younger.
const NEW: Duration = Duration::from_secs(120);

impl Inner {
    pub(super) fn kusto(&mut self, request: &Request<Bytes>, path: &str, fault: &Fault) -> Answer {
        let stale = *fault == Fault::Stale;
        let failure = match fault {
            Fault::OperationFails(code, message) => Some(((*code).to_owned(), (*message).to_owned())),
            _ => None,
        };
        let (body, headers) = (body(request), request.headers());
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let below = segments.get(6..).unwrap_or_default();
        match (request.method().as_str(), below) {
            ("POST", _) if segments[2] == "providers" => self.check_cluster_name(&body),
            ("POST", ["clusters", _, "checknameavailability"]) => self.check_database_name(path, &body),
            ("GET", ["clusters", _]) | ("GET", ["clusters", _, "databases", _]) => self.read(path, stale),
            ("PUT", ["clusters", _]) => self.put_cluster(path, name, headers, body, failure),
            ("PATCH", ["clusters", _]) => self.patch(path, headers, &body, failure),
            ("GET", ["clusters", .., "databases" | "principalassignments"]) => self.list(path, stale),
            ("PUT", ["clusters", _, "databases", _]) => self.put_database(path, name, body, failure),
            ("PATCH", ["clusters", _, "databases", _]) => self.patch(path, headers, &body, failure),
            ("PUT", ["clusters", .., "principalassignments", _]) => self.put_assignment(path, name, body, failure),
            (method, _) => error(405, "MethodNotAllowed", &format!("{method} {path} is not described")),
        }
    }

    fn check_cluster_name(&self, body: &Value) -> Answer {
        let name = body["name"].as_str().unwrap_or_default();
        if body["type"] != "Microsoft.Kusto/clusters" {
            return error(400, "BadRequest", "The type is not known.");
        }
        // Lower-case letters and digits, 4 to 22, a letter first.
        let is_valid = (4..=22).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let end = format!("/clusters/{name}");
        let is_taken = self.taken.contains(name) || self.resources.keys().any(|path| path.ends_with(&end));
        name_answer(name, is_valid, is_taken)
    }

    fn check_database_name(&self, path: &str, body: &Value) -> Answer {
        let name = body["name"].as_str().unwrap_or_default();
        let cluster = path.trim_end_matches("/checknameavailability");
        if body["type"] != "Microsoft.Kusto/clusters/databases" {
            return error(400, "BadRequest", "The type is not known.");
        }
        if !self.resources.contains_key(cluster) {
            return not_found(cluster);
        }
        let is_taken = self.resources.contains_key(&format!("{cluster}/databases/{}", name.to_ascii_lowercase()));
        name_answer(name, !name.is_empty() && name.len() <= 260, is_taken)
    }

    fn read(&self, path: &str, stale: bool) -> Answer {
        match self.resources.get(path).filter(|resource| !stale || resource.since.elapsed() > NEW) {
            Some(resource) => answer_with(200, resource.body.clone()),
            None => not_found(path),
        }
    }

    fn list(&self, path: &str, stale: bool) -> Answer {
        let owner = path.rsplit_once('/').unwrap().0;
        if !self.resources.contains_key(owner) {
            return not_found(owner);
        }
        let prefix = format!("{path}/");
        let below = self.resources.iter().filter(|(key, _)| key.strip_prefix(&prefix).is_some_and(|name| !name.contains('/')));
        let seen = below.filter(|(_, resource)| !stale || resource.since.elapsed() > NEW);
        answer_with(200, json!({"value": seen.map(|(_, resource)| resource.body.clone()).collect::<Vec<_>>()}))
    }

    fn put_cluster(&mut self, path: &str, name: &str, headers: &HeaderMap, body: Value, failure: Option<(String, String)>) -> Answer {
        let group = path.split("/providers/").next().unwrap();
        if !self.resources.contains_key(group) {
            return error(404, "ResourceGroupNotFound", "Resource group could not be found.");
        }
        if self.registered.is_none_or(|ready| Instant::now() < ready) {
            let message = "The subscription is not registered to use namespace 'Microsoft.Kusto'.";
            return error(409, "MissingSubscriptionRegistration", message);
        }
        let tier = body["sku"]["tier"].as_str().unwrap_or_default();
        if !body["location"].is_string() || !body["sku"]["name"].is_string() || !["Basic", "Standard"].contains(&tier) {
            return error(400, "BadRequest", "Location and sku with name and tier are required.");
        }
        if let Some(refusal) = self.condition(path, headers) {
            return refusal;
        }
        if self.taken.contains(&name.to_ascii_lowercase()) {
            return error(400, "ClusterNameNotAvailable", &format!("Name '{name}' is already taken."));
        }
        let location = body["location"].as_str().unwrap().to_owned();
        let mut after = json!({"id": path, "name": name, "type": "Microsoft.Kusto/Clusters", "tags": body["tags"], "location": location});
        after["sku"] = body["sku"].clone();
        after["identity"] = json!({"type": "None"});
        after["properties"] =
            json!({"state": "Running", "uri": format!("https://{name}.{location}.kusto.windows.net"), "engineType": "V3"});
        merge(&mut after["identity"], &body["identity"]);
        merge(&mut after["properties"], &body["properties"]);
        self.make(path, after, "Creating", self.pace.cluster, failure)
    }

    fn put_database(&mut self, path: &str, name: &str, body: Value, failure: Option<(String, String)>) -> Answer {
        if let Some(refusal) = self.is_not_running(path) {
            return refusal;
        }
        if body["kind"] != "ReadWrite" || !body["location"].is_string() {
            return error(400, "BadRequest", "Kind and location are required.");
        }
        let cluster = path.split("/databases/").next().unwrap();
        let full = format!("{}/{name}", cluster.rsplit('/').next().unwrap());
        let mut after = json!({"id": path, "name": full, "kind": "ReadWrite", "location": body["location"], "properties": {}});
        merge(&mut after["properties"], &body["properties"]);
        self.make(path, after, "Creating", self.pace.part, failure)
    }

    fn put_assignment(&mut self, path: &str, name: &str, body: Value, failure: Option<(String, String)>) -> Answer {
        if let Some(refusal) = self.is_not_running(path) {
            return refusal;
        }
        let database = path.contains("/databases/");
        let owner = path.split("/principalassignments/").next().unwrap();
        if !self.resources.contains_key(owner) {
            return not_found(owner);
        }
        let roles: &[&str] = match database {
            true => &["Admin", "Ingestor", "Monitor", "User", "UnrestrictedViewer", "Viewer"],
            false => &["AllDatabasesAdmin", "AllDatabasesViewer"],
        };
        let properties = &body["properties"];
        let (role, kind) = (properties["role"].as_str().unwrap_or_default(), properties["principalType"].as_str().unwrap_or_default());
        if !roles.contains(&role) || !["App", "Group", "User"].contains(&kind) || !properties["principalId"].is_string() {
            return error(400, "BadRequest", "principalId, principalType and a role of the resource are required.");
        }
        let prefix = format!("{owner}/principalassignments/");
        let same = |(key, resource): (&String, &Resource)| {
            let other = &resource.body["properties"];
            key != path
                && key.starts_with(&prefix)
                && other["principalId"] == properties["principalId"]
                && other["role"] == properties["role"]
        };
        if self.resources.iter().any(same) {
            return error(409, "PrincipalAssignmentAlreadyExists", "The principal has this role by another assignment.");
        }
        let mut after = json!({"id": path, "name": name, "properties": properties});
        after["properties"]["aadObjectId"] = "98765432-1234-1234-1234-123456789123".into();
        if self.resources.get(path).is_some_and(|resource| resource.body["properties"]["provisioningState"] != "Failed") {
            // Asking for the same again changes nothing.
            return answer_with(200, self.resources[path].body.clone());
        }
        self.make(path, after, "Creating", self.pace.part, failure)
    }

    /// Makes a resource, or makes one again that failed.
    fn make(&mut self, path: &str, mut after: Value, word: &str, takes: Duration, failure: Option<(String, String)>) -> Answer {
        let state = |resource: &Resource| resource.body["properties"]["provisioningState"].as_str().unwrap_or_default().to_owned();
        match self.resources.get(path).map(state).as_deref() {
            None | Some("Failed") => {}
            Some(state) => self.violations.push(format!("{path} is made again, though it is {state}")),
        }
        let etag = self.etag();
        let mut now = after.clone();
        now["etag"] = etag.into();
        now["properties"]["provisioningState"] = word.into();
        if now["properties"]["state"].is_string() {
            now["properties"]["state"] = word.into();
            now["properties"].as_object_mut().unwrap().remove("uri");
        }
        after["properties"]["provisioningState"] = "Succeeded".into();
        let status = if self.resources.contains_key(path) { 200 } else { 201 };
        let until = Instant::now() + takes;
        let pending = Pending { until, outcome: failure.clone().map_or(Ok(after), Err) };
        self.resources.insert(path.to_owned(), Resource { body: now.clone(), since: Instant::now(), pending: Some(pending) });
        self.accepted(path, status, now, until, failure)
    }

    fn patch(&mut self, path: &str, headers: &HeaderMap, body: &Value, failure: Option<(String, String)>) -> Answer {
        if let Some(refusal) = self.condition(path, headers) {
            return refusal;
        }
        let takes = if path.contains("/databases/") { self.pace.part } else { self.pace.cluster };
        let until = Instant::now() + takes;
        let etag = self.etag();
        let Some(resource) = self.resources.get_mut(path) else { return not_found(path) };
        let mut after = resource.body.clone();
        merge(&mut after, body);
        if after["identity"]["type"] == "None" || after["identity"]["type"] == "SystemAssigned" {
            after["identity"].as_object_mut().unwrap().remove("userAssignedIdentities");
        }
        after["properties"]["provisioningState"] = "Succeeded".into();
        resource.body["etag"] = etag.into();
        resource.body["properties"]["provisioningState"] = "Running".into();
        resource.pending = Some(Pending { until, outcome: failure.clone().map_or(Ok(after), Err) });
        let now = resource.body.clone();
        self.accepted(path, 202, now, until, failure)
    }

    /// `If-Match`, `If-None-Match`, and that nothing is under way.
    fn condition(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let changed = |why: &str| Some(error(412, "PreconditionFailed", why));
        let resource = self.resources.get(path);
        if header("if-none-match") == Some("*") && resource.is_some() {
            return changed("The resource exists.");
        }
        if header("if-match").is_some_and(|etag| resource.is_none_or(|resource| resource.body["etag"] != etag)) {
            return changed("The resource has changed.");
        }
        let busy = resource.is_some_and(|resource| resource.pending.is_some());
        busy.then(|| error(409, "OperationInProgress", "Another operation is in progress on the resource."))
    }

    fn is_not_running(&self, path: &str) -> Option<Answer> {
        let end = path.split("/clusters/").nth(1)?.find('/')? + path.find("/clusters/")? + "/clusters/".len();
        let Some(cluster) = self.resources.get(&path[..end]) else { return Some(not_found(&path[..end])) };
        let busy = cluster.pending.is_some() || cluster.body["properties"]["state"] != "Running";
        busy.then(|| error(409, "ClusterNotRunning", "The cluster is not running, or another operation is in progress on it."))
    }

    /// With the operation in `Azure-AsyncOperation`, in `Location`, or nowhere.
    fn accepted(&mut self, path: &str, status: u16, body: Value, until: Instant, failure: Option<(String, String)>) -> Answer {
        self.serial += 1;
        let (id, pause) = (self.serial, self.pace.retry_after);
        let subscription = path.split('/').nth(2).unwrap();
        let address = &self.address;
        let url = format!(
            "{address}/subscriptions/{subscription}/providers/Microsoft.Kusto/locations/westus/operationresults/{id}?api-version=2022-12-29"
        );
        let is_location = id % 4 == 3;
        let not_before = Instant::now() + Duration::from_secs(pause);
        self.operations.insert(id, Operation { resource: path.to_owned(), until, failure, is_location, not_before });
        let mut answer = answer_with(status, body);
        if id % 4 != 2 || self.pace.tells {
            let name = if is_location { "location" } else { "azure-asyncoperation" };
            answer.headers_mut().insert(name, url.parse().unwrap());
            answer.headers_mut().insert("retry-after", pause.into());
        }
        answer
    }
}

fn not_found(path: &str) -> Answer {
    error(404, "ResourceNotFound", &format!("The Resource '{path}' was not found."))
}

/// `CheckNameResult`.
fn name_answer(name: &str, is_valid: bool, is_taken: bool) -> Answer {
    let (reason, message) = match (is_valid, is_taken) {
        (false, _) => ("Invalid", format!("Name '{name}' is not valid.")),
        (_, true) => ("AlreadyExists", format!("Name '{name}' is already taken. Please specify a different name")),
        (true, false) => return answer_with(200, json!({"name": name, "nameAvailable": true, "message": ""})),
    };
    answer_with(200, json!({"name": name, "nameAvailable": false, "reason": reason, "message": message}))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        if !patch.is_null() {
            target.clone_from(patch);
        }
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(&mut target[name], value),
        }
    }
}
