//! What goes wrong on the way to Azure and back, and in it.

use axum::body::Bytes;
use axum::http::Method;

use super::{Answer, empty, error};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is refused: 429, with `Retry-After` in seconds.
    Throttled(u64),
    /// It is refused with a status and a code.
    Refused(u16, &'static str),
    /// A proxy answers for Azure.
    Proxy(u16),
    /// It never arrives.
    LostBefore,
    /// It never arrives, and the connection stays open.
    SilenceBefore,
    /// It is carried out, and the answer is lost.
    LostAfter,
    /// It is carried out, and the connection stays open without an answer.
    SilenceAfter,
    /// It is carried out, and answered with an error.
    ErrorAfter,
    /// It is accepted, and what it asks for fails after a while: code and message.
    OperationFails(&'static str, &'static str),
    /// What was written a moment ago is not seen by it.
    Stale,
}

/// What becomes of a request.
pub(super) enum Fate {
    Answer(Answer),
    Lost,
    Silence,
}

impl Fault {
    /// The answer to a request that is not carried out.
    pub(super) fn before(&self) -> Option<Answer> {
        match self {
            Fault::Throttled(seconds) => {
                let mut answer = error(429, "TooManyRequests", "The request is being throttled.");
                answer.headers_mut().insert("retry-after", (*seconds).into());
                Some(answer)
            }
            Fault::Refused(status, code) => Some(error(*status, code, "The request was refused.")),
            Fault::Proxy(status) => {
                let mut answer = empty(*status);
                *answer.body_mut() = Bytes::from_static(b"<html>Bad gateway</html>");
                Some(answer)
            }
            _ => None,
        }
    }

    /// What happens instead of the answer to one that is.
    pub(super) fn after(&self) -> Option<Fate> {
        match self {
            Fault::LostAfter => Some(Fate::Lost),
            Fault::SilenceAfter => Some(Fate::Silence),
            Fault::ErrorAfter => Some(Fate::Answer(error(504, "GatewayTimeout", "The gateway did not receive a response in time."))),
            _ => None,
        }
    }
}

/// Faults drawn at random, the same for the same seed.
#[derive(Debug)]
pub struct Faults {
    random: fastrand::Rng,
    rate: f64,
    left: u32,
}

impl Faults {
    /// None.
    pub fn none() -> Self {
        Self::seeded(0, 0.0, 0)
    }

    /// Up to `most` of them, each with a probability.
    pub fn seeded(seed: u64, rate: f64, most: u32) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), rate, left: most }
    }

    pub(super) fn draw(&mut self, method: &Method, path: &str) -> Fault {
        if self.left == 0 || self.random.f64() >= self.rate {
            return Fault::None;
        }
        self.left -= 1;
        let writes = matches!(*method, Method::PUT | Method::PATCH);
        match self.random.u8(0..13) {
            0 | 1 => Fault::Throttled(self.random.u64(1..90)),
            2 => Fault::Refused(500, "InternalServerError"),
            3 => Fault::Refused(503, "ServerBusy"),
            4 => Fault::Proxy(502),
            5 => Fault::LostBefore,
            6 => Fault::SilenceBefore,
            7 => Fault::LostAfter,
            8 => Fault::SilenceAfter,
            9 => Fault::ErrorAfter,
            10 if writes && path.contains("/clusters/") => {
                Fault::OperationFails("InternalServiceError", "The operation failed, for reasons of its own.")
            }
            11 if writes => Fault::Refused(409, "ServiceIsInMaintenance"),
            // Somebody takes a right away for a moment.
            12 => Fault::Refused(403, "AuthorizationFailed"),
            _ => Fault::Stale,
        }
    }
}
