//! `adx-mon wal replay`: what waits goes to an ingestor as the reference's collectors send it, a segment a request.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::wal::inspect::{self, Item, Snapshot};
use ::wal::segment::{BlockMeta, FlakeIds, HEADER, Scratch, encode_block};
use ::wal::{Disk, Outcome, RealDisk, Settlement, Store, TableKey, csv};
use anyhow::{Context, Error, Result};
use indicatif::ProgressBar;
use tokio::runtime::Runtime;
use transfer::{Courier, Credentials, Delivery};

use super::{Filter, show, snapshot};

/// Uncompressed size of a block that is made of the journal's rows.
const BLOCK_BYTES: usize = 64 << 10;
/// A segment that is made of the journal's rows is sent when it has grown past this.
const SEGMENT_BYTES: usize = 1 << 20;
/// All segments that are being made go when they are as large as this together.
const GATHERED_BYTES: usize = 64 << 20;

/// Options of `adx-mon wal replay`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories whose owner does not run, and segment files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// The ingestor, for example https://ingestor:9090
    #[arg(long)]
    to: String,
    #[command(flatten)]
    filter: Filter,
    /// Delete what the ingestor has taken: files go, segments of a directory are settled as forwarded
    #[arg(long)]
    settle: bool,
    /// File with a bearer token; it goes to https endpoints and to this host only
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that may have signed the ingestor's certificate; those of the system by default
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// PEM file of a certificate chain, for an ingestor that asks for a client's certificate
    #[arg(long, requires = "client_key_file")]
    client_cert_file: Option<PathBuf>,
    /// PEM file of the key to --client-cert-file
    #[arg(long, requires = "client_cert_file")]
    client_key_file: Option<PathBuf>,
    /// Take any certificate of the ingestor
    #[arg(long, conflicts_with = "ca_file")]
    insecure_skip_verify: bool,
}

/// `false` when a segment was not taken.
pub(super) fn run(options: &Options, now_ms: u64, runtime: &Runtime, out: &mut impl Write) -> Result<bool> {
    let credentials = Credentials {
        token_file: options.token_file.clone(),
        client_certificate: options.client_cert_file.clone().zip(options.client_key_file.clone()),
        server_ca: options.ca_file.clone(),
    };
    let courier = Courier::new(&options.to, credentials, options.insecure_skip_verify).map_err(Error::msg)?;
    let mut replay = Replay { courier, runtime, out, options, sent: 0, rows: 0, refused: 0, bar: ProgressBar::new_spinner() };
    for path in &options.paths {
        match path.is_dir() {
            true if inspect::has_journal(&RealDisk, path) && options.settle => replay.settle(path, now_ms)?,
            true => replay.directory(path)?,
            false => {
                let (item, _) = inspect::file(&RealDisk, path).with_context(|| format!("reading {}", path.display()))?;
                replay.file(&item)?;
            }
        }
    }
    replay.bar.finish_and_clear();
    let (sent, rows) = (show::count(replay.sent, "segment"), show::count(replay.rows, "row"));
    writeln!(replay.out, "{sent} with {rows} taken, {} not", replay.refused)?;
    Ok(replay.refused == 0)
}

struct Replay<'a, W> {
    courier: Courier,
    runtime: &'a Runtime,
    out: &'a mut W,
    options: &'a Options,
    sent: u64,
    rows: u64,
    refused: u64,
    bar: ProgressBar,
}

