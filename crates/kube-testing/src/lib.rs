//! A real etcd and kube-apiserver on loopback, for tests.
//!
//! [`ApiServer::start`] takes about seven seconds and 300 MiB. There are no controllers: nobody makes pods of Deployments or
//! collects what is owned by what is gone. Both processes end when the [`ApiServer`] is dropped.
//!
//! The programs are found as `cargo xtask setup` leaves them, or where `ADXMON_KUBE_APISERVER` and `ADXMON_ETCD` say; any
//! version from 1.20 on will do.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube_client::api::{Api, DynamicObject, ListParams, PostParams};
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::core::{ApiResource, GroupVersionKind};
use kube_client::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

mod certificates;
mod link;

use certificates::Certificates;
pub use link::{Link, Way};

/// The user that may do everything.
const ADMIN: &str = "admin";
/// How long the server may take to be ready; usually seven seconds.
const START: Duration = Duration::from_secs(120);
/// A free port may be taken before the server binds it.
const TRIES: usize = 3;

/// A running API server.
pub struct ApiServer {
    folder: TempDir,
    programs: Programs,
    port: u16,
    etcd_port: u16,
    etcd: Process,
    server: Process,
}

#[derive(Clone)]
struct Programs {
    etcd: PathBuf,
    server: PathBuf,
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// [`ApiServer::start`], or none with a line that says why where the programs are missing. With `CI=true` that is a failure.
///
/// # Panics
/// When the server does not start, and in CI when it is missing.
pub async fn start(users: &[&str]) -> Option<ApiServer> {
    match programs() {
        Ok(programs) => match ApiServer::start(&programs, users).await {
            Ok(server) => Some(server),
            Err(error) => panic!("{error:?}"),
        },
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{error:?}"),
        Err(error) => {
            eprintln!("not run: {error:#}");
            None
        }
    }
}

fn programs() -> Result<Programs> {
    let server = match std::env::var_os("ADXMON_KUBE_APISERVER") {
        Some(path) => path.into(),
        None => cache().join("adx-mon/kube/bin/kube-apiserver"),
    };
    let etcd = std::env::var_os("ADXMON_ETCD").map_or_else(|| PathBuf::from("/usr/bin/etcd"), PathBuf::from);
    for path in [&server, &etcd] {
        ensure!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    }
    Ok(Programs { etcd, server })
}

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

impl ApiServer {
    /// Starts both programs. Beside the admin there are these users, who may do nothing before [`Self::grant`].
    async fn start(programs: &Programs, users: &[&str]) -> Result<Self> {
        let mut tries = 1;
        loop {
            match Self::try_start(programs, users).await {
                Err(error) if tries < TRIES => eprintln!("starting an API server again: {error:#}"),
                result => return result,
            }
            tries += 1;
        }
    }

