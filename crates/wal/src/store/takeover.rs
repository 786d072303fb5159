//! Files of the directory that no frame knows: leftovers of a crash go, segments of the reference are
//! taken over, everything else stays and is reported.

use std::collections::HashSet;
use std::path::Path;

use super::engine::Engine;
use super::frames::{ADOPTED, AdoptedRecord, SealedRecord};
use super::recover::{entries, is_open};
use super::shared::sync_dirs;
use super::tables::{disk_name, open_name};
use crate::OpenError;
use crate::disk::{self, Open};
use crate::error::During;
use crate::journal;
use crate::journal::frame::Body;
use crate::segment::{self, FileName, HEADER, Verified};
use crate::types::{Damage, OpenReport, SegmentId, TableKey};

/// What is known about files that no frame knows.
pub(super) struct Unknown {
    /// Highest id in the checkpoint.
    pub(super) last_id: u64,
    /// Journal frames were lost.
    pub(super) lost_frames: bool,
    /// Host bits of our own ids.
    pub(super) host: u16,
    /// There is no checkpoint: everything that can be read is taken over.
    pub(super) reset: bool,
}

impl Unknown {
    /// Whether a file is one of ours whose Sealed frame is lost. Its rows were read back from Data frames, so
    /// taking it over would store them twice.
    fn is_ours(&self, name: &str) -> bool {
        let made_later = |id: SegmentId| id.0 > self.last_id && (self.lost_frames || id.0 >> 13 & 0x3FF == u64::from(self.host));
        !self.reset && id_of(name).is_some_and(made_later)
    }
}

/// Puts the directory in order. Whether anything changed.
pub(super) fn tidy(engine: &mut Engine, report: &mut OpenReport, unknown: &Unknown) -> Result<bool, OpenError> {
    engine.rename_durable();
    engine.remove_settled();
    let known: HashSet<String> = {
        let state = engine.shared.state.lock();
        state.sealed.values().map(|record| disk_name(&record.table, record.id)).collect()
    };
    let dir = engine.dir.clone();
    let mut names: Vec<_> = entries(&*engine.disk, &dir)?.into_iter().filter(|e| !e.is_dir).map(|e| e.name).collect();
    names.sort();
    let mut adopted = Vec::new();
    let mut changed = false;
    for name in names {
        if known.contains(&name) || name == "lock" || is_open(engine, &name) {
            continue;
        }
        if name.ends_with(".tmp") {
            changed |= remove_temporary(engine, &name, report.ledger_reset)?;
        } else if !name.ends_with(".wal") {
            report.foreign.push(name);
        } else if unknown.is_ours(&name) {
            move_aside(engine, &name)?;
            changed = true;
        } else {
            match take_over(engine, &name, report)? {
                Some(record) => adopted.push(record),
                None => report.foreign.push(name),
            }
        }
    }
    changed |= !adopted.is_empty();
    adopt_all(engine, adopted, report)?;
    Ok(changed)
}

/// Without a checkpoint nobody knows whether a temporary file holds rows, so it is kept aside.
fn remove_temporary(engine: &Engine, name: &str, keep: bool) -> Result<bool, OpenError> {
    if keep {
        move_aside(engine, name)?;
        return Ok(true);
    }
    let path = engine.dir.join(name);
    engine.disk.remove(&path).during("removing", &path)?;
    Ok(false)
}

fn move_aside(engine: &Engine, name: &str) -> Result<(), OpenError> {
    let (from, dir) = (engine.dir.join(name), engine.shared.quarantine_dir());
    engine.disk.create_dir_all(&dir).during("creating", &dir)?;
    engine.disk.rename(&from, &dir.join(name)).during("moving to quarantine", &from)?;
    engine.disk.sync_dir(&dir).during("syncing", &dir)
}

/// The id in a file name of the documented form, when it is one that we could have given.
pub(super) fn id_of(name: &str) -> Option<SegmentId> {
    let parsed = FileName::parse(name).ok()?;
    let id = SegmentId(u64::from_str_radix(&parsed.epoch, 16).ok()?);
    (id.0 >> 63 == 0 && disk_name(&key_of(&parsed), id) == name).then_some(id)
}

pub(super) fn key_of(name: &FileName) -> TableKey {
    TableKey::new(name.database.as_str(), name.table.as_str(), name.schema.as_deref().unwrap_or_default())
}