impl<W: Write> Replay<'_, W> {
    /// What waits in a directory, which stays as it is.
    fn directory(&mut self, dir: &Path) -> Result<()> {
        let _lock = match inspect::has_journal(&RealDisk, dir) {
            true => Some(RealDisk.lock(dir).with_context(|| format!("{} is in use: stop its owner first", dir.display()))?),
            // The reference takes no lock.
            false => None,
        };
        let snapshot = snapshot(dir)?;
        for item in &snapshot.items {
            match item.place {
                inspect::Place::File => self.file(item)?,
                inspect::Place::Sealed | inspect::Place::Open => {
                    self.segment(item)?;
                }
                inspect::Place::Journal | inspect::Place::Dead | inspect::Place::Quarantined => {}
            }
        }
        self.journal(&snapshot)
    }

    /// What waits in a directory, which forgets what was taken.
    fn settle(&mut self, dir: &Path, now_ms: u64) -> Result<()> {
        snapshot(dir)?;
        let options = ::wal::Options { max_disk_bytes: 0, ..::wal::Options::new(dir) };
        let (store, _) = Store::open(options, RealDisk::new(), now_ms)?;
        store.seal_all().with_context(|| format!("sealing the segments of {}", dir.display()))?;
        for info in store.sealed() {
            if !self.options.filter.takes(Some(&info.table)) {
                continue;
            }
            let image = store.read_segment(info.id).with_context(|| format!("reading {}", info.file_name))?;
            if self.send(&info.file_name, info.rows, image)? {
                let reason = format!("replayed to {}", self.courier.url());
                let settlement = Settlement { segment: info.id, outcome: Outcome::Forwarded, reason, maybe_duplicate: false };
                store.settle_wait(vec![settlement]).with_context(|| format!("settling {}", info.file_name))?;
            }
        }
        store.close();
        Ok(())
    }

    /// A file of which no journal speaks.
    fn file(&mut self, item: &Item) -> Result<()> {
        if self.segment(item)? && self.options.settle {
            std::fs::remove_file(&item.path).with_context(|| format!("removing {}", item.path.display()))?;
        }
        Ok(())
    }

    /// Whether the readable blocks of a segment were taken, and there was nothing else in it.
    fn segment(&mut self, item: &Item) -> Result<bool> {
        if !self.options.filter.takes(item.table.as_ref()) || item.rebuilt_from == Some(0) {
            return Ok(false);
        }
        let (image, whole, rows) = image_of(item).with_context(|| format!("reading {}", item.path.display()))?;
        if !whole && item.rebuilt_from.is_none() {
            eprintln!("{}: damaged blocks stay behind; see `adx-mon wal verify`", item.path.display());
        }
        if image.len() <= HEADER.len() {
            return Ok(false);
        }
        Ok(self.send(&item.file_name, rows, image)? && whole)
    }

    /// Rows that are in no segment, as segments by table.
    fn journal(&mut self, snapshot: &Snapshot) -> Result<()> {
        // Names follow from the journal alone, so that a replay that is repeated at once is recognised.
        let since = snapshot.items.iter().filter(|item| item.place == inspect::Place::Journal).filter_map(|item| item.since_ms).min();
        let mut making = Making { ids: FlakeIds::new(0, 0), since_ms: since.unwrap_or(0), tables: BTreeMap::new(), bytes: 0 };
        let options = self.options;
        let filter = &options.filter;
        let mut failure = None;
        let read = snapshot.read_journal_rows(&RealDisk, &|table| filter.takes(Some(table)), &mut |table, header, rows| {
            for (name, rows, image) in making.add(table, header, rows) {
                self.send(&name, rows, image).map_err(|error| {
                    failure = Some(error);
                    std::io::Error::other("a segment could not be sent")
                })?;
            }
            Ok(())
        });
        if let Some(error) = failure {
            return Err(error);
        }
        read?;
        for (name, rows, image) in making.finish() {
            self.send(&name, rows, image)?;
        }
        Ok(())
    }

    /// Sends one segment and prints the answer; whether it was taken.
    fn send(&mut self, name: &str, rows: u64, image: Vec<u8>) -> Result<bool> {
        self.bar.set_message(name.to_owned());
        self.bar.tick();
        let delivery = self.runtime.block_on(self.courier.send(name, &image, tokio::time::sleep)).map_err(Error::msg)?;
        let (taken, word) = match &delivery {
            Delivery::Stored => (true, "stored".to_owned()),
            Delivery::Known => (true, "was there already".to_owned()),
            Delivery::Refused(why) => (false, format!("refused: {why}")),
            Delivery::Unknown(why) => (false, format!("no answer, and may be stored: {why}")),
        };
        let line = format!("{name}: {}: {word}", show::count(rows, "row"));
        self.bar.suspend(|| writeln!(self.out, "{line}").and_then(|()| self.out.flush()))?;
        if taken {
            self.sent += 1;
            self.rows += rows;
        } else {
            self.refused += 1;
        }
        Ok(taken)
    }
}