    async fn try_start(programs: &Programs, users: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let (port, etcd_port, peer_port) = (free_port()?, free_port()?, free_port()?);
        let path = |name: &str| folder.path().join(name);
        let certificates = Certificates::new()?;
        fs::write(path("ca.crt"), &certificates.ca)?;
        fs::write(path("tls.crt"), &certificates.server)?;
        fs::write(path("tls.key"), &certificates.server_key)?;
        fs::write(path("sa.key"), &certificates.tokens_key)?;
        fs::write(path("sa.pub"), &certificates.tokens_public)?;
        let mut tokens = String::new();
        for (id, user) in std::iter::once(&ADMIN).chain(users).enumerate() {
            let token = certificates::secret();
            let group = if id == 0 { ",\"system:masters\"" } else { "" };
            tokens.push_str(&format!("{token},{user},{id}{group}\n"));
            let kubeconfig = kubeconfig(port, &certificates.ca, "default", user, &token);
            fs::write(path(&format!("{user}.kubeconfig")), kubeconfig.to_string())?;
        }
        fs::write(path("tokens.csv"), tokens)?;
        let etcd = start_etcd(programs, folder.path(), etcd_port, peer_port)?;
        let server = start_server(programs, folder.path(), port, etcd_port)?;
        let mut this = Self { folder, programs: programs.clone(), port, etcd_port, etcd, server };
        this.wait_until_ready().await?;
        Ok(this)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client(ADMIN).await?;
        let deadline = Instant::now() + START;
        loop {
            for (name, process) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.server)] {
                if let Some(status) = process.0.try_wait()? {
                    bail!("{name} ended with {status}:\n{}", tail(&self.folder.path().join(format!("{name}.log"))));
                }
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let ready = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
            let default = Api::<Namespace>::all(client.clone());
            if matches!(ready, Ok(Ok(text)) if text == "ok") && default.get_opt("default").await.is_ok_and(|found| found.is_some()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("kube-apiserver was not ready in {} s:\n{}", START.as_secs(), tail(&self.folder.path().join("kube-apiserver.log")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    /// A client that may do everything.
    pub async fn admin(&self) -> Client {
        self.user(ADMIN).await
    }

    /// A client of one of the users.
    ///
    /// # Panics
    /// When there is no such user.
    pub async fn user(&self, name: &str) -> Client {
        match self.client(name).await {
            Ok(client) => client,
            Err(error) => panic!("client of {name}: {error:?}"),
        }
    }

    async fn client(&self, user: &str) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Lets a user do this in all namespaces.
    pub async fn grant(&self, user: &str, rules: Vec<PolicyRule>) -> Result<()> {
        let client = self.admin().await;
        let role = ClusterRole { metadata: named(user), rules: Some(rules), ..ClusterRole::default() };
        Api::all(client.clone()).create(&PostParams::default(), &role).await.context("creating the role")?;
        let group = "rbac.authorization.k8s.io".to_owned();
        let subject = Subject { api_group: Some(group.clone()), kind: "User".to_owned(), name: user.to_owned(), namespace: None };
        let role_ref = RoleRef { api_group: group, kind: "ClusterRole".to_owned(), name: user.to_owned() };
        let binding = ClusterRoleBinding { metadata: named(user), role_ref, subjects: Some(vec![subject]) };
        Api::all(client).create(&PostParams::default(), &binding).await.context("binding the role")?;
        Ok(())
    }

    /// Creates the objects of YAML documents. Those that name no namespace are the cluster's.
    pub async fn create(&self, yaml: &str) -> Result<()> {
        let client = self.admin().await;
        for document in serde_saphyr::from_multiple::<Value>(yaml)? {
            let object: DynamicObject = serde_json::from_value(document)?;
            let types = object.types.as_ref().context("a document without kind")?;
            let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let created = api.create(&PostParams::default(), &object).await;
            created.with_context(|| format!("creating {} {}", resource.kind, object.name_any()))?;
        }
        Ok(())
    }

    /// A kubeconfig with a token of a service account, in whose namespace one is by default, as in a pod.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin().await, namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("asking for a token of {namespace}/{name}"))?;
        let token = answer.status.context("an answer without a token")?.token;
        let ca = fs::read_to_string(self.folder.path().join("ca.crt"))?;
        let path = self.folder.path().join(format!("{namespace}.{name}.kubeconfig"));
        fs::write(&path, kubeconfig(self.port, &ca, namespace, name, &token).to_string())?;
        Ok(path)
    }

    /// Creates CRDs and waits until their objects can be listed. Validation rules in CEL are taken out where the server
    /// does not have them (before 1.25). A server of that age, built with a new Go, takes an empty string for null, so that
    /// messages of conditions, the only strings that we write empty, are made nullable.
    pub async fn install(&self, crds: Vec<CustomResourceDefinition>) -> Result<()> {
        let client = self.admin().await;
        let version = client.apiserver_version().await?;
        let minor: u32 = version.minor.trim_end_matches('+').parse().context("version of the API server")?;
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in &crds {
            let mut document = serde_json::to_value(crd)?;
            if minor < 25 {
                strip(&mut document, "x-kubernetes-validations");
                allow_null(&mut document, "message");
            }
            let crd: CustomResourceDefinition = serde_json::from_value(document)?;
            api.create(&PostParams::default(), &crd).await.with_context(|| format!("creating {}", crd.name_any()))?;
        }
        for crd in &crds {
            let kind = GroupVersionKind::gvk(&crd.spec.group, &crd.spec.versions[0].name, &crd.spec.names.kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural);
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let deadline = Instant::now() + START;
            // 404 before it is established, 429 right after.
            while let Err(error) = objects.list(&ListParams::default().limit(1)).await {
                ensure!(Instant::now() < deadline, "{} cannot be listed: {error}", crd.name_any());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Creates all of ADX-Mon's CRDs.
    pub async fn install_crds(&self) -> Result<()> {
        self.install(crds::all()).await
    }

    /// A way to the server that can be cut.
    pub async fn link(&self) -> Result<Link> {
        Link::new(self.port).await
    }

    /// Ends the API server at once; its data stay.
    pub fn stop(&mut self) {
        let _ = self.server.0.kill();
        let _ = self.server.0.wait();
    }

    /// Starts it again, on the same port and data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        self.server = start_server(&self.programs, self.folder.path(), self.port, self.etcd_port)?;
        self.wait_until_ready().await
    }
}

fn named(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

fn kubeconfig(port: u16, ca: &str, namespace: &str, user: &str, token: &str) -> Value {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let server = format!("https://127.0.0.1:{port}");
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
    })
}

fn start_etcd(programs: &Programs, folder: &Path, port: u16, peer_port: u16) -> Result<Process> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(&programs.etcd);
    command.arg("--data-dir").arg(folder.join("etcd")).args(["--name", "t", "--unsafe-no-fsync"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("t={peer}")]);
    spawn(command, &folder.join("etcd.log"))
}

fn start_server(programs: &Programs, folder: &Path, port: u16, etcd_port: u16) -> Result<Process> {
    let mut command = Command::new(&programs.server);
    command.arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}")).arg(format!("--secure-port={port}"));
    let files = [
        ("tls-cert-file", "tls.crt"),
        ("tls-private-key-file", "tls.key"),
        ("cert-dir", "certs"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("token-auth-file", "tokens.csv"),
    ];
    for (flag, name) in files {
        command.arg(format!("--{flag}={}", folder.join(name).display()));
    }
    command.args([
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",
    ]);
    spawn(command, &folder.join("kube-apiserver.log"))
}

fn spawn(mut command: Command, log: &Path) -> Result<Process> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let program = command.get_program().to_owned();
    Ok(Process(command.spawn().with_context(|| format!("starting {}", program.display()))?))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Makes the properties of that name nullable, wherever they are.
fn allow_null(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(property)) = fields.get_mut("properties").and_then(|properties| properties.get_mut(name)) {
                property.insert("nullable".to_owned(), true.into());
            }
            fields.values_mut().for_each(|value| allow_null(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| allow_null(item, name)),
        _ => {}
    }
}

/// Takes a field out of a document, wherever it is.
fn strip(document: &mut Value, field: &str) {
    match document {
        Value::Object(fields) => {
            fields.remove(field);
            fields.values_mut().for_each(|value| strip(value, field));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip(item, field)),
        _ => {}
    }
}
