//! What takes longer than a request, as Azure describes it in "Track asynchronous Azure operations".

use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use crate::client::{Answer, Arm, Request, read};
use crate::error::{Error, ErrorBody, retry_after};

/// Between questions, where Azure does not say how long.
const PAUSE: Duration = Duration::from_secs(30);

/// A long-running operation that Azure has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    doing: String,
    url: Url,
    how: How,
    /// How long to wait before it is asked for.
    pub retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By the `status` in the answer.
    Status,
    /// By the status code: 202 until it is over.
    Location,
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way; to be asked for again after this.
    Running(Duration),
    /// It has done what it was to do.
    Succeeded,
    /// It has not.
    Failed(Error),
}

/// `OperationStatus`. A status that is not known is one under way.
#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    error: Option<ErrorBody>,
}

impl Operation {
    /// What it is about.
    #[must_use]
    pub fn doing(&self) -> &str {
        &self.doing
    }
}

impl Arm {
    /// How far an operation is.
    ///
    /// # Errors
    /// It cannot be told; [`crate::Kind::NotFound`] if Azure does not know of it any more.
    pub async fn progress(&self, operation: &Operation) -> Result<Progress, Error> {
        let doing = operation.doing.clone();
        let answer = self.send(Request { doing, method: Method::GET, url: operation.url.clone(), condition: None, body: None }).await?;
        let again = retry_after(answer.headers()).unwrap_or(PAUSE);
        if operation.how == How::Location {
            return Ok(if answer.status() == StatusCode::ACCEPTED { Progress::Running(again) } else { Progress::Succeeded });
        }
        let status: Status = read(&operation.doing, &answer)?;
        Ok(match status.status.to_ascii_lowercase().as_str() {
            "succeeded" => Progress::Succeeded,
            "failed" | "canceled" => {
                let error = Error::of_operation(&operation.doing, status.error.unwrap_or_default());
                let message = if error.message.is_empty() { format!("the operation ended as {}", status.status) } else { error.message };
                Progress::Failed(Error { message, ..error })
            }
            _ => Progress::Running(again),
        })
    }

    /// The operation that an answer tells of. One elsewhere is not followed: the state of the resource tells of it too.
    pub(crate) fn operation(&self, doing: &str, answer: &Answer) -> Option<Operation> {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let (address, how) = match (header("azure-asyncoperation"), header("location")) {
            (Some(address), _) => (address, How::Status),
            (None, Some(address)) => (address, How::Location),
            (None, None) => return None,
        };
        let Some(url) = self.own(address) else {
            tracing::warn!(doing, "an operation is told of by another host than it was sent to, and is not asked for there");
            return None;
        };
        Some(Operation { doing: doing.to_owned(), url, how, retry_after: retry_after(answer.headers()).unwrap_or(PAUSE) })
    }
}