/// The readable blocks of an item as a file image, whether that is all of it, and the rows.
fn image_of(item: &Item) -> std::io::Result<(Vec<u8>, bool, u64)> {
    let checked = inspect::read_item(&RealDisk, item, &mut |_| Ok(()))?;
    let file = RealDisk.open(&item.path, ::wal::disk::Open::Read)?;
    let mut image = HEADER.to_vec();
    for range in &checked.good {
        let start = image.len();
        let len = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
        image.resize(start + len, 0);
        let read = file.read_at(&mut image[start..], range.start)?;
        image.truncate(start + read);
    }
    Ok((image, checked.damaged.is_empty(), checked.rows))
}

/// Name, rows and image of a segment.
type Made = (String, u64, Vec<u8>);

/// Segments that are made of rows.
struct Making {
    ids: FlakeIds,
    since_ms: u64,
    tables: BTreeMap<TableKey, Table>,
    bytes: usize,
}

#[derive(Default)]
struct Table {
    header: Vec<u8>,
    /// Rows that wait to become a block.
    rows: Vec<u8>,
    count: u64,
    image: Vec<u8>,
}

impl Making {
    /// Adds rows; gives the segments that are large enough.
    fn add(&mut self, key: &TableKey, header: &[u8], rows: &[u8]) -> Vec<Made> {
        let table = self.tables.entry(key.clone()).or_default();
        let before = table.rows.len() + table.image.len();
        if table.header != header {
            table.flush();
            table.header = header.to_vec();
        }
        for record in csv::Records::new(rows) {
            table.rows.extend_from_slice(record);
            table.count += 1;
            if table.rows.len() >= BLOCK_BYTES {
                table.flush();
            }
        }
        let (after, large) = (table.rows.len() + table.image.len(), table.image.len() > SEGMENT_BYTES);
        self.bytes = self.bytes.saturating_sub(before) + after;
        if self.bytes > GATHERED_BYTES {
            return self.finish();
        }
        if large { self.take(key).into_iter().collect() } else { Vec::new() }
    }

    fn take(&mut self, key: &TableKey) -> Option<Made> {
        let mut table = self.tables.remove(key)?;
        self.bytes = self.bytes.saturating_sub(table.rows.len() + table.image.len());
        table.flush();
        let name = ::wal::segment::FileName {
            database: key.database.to_string(),
            table: key.table.to_string(),
            schema: Some(key.schema.to_string()).filter(|schema| !schema.is_empty()),
            epoch: format!("{:x}", self.ids.next_id(self.since_ms)),
        };
        Some((name.to_string(), table.count, table.image))
    }

    /// All that is left.
    fn finish(&mut self) -> Vec<Made> {
        let keys: Vec<TableKey> = self.tables.keys().cloned().collect();
        keys.iter().filter_map(|key| self.take(key)).collect()
    }
}

impl Table {
    fn flush(&mut self) {
        if self.image.is_empty() {
            self.image.extend_from_slice(&HEADER);
        }
        if self.rows.is_empty() {
            return;
        }
        let count = u32::try_from(csv::records(&self.rows)).unwrap_or(0);
        let value = [self.header.as_slice(), &self.rows].concat();
        encode_block(&mut self.image, BlockMeta { sample_type: 0, rows: count }, &value, &mut Scratch::default());
        self.rows.clear();
    }
}
