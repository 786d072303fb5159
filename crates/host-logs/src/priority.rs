//! Priorities of syslog, which the kernel and the journal use too.

use logs::Record;

/// A priority, from `emerg` (0) to `debug` (7); lower is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

/// Name, severity text and severity number of each priority.
const KNOWN: [(&str, &str, i32); 8] = [
    ("emerg", "FATAL", 21),
    ("alert", "ERROR3", 19),
    ("crit", "ERROR2", 18),
    ("err", "ERROR", 17),
    ("warning", "WARN", 13),
    ("notice", "INFO2", 10),
    ("info", "INFO", 9),
    ("debug", "DEBUG", 5),
];

impl Priority {
    /// The least urgent.
    pub const DEBUG: Priority = Priority(7);
    /// What a kernel target takes when it names no priority.
    pub const INFO: Priority = Priority(6);

    /// The priority in the low three bits of syslog's `PRI`.
    #[must_use]
    pub fn of_pri(pri: u32) -> Priority {
        Priority((pri & 7) as u8)
    }

    /// `emerg` to `debug`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Priority> {
        (0..8).map(Priority).find(|priority| priority.name() == name)
    }

    /// Its number, 0 to 7.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// `emerg` to `debug`.
    #[must_use]
    pub fn name(self) -> &'static str {
        KNOWN[usize::from(self.0)].0
    }

    /// Sets the severity of a record.
    pub(crate) fn apply(self, record: &mut Record) {
        let (_, text, number) = KNOWN[usize::from(self.0)];
        text.clone_into(&mut record.severity_text);
        record.severity_number = number;
    }
}
