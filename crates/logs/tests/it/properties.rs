//! What holds for any lines and messages.

use std::sync::Arc;

use logs::{Language, LineFormat, LineOptions, LineReader, Map, MultiLine, Parser, Parsers};
use proptest::prelude::*;

use crate::support::{NOW, Owned};

/// Lines that look like those of container logs, and some that do not.
fn any_line() -> impl Strategy<Value = String> {
    let text = "[a-zé ]{0,6}|  at x|Error: y|Traceback \\(most recent call last\\):|  File \"a\"";
    prop_oneof![
        ("stdout|stderr", "P|F|P:x", text).prop_map(|(stream, tag, text)| format!("2024-05-01T12:00:00Z {stream} {tag} {text}")),
        ("stdout|stderr|s3", "\\\\n|", text)
            .prop_map(|(stream, end, text)| { format!("{{\"log\":\"{}{end}\",\"stream\":\"{stream}\"}}", text.replace('"', "\\\"")) }),
        "\\PC{0,12}|[\\x00-\\x09\\x0b-\\x7f]{0,8}",
    ]
}

fn options(multi: bool, max_bytes: usize) -> Arc<LineOptions> {
    let rule = MultiLine::traces(&[Language::Node, Language::Python]).bounded(4, MultiLine::DEFAULT_MAX_WAIT);
    Arc::new(LineOptions { format: LineFormat::Kubernetes, max_bytes, multi_line: multi.then(|| Arc::new(rule)) })
}

proptest! {
    #[test]
    fn parsers_take_any_message(message in "\\PC{0,60}|[\\x00-\\x7f]{0,40}|([a-z\"'\\\\=\\[\\] 0-9.:{}]{0,40})") {
        for parser in [Parser::Json, Parser::KeyValue, Parser::Klog, Parser::Space] {
            Parsers::from(vec![parser]).parse(&message, &mut Map::new());
        }
    }

    /// Saving and restoring before any line changes nothing.
    #[test]
    fn a_restart_changes_nothing(
        lines in prop::collection::vec(any_line(), 0..30), restart in 0usize..30, multi in any::<bool>(), max_bytes in 1usize..40
    ) {
        let options = options(multi, max_bytes);
        let (mut plain, mut restored) = (LineReader::new(Arc::clone(&options)), LineReader::new(Arc::clone(&options)));
        let (mut entries, mut same) = (Vec::<Owned>::new(), Vec::<Owned>::new());
        let mut start = 0;
        for (index, line) in lines.iter().enumerate() {
            if index == restart {
                restored = LineReader::restore(Arc::clone(&options), &restored.save()).unwrap();
            }
            plain.push(line.as_bytes(), start, NOW, |entry| entries.push(entry.into()));
            restored.push(line.as_bytes(), start, NOW, |entry| same.push(entry.into()));
            prop_assert_eq!(plain.unfinished(), restored.unfinished());
            start += line.len() as u64 + 1;
        }
        plain.finish(NOW, |entry| entries.push(entry.into()));
        restored.finish(NOW, |entry| same.push(entry.into()));
        prop_assert_eq!(&entries, &same);
        prop_assert!(entries.iter().all(|entry| entry.message.len() <= max_bytes));
    }

    /// Reading again from the first unfinished line gives every entry that was not whole, and none is lost: the other
    /// way to commit positions.
    #[test]
    fn positions_of_unfinished_lines_lose_nothing(lines in prop::collection::vec(any_line(), 0..30), stop in 0usize..30, multi in any::<bool>()) {
        let options = options(multi, 1000);
        let mut starts = vec![0];
        for line in &lines {
            starts.push(starts[starts.len() - 1] + line.len() as u64 + 1);
        }
        let read = |from: usize, to: usize, finish: bool| {
            let mut reader = LineReader::new(Arc::clone(&options));
            let mut entries = Vec::<Owned>::new();
            for index in from..to {
                reader.push(lines[index].as_bytes(), starts[index], NOW, |entry| entries.push(entry.into()));
            }
            let unfinished = reader.unfinished();
            if finish {
                reader.finish(NOW, |entry| entries.push(entry.into()));
            }
            (entries, unfinished)
        };
        let stop = stop.min(lines.len());
        let (mut entries, unfinished) = read(0, stop, false);
        let again = unfinished.map_or(stop, |at| starts.iter().position(|start| *start == at).unwrap());
        entries.extend(read(again, lines.len(), true).0);
        for entry in read(0, lines.len(), true).0 {
            prop_assert!(entries.contains(&entry), "{:?} is lost", entry);
        }
    }

    /// Lines of one stream come in their order, each once, whatever events they are part of.
    #[test]
    fn events_keep_the_order_of_lines(lines in prop::collection::vec("[ a-z]{1,5}|  at x|Error: y|KeyError: z|  File \"a\"|Traceback \\(most recent call last\\):", 0..40), ticks in prop::collection::vec(any::<bool>(), 40)) {
        let rule = MultiLine::traces(&[Language::Node, Language::Python, Language::Java, Language::Go]);
        let mut reader = LineReader::new(Arc::new(LineOptions { multi_line: Some(Arc::new(rule)), ..LineOptions::default() }));
        let mut out = Vec::new();
        for (line, tick) in lines.iter().zip(ticks) {
            reader.push(line.as_bytes(), 0, NOW, |entry| out.extend(entry.message.split('\n').map(str::to_owned)));
            if tick {
                reader.tick(NOW + 2_000_000_000, |entry| out.extend(entry.message.split('\n').map(str::to_owned)));
            }
        }
        reader.finish(NOW, |entry| out.extend(entry.message.split('\n').map(str::to_owned)));
        prop_assert_eq!(out, lines);
    }
}
