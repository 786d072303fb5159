//! Leader election as a state machine: what was seen of the lease and when, what to write, until when to lead.
//!
//! Times are those of a monotonic clock of this process.

use std::time::Duration;

/// How long things take. The defaults are those of client-go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A lease that nobody renewed for this long can be taken. Whole seconds.
    pub valid: Duration,
    /// The holder stops to lead this long after it sent the last renewal that went through. Well below `valid`: the rest is
    /// for clocks that run at different rates.
    pub renew_within: Duration,
    /// The pause between attempts to take or renew it.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { valid: Duration::from_secs(15), renew_within: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What a holder does while the API server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// It stops to lead when its lease may have run out, so that two never lead. Nobody does then while the API server is away.
    StepDown,
    /// It leads on, unconfirmed, until an answer says that it no longer holds the lease. One that is cut off from an API server
    /// which others reach leads beside another. Nobody starts to lead without an answer.
    Continue,
}

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when it was given back.
    pub holder: String,
    /// How long it is valid without being renewed.
    pub valid: Duration,
    /// How often the holder changed.
    pub transitions: i32,
}

/// A lease as it was read or written, with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Changes with every write.
    pub version: String,
    /// What it says.
    pub record: Record,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another one leads.
    Wait,
    /// Write this, provided that the lease still is as it was last seen.
    Write(Record),
}

/// One contender.
#[derive(Debug, Clone)]
pub struct Election {
    holder: String,
    timing: Timing,
    when_unreachable: WhenUnreachable,
    /// The lease as it was last seen, and since when it is so.
    observed: Option<(Seen, Duration)>,
    /// When the lease was read last.
    read: Option<Duration>,
    leads_until: Option<Duration>,
    /// Whether no answer since the last renewal casts doubt on it.
    undisputed: bool,
}

impl Election {
    /// A contender; `holder` must be its own among all that ever contend.
    pub fn new(holder: String, timing: Timing, when_unreachable: WhenUnreachable) -> Self {
        Self { holder, timing, when_unreachable, observed: None, read: None, leads_until: None, undisputed: false }
    }

    /// Who this is.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// How long things take.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The lease was read; none if there is none. `now` is when the answer came.
    pub fn saw(&mut self, lease: Option<Seen>, now: Duration) {
        let silence = self.read.replace(now).map_or(Duration::ZERO, |read| now.saturating_sub(read));
        match (lease, &mut self.observed) {
            (Some(lease), Some((before, since))) if lease.version == before.version => {
                // Who heard nothing for that long cannot tell whether the holder is gone, or has led on and did not hear
                // anything either: it gets the time to say so.
                if self.when_unreachable == WhenUnreachable::Continue && silence >= lease.record.valid.max(self.timing.valid) {
                    *since = now;
                }
            }
            (lease, _) => {
                if lease.as_ref().is_none_or(|lease| lease.record.holder != self.holder) {
                    self.leads_until = None;
                }
                self.observed = lease.map(|lease| (lease, now));
            }
        }
    }

    /// The API server has answered, and not taken what was asked or written: who leads does not do so for longer than the lease
    /// is valid.
    pub fn refused(&mut self) {
        self.undisputed = false;
    }

    /// What to do now.
    pub fn step(&self, now: Duration) -> Step {
        let transitions = match &self.observed {
            None => 0,
            Some((lease, _)) if lease.record.holder == self.holder => lease.record.transitions,
            Some((lease, since)) => {
                let valid_until = *since + lease.record.valid.max(self.timing.valid);
                if !lease.record.holder.is_empty() && now < valid_until {
                    return Step::Wait;
                }
                lease.record.transitions.saturating_add(1)
            }
        };
        Step::Write(Record { holder: self.holder.clone(), valid: self.timing.valid, transitions })
    }

    /// What [`Self::step`] gave was written. `sent` is when the request was sent, not when the answer came: others count
    /// from the write, which was somewhere between.
    pub fn wrote(&mut self, lease: Seen, sent: Duration) {
        self.leads_until = Some(sent + self.timing.renew_within);
        self.undisputed = true;
        self.observed = Some((lease, sent));
    }

    /// Until when this one leads, if it does; longer if it [leads on](Self::leads_on).
    pub fn leads_until(&self) -> Option<Duration> {
        self.leads_until
    }

    /// Whether this one would lead without another answer, for as long as there is none.
    pub fn leads_on(&self) -> bool {
        self.leads_until.is_some() && self.undisputed && self.when_unreachable == WhenUnreachable::Continue
    }

    /// Whether this one leads.
    pub fn is_leader(&self, now: Duration) -> bool {
        self.leads_on() || self.leads_until.is_some_and(|until| now < until)
    }

    /// Stops to lead. What to write, if the lease is held, so that another can take it at once.
    pub fn release(&mut self) -> Option<Record> {
        self.leads_until = None;
        let (lease, _) = self.observed.as_ref()?;
        let held = lease.record.holder == self.holder;
        held.then(|| Record { holder: String::new(), valid: Duration::from_secs(1), transitions: lease.record.transitions })
    }
}
