//! The standard list of conditions in a status: one entry for each type, transition times that move with the status only.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the API server takes, in characters.
const MESSAGE_LIMIT: usize = 32_768;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`: in progress, or not known yet.
    Unknown,
}

impl Truth {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// What a condition shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired<'a> {
    /// Type, such as `Criteria` or `summaryrule.adx-mon.azure.com`.
    pub type_: &'a str,
    /// Status.
    pub status: Truth,
    /// One word in CamelCase; must not be empty.
    pub reason: &'a str,
    /// For people; cut to what the API server takes.
    pub message: &'a str,
    /// Generation of the object that this was found for.
    pub observed_generation: Option<i64>,
}

/// Sets a condition, and says whether that changed anything. The transition time moves with the status only.
pub fn set(conditions: &mut Vec<Condition>, desired: &Desired<'_>, now: Timestamp) -> bool {
    let message = desired.message.chars().take(MESSAGE_LIMIT).collect();
    let mut next = Condition {
        type_: desired.type_.to_owned(),
        status: desired.status.as_str().to_owned(),
        reason: desired.reason.to_owned(),
        message,
        observed_generation: desired.observed_generation,
        last_transition_time: Time(now),
    };
    let Some(at) = conditions.iter().position(|condition| condition.type_ == desired.type_) else {
        conditions.push(next);
        return true;
    };
    let present = &mut conditions[at];
    if present.status == next.status {
        next.last_transition_time = present.last_transition_time.clone();
    }
    if *present == next {
        return false;
    }
    *present = next;
    true
}

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of a type is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Removes the condition of a type, and says whether it was there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}
