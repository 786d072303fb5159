//! Tokens of whoever is logged in to the Azure CLI.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::answer;
use crate::chain::Credential;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::http::shorten;
use crate::token::{Scope, Token};

/// The CLI is a Python program that talks to the directory.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_OUTPUT_BYTES: u64 = 256 << 10;

pub(crate) struct AzureCli(pub(crate) Credentials);

#[async_trait]
impl Credential for AzureCli {
    fn name(&self) -> &'static str {
        "Azure CLI"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let mut command = Command::new("az");
        command.args(["account", "get-access-token", "--output", "json", "--resource", scope.resource()]);
        if let Some(path) = self.0.environment.get("PATH") {
            command.env("PATH", path);
        }
        let run = tokio::time::timeout(PATIENCE, run(command));
        let (status, output, errors) = run
            .await
            .map_err(|_| Error::transient(format!("`az account get-access-token` gave no answer within {PATIENCE:?}")))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::unavailable("there is no program az in PATH; install the Azure CLI and run `az login`")
                }
                _ => Error::unavailable(format!("running az: {error}")),
            })?;
        if !status.success() {
            let errors = String::from_utf8_lossy(&errors);
            let reason = errors.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("without a reason");
            return Err(Error::unavailable(format!("az failed: {}; run `az login`", shorten(reason))));
        }
        answer::read(&output, (self.0.now)())
            .map_err(|why| Error::refused(format!("az account get-access-token: {why}; an Azure CLI before 2.54 must be updated")))
    }
}

async fn run(mut command: Command) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (output, errors) = tokio::try_join!(read(output), read(errors))?;
    Ok((child.wait().await?, output, errors))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
