//! Random histories of a log against what its writer knows: every line once, whole and in order.

use std::time::Duration;

use proptest::prelude::*;

use crate::support::World;

#[derive(Debug, Clone)]
enum Op {
    /// Whole lines, of about so many bytes each.
    Write(u8, usize),
    /// The beginning of a line, whose end comes before anything but reading happens.
    Begin,
    Rename,
    CopyTruncate,
    /// The newest rotated file.
    Gzip,
    /// Renamed, with the writer staying at the renamed file for one more line.
    SlowRename,
    /// Deleted once it is read, and made anew.
    Delete,
    Steps(u8),
    Settle,
    Wait(u8),
    /// Killed; works again at the next `Start`.
    Kill,
    Start,
    /// Killed after steps whose lines were not stored.
    Lose(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..40u8, prop_oneof![Just(10), Just(100), Just(3000)]).prop_map(|(n, size)| Op::Write(n, size)),
        1 => Just(Op::Begin),
        3 => Just(Op::Rename),
        3 => Just(Op::CopyTruncate),
        2 => Just(Op::Gzip),
        1 => Just(Op::SlowRename),
        1 => Just(Op::Delete),
        3 => (1..5u8).prop_map(Op::Steps),
        3 => Just(Op::Settle),
        1 => (1..30u8).prop_map(Op::Wait),
        2 => Just(Op::Kill),
        3 => Just(Op::Start),
        1 => (1..5u8).prop_map(Op::Lose),
    ]
}

const LOG: &str = "app.log";

/// The writer's side, and whether the reader runs.
struct Model {
    world: World,
    written: Vec<String>,
    begun: Option<String>,
}

impl Model {
    fn new() -> Model {
        let mut world = World::new(&[LOG]);
        world.write(LOG, "");
        world.settle();
        Model { world, written: Vec::new(), begun: None }
    }

    fn line(&mut self, size: usize) -> String {
        let line = format!("{:06} {}", self.written.len(), "x".repeat(size));
        self.written.push(line.clone());
        line
    }

    fn complete(&mut self) {
        if let Some(end) = self.begun.take() {
            self.world.write(LOG, &end);
        }
    }

    fn runs(&self) -> bool {
        self.world.tailer.is_some()
    }

    fn apply(&mut self, op: &Op) {
        if !matches!(op, Op::Steps(_) | Op::Settle | Op::Kill | Op::Start | Op::Lose(_)) {
            self.complete();
        }
        match op {
            Op::Write(n, size) => {
                let text: String = (0..*n).map(|_| self.line(*size) + "\n").collect();
                self.world.write(LOG, &text);
            }
            Op::Begin => {
                let line = self.line(10);
                let (begin, end) = line.split_at(9);
                self.world.write(LOG, begin);
                self.begun = Some(format!("{end}\n"));
            }
            Op::Rename => {
                self.world.rename(LOG);
                self.world.write(LOG, "");
            }
            Op::CopyTruncate => self.world.copy_truncate(LOG),
            Op::Gzip if self.world.path("app.log.1").exists() => self.world.gzip("app.log.1"),
            Op::SlowRename => {
                self.world.shift(LOG);
                std::fs::rename(self.world.path(LOG), self.world.path("app.log.1")).unwrap();
                let line = self.line(20) + "\n";
                self.world.write(LOG, &line);
                self.world.reopen(LOG);
                self.world.write(LOG, "");
            }
            Op::Delete if self.runs() => {
                self.world.settle();
                std::fs::remove_file(self.world.path(LOG)).unwrap();
                self.world.reopen(LOG);
                self.world.write(LOG, "");
            }
            Op::Steps(n) if self.runs() => (0..*n).for_each(|_| _ = self.world.step()),
            Op::Settle if self.runs() => self.world.settle(),
            Op::Wait(seconds) if self.runs() => self.world.wait(Duration::from_secs((*seconds).into())),
            Op::Kill => self.world.kill(),
            Op::Start if !self.runs() => self.world.start(),
            Op::Lose(n) if self.runs() => {
                for _ in 0..*n {
                    let _ = self.world.tailer.as_mut().unwrap().step(self.world.now);
                }
                self.world.kill();
            }
            _ => {}
        }
    }

    fn check(mut self) {
        self.complete();
        if !self.runs() {
            self.world.start();
        }
        self.world.settle();
        for _ in 0..40 {
            self.world.wait(Duration::from_secs(1));
        }
        let delivered = self.world.of(LOG);
        let short = |lines: &[&str]| lines.iter().map(|line| line[..6.min(line.len())].to_owned()).collect::<Vec<_>>().join(" ");
        let written: Vec<&str> = self.written.iter().map(String::as_str).collect();
        assert!(delivered == written, "written {}\ndelivered {}", short(&written), short(&delivered));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_line_comes_once_and_in_order(ops in prop::collection::vec(op(), 1..40)) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op);
        }
        model.check();
    }
}

/// What random histories found before.
#[test]
fn histories_that_went_wrong_once() {
    use Op::*;
    let write = || Write(1, 10);
    let histories = [
        vec![Delete, Delete, write(), Lose(1), SlowRename, write()],
        vec![write(), Kill, CopyTruncate],
        vec![write(), CopyTruncate, SlowRename],
        vec![write(), Rename, Gzip, write()],
        vec![Delete, SlowRename, Lose(1), Gzip],
        vec![SlowRename, write(), Steps(2), Lose(1), CopyTruncate],
        vec![write(), Rename, Settle, Wait(10), CopyTruncate, Delete],
        vec![Rename, write(), Steps(1), Kill, write(), CopyTruncate, write(), CopyTruncate],
        vec![Rename, Write(2, 10), Settle, Gzip, Kill, CopyTruncate, Write(15, 10)],
        vec![Write(1, 3000), Steps(1), CopyTruncate, Write(1, 3000)],
        vec![write(), Steps(1), write(), CopyTruncate, Rename],
        vec![Wait(10), Delete, write(), Steps(1), write(), Rename, SlowRename],
        vec![Rename, Lose(1), write(), Start, Steps(2), write(), CopyTruncate, write(), CopyTruncate, Delete],
        vec![Rename, Delete, Gzip, write(), Wait(10), CopyTruncate, Delete],
    ];
    for history in histories {
        eprintln!("{history:?}");
        let mut model = Model::new();
        for op in &history {
            model.apply(op);
        }
        model.check();
    }
}
