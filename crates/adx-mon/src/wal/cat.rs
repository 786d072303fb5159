//! `adx-mon wal cat`.

use std::io::{self, Write};
use std::path::PathBuf;

use ::wal::inspect::{self, Item};
use ::wal::{RealDisk, TableKey};
use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::{Filter, Place, or_here};

/// Options of `adx-mon wal cat`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories and segment files; the current folder by default. Of a directory the rows that wait are
    /// printed, dead letters and quarantine only as files
    #[arg(value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// Leave header lines out
    #[arg(long)]
    no_header: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// As it is stored: a header line of names and types wherever it changes, then rows
    Csv,
    /// One JSON object a row and line
    Json,
}

/// `false` when something could not be read.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let mut printer = Printer { out, format: options.format, headers: !options.no_header, last: None, names: Vec::new() };
    let mut well = true;
    for path in or_here(&options.paths) {
        let place = Place::of(&path)?;
        let waits = |item: &&Item| !matches!(item.place, inspect::Place::Dead | inspect::Place::Quarantined | inspect::Place::Journal);
        for item in place.items().iter().filter(waits).filter(|item| options.filter.takes(item.table.as_ref())) {
            well &= segment(item, &mut printer)?;
        }
        if let Place::Directory(snapshot) = &place {
            let wanted = |table: &TableKey| options.filter.takes(Some(table));
            let mut print = |table: &TableKey, header: &[u8], rows: &[u8]| printer.print(Some(table), header, rows);
            snapshot.read_journal_rows(&RealDisk, &wanted, &mut print)?;
        }
    }
    Ok(well)
}

fn segment(item: &Item, printer: &mut Printer<'_, impl Write>) -> Result<bool> {
    let headed = item.is_headed();
    let mut print = |value: &[u8]| {
        let (header, rows) = inspect::split_header(value, headed);
        printer.print(item.table.as_ref(), header, rows)
    };
    match inspect::read_item(&RealDisk, item, &mut print) {
        Ok(checked) if item.rebuilt_from.is_some() || checked.damaged.is_empty() => Ok(true),
        Ok(checked) => {
            for (range, kind) in &checked.damaged {
                eprintln!("{}: {kind} at byte {}; see `adx-mon wal verify`", item.path.display(), range.start);
            }
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("{} is gone: it was sent meanwhile, or is missing; see `adx-mon wal verify`", item.path.display());
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", item.path.display())),
    }
}

struct Printer<'a, W> {
    out: &'a mut W,
    format: Format,
    headers: bool,
    /// Table and header line of what was printed last.
    last: Option<(Option<TableKey>, Vec<u8>)>,
    /// Names and types of its columns.
    names: Vec<(String, String)>,
}

impl<W: Write> Printer<'_, W> {
    fn print(&mut self, table: Option<&TableKey>, header: &[u8], rows: &[u8]) -> io::Result<()> {
        let same = self.last.as_ref().is_some_and(|(last, line)| last.as_ref() == table && line == header);
        if !same {
            self.last = Some((table.cloned(), header.to_vec()));
            let line = String::from_utf8_lossy(header);
            let column =
                |part: &str| part.split_once(':').map_or((part.to_owned(), String::new()), |(name, ty)| (name.to_owned(), ty.to_owned()));
            self.names = line.trim_end().split(',').filter(|part| !part.is_empty()).map(column).collect();
            if self.headers && self.format == Format::Csv {
                self.out.write_all(header)?;
            }
        }
        match self.format {
            Format::Csv => self.out.write_all(rows),
            Format::Json => self.objects(rows),
        }
    }

    fn objects(&mut self, rows: &[u8]) -> io::Result<()> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(rows);
        for record in reader.byte_records() {
            let mut object = Map::new();
            for (index, field) in record.map_err(io::Error::other)?.iter().enumerate() {
                let (name, ty) = self.names.get(index).cloned().unwrap_or_else(|| (format!("column{}", index + 1), String::new()));
                object.insert(name, value(&String::from_utf8_lossy(field), &ty));
            }
            serde_json::to_writer(&mut *self.out, &object)?;
            writeln!(self.out)?;
        }
        Ok(())
    }
}

/// A field by the type in the header line; what does not fit stays text.
fn value(text: &str, ty: &str) -> Value {
    let parsed = match ty {
        "dynamic" => serde_json::from_str(text).ok(),
        "long" | "int" => text.parse::<i64>().ok().map(Value::from),
        "real" => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
        "bool" => text.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    match parsed {
        Some(value) => value,
        None if text.is_empty() && !matches!(ty, "string" | "") => Value::Null,
        None => Value::String(text.to_owned()),
    }
}
