//! `adx-mon wal replay`: what waits goes to an ingestor as the reference's collectors send it, a segment a request.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::wal::inspect::{self, Item, Snapshot};
use ::wal::segment::{BlockMeta, FlakeIds, HEADER, Scratch, encode_block};
use ::wal::{Disk, Outcome, RealDisk, Settlement, Store, TableKey, csv};
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use reqwest::{Response, StatusCode, Url, header};
use tokio::runtime::Runtime;

use super::{Filter, show, snapshot};

/// Uncompressed size of a block that is made of the journal's rows.
const BLOCK_BYTES: usize = 64 << 10;
/// A segment that is made of the journal's rows is sent when it has grown past this.
const SEGMENT_BYTES: usize = 1 << 20;
/// All segments that are being made go when they are as large as this together.
const GATHERED_BYTES: usize = 64 << 20;
/// How often a segment is sent again when the ingestor is busy or silent, and the wait when it names none.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(120);

/// Options of `adx-mon wal replay`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories whose owner does not run, and segment files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// The ingestor, for example https://ingestor:9090
    #[arg(long)]
    to: Url,
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
    /// Take any certificate of the ingestor
    #[arg(long, conflicts_with = "ca_file")]
    insecure_skip_verify: bool,
}

/// `false` when a segment was not taken.
pub(super) fn run(options: &Options, now_ms: u64, runtime: &Runtime, out: &mut impl Write) -> Result<bool> {
    let mut replay =
        Replay { sender: Sender::new(options)?, runtime, out, options, sent: 0, rows: 0, refused: 0, bar: ProgressBar::new_spinner() };
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
    sender: Sender,
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
                let reason = format!("replayed to {}", self.sender.url);
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
        let answer = self.runtime.block_on(self.sender.send(name, &image))?;
        let (taken, word) = match &answer {
            Answer::Stored => (true, "stored".to_owned()),
            Answer::Known => (true, "was there already".to_owned()),
            Answer::Refused(why) => (false, format!("refused: {why}")),
            Answer::Unknown(why) => (false, format!("no answer, and may be stored: {why}")),
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

/// What the ingestor says of a segment.
enum Answer {
    Stored,
    Known,
    Refused(String),
    Unknown(String),
}

struct Sender {
    client: reqwest::Client,
    url: Url,
    token: Option<String>,
}

impl Sender {
    fn new(options: &Options) -> Result<Sender> {
        let url = options.to.join("/transfer").with_context(|| format!("{} cannot be used", options.to))?;
        let mut client = reqwest::Client::builder().user_agent("adx-mon").timeout(TIMEOUT);
        if let Some(file) = &options.ca_file {
            let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).with_context(|| format!("{} is no PEM file", file.display()))?;
            client = client.tls_certs_only(authorities);
        }
        if options.insecure_skip_verify {
            client = client.tls_danger_accept_invalid_certs(true);
        }
        let mut token = None;
        if let Some(file) = &options.token_file {
            if !transfer::may_carry_token(url.as_str()) {
                bail!("the bearer token is not sent to {url}: use https");
            }
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            token = Some(text.trim().to_owned());
        }
        Ok(Sender { client: client.build().context("making the HTTP client")?, url, token })
    }

    /// Sends a segment, again while the ingestor is busy or silent.
    async fn send(&self, name: &str, image: &[u8]) -> Result<Answer> {
        // As collectors do: what is not compressed is taken for a peer's and stays where it came.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(image).context("compressing")?;
        let body = encoder.finish().context("compressing")?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("filename", name);
        let mut answer = Answer::Unknown("it was not sent".to_owned());
        for attempt in 1..=ATTEMPTS {
            let mut request =
                self.client.post(url.clone()).header(header::CONTENT_TYPE, "text/csv").header(header::CONTENT_ENCODING, "gzip");
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let mut pause = PAUSE;
            answer = match request.body(body.clone()).send().await {
                Err(error) => Answer::Unknown(format!("{:#}", anyhow::Error::new(error).context("sending"))),
                Ok(response) => match response.status() {
                    StatusCode::ACCEPTED => return Ok(Answer::Stored),
                    StatusCode::CONFLICT => return Ok(Answer::Known),
                    status => {
                        pause = retry_after(&response).unwrap_or(PAUSE).min(LONGEST_PAUSE);
                        let text = response.text().await.unwrap_or_default();
                        let why = format!("{status}: {}", text.trim());
                        match status {
                            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::LOCKED => Answer::Refused(why),
                            status if status.is_server_error() => Answer::Unknown(why),
                            _ => return Ok(Answer::Refused(why)),
                        }
                    }
                },
            };
            if attempt < ATTEMPTS {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(answer)
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