/// One segment of the reference; `None` when it is not one.
fn take_over(engine: &mut Engine, name: &str, report: &mut OpenReport) -> Result<Option<AdoptedRecord>, OpenError> {
    let Some(parsed) = FileName::parse(name).ok().filter(FileName::is_contained) else { return Ok(None) };
    let path = engine.dir.join(name);
    let image = disk::read_all(&*engine.disk, &path).during("reading", &path)?;
    if !segment::is_segment(&image) {
        return Ok(None);
    }
    let found = segment::verify(&image, parsed.schema.is_some());
    for (range, _) in &found.damaged {
        let aside = format!("{name}-{:x}", range.start);
        journal::set_aside(&*engine.disk, &engine.shared.quarantine_dir(), &aside, &image[range.clone()])?;
        let (offset, bytes) = (range.start as u64, range.len() as u64);
        report.damage.push(Damage { path: path.clone(), offset, bytes, rows: 0 });
    }
    let trusted = found.is_intact() && !engine.writer.suspects.contains(name);
    let in_place = id_of(name).filter(|id| trusted && !engine.shared.state.lock().sealed.contains_key(id));
    let (id, bytes) = match in_place {
        Some(id) => {
            let file = engine.disk.open(&path, Open::Write).during("opening", &path)?;
            if let Err(error) = file.sync() {
                engine.writer.suspects.add(name.to_owned());
                return Err(error).during("syncing", &path);
            }
            (id, image.len() as u64)
        }
        None => {
            let id = engine.shared.new_id(engine.now_ms);
            (id, rewrite(engine, &path, id, &image, &found)?)
        }
    };
    engine.shared.ids.lock().seen(id.0);
    let created_ms = segment::created_ms(&parsed.epoch).unwrap_or(engine.now_ms);
    Ok(Some(AdoptedRecord {
        segment: SealedRecord {
            id,
            table: key_of(&parsed),
            first_lsn: 0,
            last_lsn: 0,
            number: 0,
            bytes,
            rows: found.rows,
            digest: found.digest,
            created_ms,
            layout: Vec::new(),
        },
        time_ms: engine.now_ms,
        receipts: Vec::new(),
        marks: Vec::new(),
        replaces: if in_place.is_some() { String::new() } else { name.to_owned() },
        lost: 0,
    }))
}

/// The readable blocks go to a new file.
fn rewrite(engine: &Engine, path: &Path, id: SegmentId, image: &[u8], found: &Verified) -> Result<u64, OpenError> {
    let mut good = HEADER.to_vec();
    found.good.iter().for_each(|range| good.extend_from_slice(&image[range.clone()]));
    let to = engine.dir.join(open_name(id));
    let file = engine.disk.open(&to, Open::Create).during("creating", &to)?;
    file.write_at(&good, 0).and_then(|()| file.sync()).during("copying the readable blocks of", path)?;
    Ok(good.len() as u64)
}

fn adopt_all(engine: &mut Engine, mut records: Vec<AdoptedRecord>, report: &mut OpenReport) -> Result<(), OpenError> {
    if records.is_empty() {
        return Ok(());
    }
    let dir = engine.dir.clone();
    sync_dirs(&*engine.disk, &dir).during("syncing", &dir)?;
    engine.admission.begin_group(0);
    for record in &mut records {
        let state = engine.shared.state.lock();
        record.segment.number = engine.admission.number(&record.segment.table.database, &state);
    }
    let bodies: Vec<Body> = records.iter().map(|record| Body::small(ADOPTED, record.encode())).collect();
    let first = engine.writer.write(&bodies.iter().collect::<Vec<_>>(), true).map_err(|refusal| OpenError::Io {
        action: "taking over segments in",
        path: dir.clone(),
        source: std::io::Error::other(refusal),
    })?;
    // The old files go only behind frames that last, whatever an acknowledgement promises.
    if !engine.sync_now() {
        return Err(OpenError::Io {
            action: "taking over segments in",
            path: dir,
            source: std::io::Error::other("syncing the journal failed"),
        });
    }
    for (record, lsn) in records.iter().zip(first..) {
        engine.shared.state.lock().adopt(record);
        report.adopted.push(disk_name(&record.segment.table, record.segment.id));
        if record.segment.bytes <= HEADER.len() as u64 {
            drop_empty(engine, record);
        }
        if !record.replaces.is_empty() {
            engine.name(lsn, &record.segment);
            let old = dir.join(&record.replaces);
            engine.disk.remove(&old).during("removing", &old)?;
        }
    }
    engine.rename_durable();
    engine.remove_settled();
    Ok(())
}

/// A segment without rows has nothing to send. The checkpoint at the end of opening makes it last.
fn drop_empty(engine: &Engine, record: &AdoptedRecord) {
    let settlement = crate::Settlement {
        segment: record.segment.id,
        outcome: crate::Outcome::Dropped,
        reason: "no rows".to_owned(),
        maybe_duplicate: false,
    };
    engine.shared.state.lock().settle(&[settlement], Some(engine.now_ms));
}
