//! The rows of the index: what each table holds and how values become rows. Knows no files.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Result, Row, ToSql, params};

use super::layout::Stamp;
use crate::{Digest, Pin, Record, RunEntry};

fn bad(column: usize, why: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(why))
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    row.get(column).map(Digest)
}

/// Digests end to end, 32 bytes each.
fn pack(digests: &[Digest]) -> Vec<u8> {
    digests.iter().flat_map(|d| d.0).collect()
}

fn unpack(row: &Row<'_>, column: usize) -> Result<Vec<Digest>> {
    let blob = row.get_ref(column)?.as_blob().map_err(|e| bad(column, e))?;
    let (digests, rest) = blob.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(bad(column, std::io::Error::other("digests cut short")));
    }
    Ok(digests.iter().map(|d| Digest(*d)).collect())
}

/// 16 bytes over the fields of a row. SQLite keeps no checksum of what it stores; with this, a flipped
/// bit in the file is a bad row and not another digest.
fn seal(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut seal = [0; 16];
    seal.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    seal
}

fn check_seal(row: &Row<'_>, column: usize, expected: [u8; 16]) -> Result<()> {
    if row.get::<_, [u8; 16]>(column)? == expected {
        return Ok(());
    }
    Err(bad(column, std::io::Error::other("its seal is broken: the file was damaged")))
}

// Objects that are small enough to live here.

pub(crate) fn object(c: &Connection, d: &Digest) -> Result<Option<Vec<u8>>> {
    c.prepare_cached("SELECT bytes FROM objects WHERE digest=?1")?.query_row([d.0], |r| r.get(0)).optional()
}

pub(crate) fn object_length(c: &Connection, d: &Digest) -> Result<Option<u64>> {
    c.prepare_cached("SELECT length(bytes) FROM objects WHERE digest=?1")?
        .query_row([d.0], |r| r.get(0).map(i64::unsigned_abs))
        .optional()
}

pub(crate) fn put_object(c: &Connection, d: &Digest, bytes: &[u8]) -> Result<()> {
    c.prepare_cached("INSERT OR IGNORE INTO objects VALUES(?1,?2)")?.execute(params![d.0, bytes]).map(drop)
}

pub(crate) fn remove_object(c: &Connection, d: &Digest) -> Result<()> {
    c.prepare_cached("DELETE FROM objects WHERE digest=?1")?.execute([d.0]).map(drop)
}

pub(crate) fn objects(c: &Connection) -> Result<Vec<(Digest, u64)>> {
    let mut all = c.prepare("SELECT digest, length(bytes) FROM objects ORDER BY digest")?;
    let rows = all.query_map([], |r| Ok((digest(r, 0)?, r.get::<_, i64>(1)?.unsigned_abs())))?;
    rows.collect()
}

// Records and what disagrees with them.

const RECORD: &str = "key, step, preimage, outputs, log, facts, created_ms, seal";

/// The columns of [`RECORD`].
fn record_at(row: &Row<'_>) -> Result<(Digest, Record)> {
    let key = digest(row, 0)?;
    let json = row.get_ref(3)?.as_str().map_err(|e| bad(3, e))?;
    let record = Record {
        step: row.get(1)?,
        preimage: row.get(2)?,
        outputs: serde_json::from_str(json).map_err(|e| bad(3, e))?,
        log: row.get::<_, Option<[u8; 32]>>(4)?.map(Digest),
        facts: row.get(5)?,
        created_ms: row.get::<_, i64>(6)?.cast_unsigned(),
    };
    check_seal(row, 7, record_seal(&key, &record, json))?;
    Ok((key, record))
}

fn record_seal(key: &Digest, r: &Record, outputs: &str) -> [u8; 16] {
    let log = r.log.map_or(Vec::new(), |d| d.0.to_vec());
    let texts = [&r.step, &r.preimage, outputs, &r.facts].map(str::as_bytes);
    seal(&[&key.0, texts[0], texts[1], texts[2], &log, texts[3], &r.created_ms.to_le_bytes()])
}

fn insert_record(c: &Connection, sql: &str, key: &Digest, r: &Record) -> Result<()> {
    let outputs =
        serde_json::to_string(&r.outputs).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let seal = record_seal(key, r, &outputs);
    let log = r.log.map(|d| d.0);
    c.prepare_cached(sql)?
        .execute(params![key.0, r.step, r.preimage, outputs, log, r.facts, r.created_ms.cast_signed(), seal])
        .map(drop)
}

pub(crate) fn record(c: &Connection, key: &Digest) -> Result<Option<Record>> {
    c.prepare_cached(
        "SELECT key, step, preimage, outputs, log, facts, created_ms, seal FROM records WHERE key=?1",
    )?
    .query_row([key.0], |r| record_at(r).map(|(_, record)| record))
    .optional()
}

pub(crate) fn put_record(c: &Connection, key: &Digest, r: &Record) -> Result<()> {
    insert_record(c, "INSERT INTO records VALUES(?1,?2,?3,?4,?5,?6,?7,?8)", key, r)
}

pub(crate) fn put_disagreement(c: &Connection, key: &Digest, r: &Record) -> Result<()> {
    insert_record(c, "INSERT INTO disagreements VALUES(NULL,?1,?2,?3,?4,?5,?6,?7,?8)", key, r)
}

pub(crate) fn disagreements(c: &Connection, key: &Digest) -> Result<Vec<Record>> {
    let mut all =
        c.prepare_cached(&format!("SELECT {RECORD} FROM disagreements WHERE key=?1 ORDER BY seq"))?;
    all.query_map([key.0], |r| record_at(r).map(|(_, record)| record))?.collect()
}

/// Whether there was one.
pub(crate) fn forget_record(c: &Connection, key: &Digest) -> Result<bool> {
    c.prepare_cached("DELETE FROM disagreements WHERE key=?1")?.execute([key.0])?;
    Ok(c.prepare_cached("DELETE FROM records WHERE key=?1")?.execute([key.0])? > 0)
}

pub(crate) fn records_of_step(c: &Connection, step: &str, limit: usize) -> Result<Vec<(Digest, Record)>> {
    let mut all = c.prepare_cached(&format!(
        "SELECT {RECORD} FROM records WHERE step=?1 ORDER BY created_ms DESC, rowid DESC LIMIT ?2"
    ))?;
    all.query_map(params![step, clamp(limit)], record_at)?.collect()
}

pub(crate) fn all_records(c: &Connection) -> Result<Vec<(Digest, Record)>> {
    let mut all = c.prepare(&format!("SELECT {RECORD} FROM records ORDER BY key"))?;
    all.query_map([], record_at)?.collect()
}

pub(crate) fn all_disagreements(c: &Connection) -> Result<Vec<(Digest, Record)>> {
    let mut all = c.prepare(&format!("SELECT {RECORD} FROM disagreements ORDER BY seq"))?;
    all.query_map([], record_at)?.collect()
}

// Runs.

const RUN: &str = "id, pipeline, bundle, started_ms, body, keys, objects, seal";

/// The columns of [`RUN`].
fn run_at(row: &Row<'_>) -> Result<RunEntry> {
    let run = RunEntry {
        id: row.get(0)?,
        pipeline: row.get(1)?,
        bundle: row.get::<_, Option<[u8; 32]>>(2)?.map(Digest),
        started_ms: row.get::<_, i64>(3)?.cast_unsigned(),
        body: row.get(4)?,
        keys: unpack(row, 5)?,
        objects: unpack(row, 6)?,
    };
    check_seal(row, 7, run_seal(&run))?;
    Ok(run)
}

fn run_seal(run: &RunEntry) -> [u8; 16] {
    let bundle = run.bundle.map_or(Vec::new(), |d| d.0.to_vec());
    let texts = [&run.id, &run.pipeline, &run.body].map(|t| t.as_bytes());
    let (keys, objects) = (pack(&run.keys), pack(&run.objects));
    seal(&[texts[0], texts[1], &bundle, &run.started_ms.to_le_bytes(), texts[2], &keys, &objects])
}

/// Replaces an entry with the same id, which keeps its place among runs of the same time.
pub(crate) fn put_run(c: &Connection, run: &RunEntry) -> Result<()> {
    c.prepare_cached(
        "INSERT INTO runs VALUES(NULL,?1,?2,?3,?4,?5,?6,?7,?8) ON CONFLICT(id) DO UPDATE SET
         pipeline=?2, bundle=?3, started_ms=?4, body=?5, keys=?6, objects=?7, seal=?8",
    )?
    .execute(params![
        run.id,
        run.pipeline,
        run.bundle.map(|d| d.0),
        run.started_ms.cast_signed(),
        run.body,
        pack(&run.keys),
        pack(&run.objects),
        run_seal(run)
    ])
    .map(drop)
}

pub(crate) fn runs(c: &Connection, limit: usize) -> Result<Vec<RunEntry>> {
    let mut all =
        c.prepare_cached(&format!("SELECT {RUN} FROM runs ORDER BY started_ms DESC, seq DESC LIMIT ?1"))?;
    all.query_map([clamp(limit)], run_at)?.collect()
}

/// Ids that start with the prefix, at most nine; the exact one alone if there is one.
pub(crate) fn run_ids(c: &Connection, prefix: &str) -> Result<Vec<String>> {
    let mut some = c.prepare_cached(
        "SELECT id FROM runs WHERE substr(id,1,length(?1))=?1 ORDER BY length(id)=length(?1) DESC, id LIMIT 9",
    )?;
    let mut ids: Vec<String> = some.query_map([prefix], |r| r.get(0))?.collect::<Result<_>>()?;
    if ids.first().is_some_and(|id| id == prefix) {
        ids.truncate(1);
    }
    Ok(ids)
}

pub(crate) fn run(c: &Connection, id: &str) -> Result<Option<RunEntry>> {
    c.prepare_cached(&format!("SELECT {RUN} FROM runs WHERE id=?1"))?.query_row([id], run_at).optional()
}

pub(crate) fn forget_run(c: &Connection, id: &str) -> Result<bool> {
    Ok(c.prepare_cached("DELETE FROM runs WHERE id=?1")?.execute([id])? > 0)
}

// Pins.

pub(crate) fn pin(c: &Connection, d: &Digest, label: &str) -> Result<()> {
    c.prepare_cached("INSERT INTO pins VALUES(?1,?2) ON CONFLICT(digest) DO UPDATE SET label=?2")?
        .execute(params![d.0, label])
        .map(drop)
}

pub(crate) fn unpin(c: &Connection, d: &Digest) -> Result<bool> {
    Ok(c.prepare_cached("DELETE FROM pins WHERE digest=?1")?.execute([d.0])? > 0)
}

pub(crate) fn pins(c: &Connection) -> Result<Vec<Pin>> {
    let mut all = c.prepare_cached("SELECT digest, label FROM pins ORDER BY digest")?;
    all.query_map([], |r| Ok(Pin { digest: digest(r, 0)?, label: r.get(1)? }))?.collect()
}

// Remembered hashes of files. One per inode: a file has one state at a time.

fn stamp_params(s: &Stamp) -> Option<[i64; 5]> {
    let ns = |n: i128| i64::try_from(n).ok();
    Some([
        s.device.cast_signed(),
        s.inode.cast_signed(),
        s.size.cast_signed(),
        ns(s.mtime_ns)?,
        ns(s.ctime_ns)?,
    ])
}

pub(crate) fn memo(c: &Connection, stamp: &Stamp) -> Result<Option<Digest>> {
    let Some(p) = stamp_params(stamp) else { return Ok(None) };
    c.prepare_cached(
        "SELECT digest FROM memos WHERE device=?1 AND inode=?2 AND size=?3 AND mtime_ns=?4 AND ctime_ns=?5",
    )?
    .query_row(p, |r| digest(r, 0))
    .optional()
}

pub(crate) fn put_memo(c: &Connection, stamp: &Stamp, d: &Digest) -> Result<()> {
    let Some([device, inode, size, mtime, ctime]) = stamp_params(stamp) else { return Ok(()) };
    c.prepare_cached("INSERT OR REPLACE INTO memos VALUES(?1,?2,?3,?4,?5,?6)")?
        .execute(params![device, inode, size, mtime, ctime, d.0])
        .map(drop)
}

pub(crate) fn remove_memos(c: &Connection, d: &Digest) -> Result<()> {
    c.prepare_cached("DELETE FROM memos WHERE digest=?1")?.execute([d.0]).map(drop)
}

/// Keeps the `most` that were remembered last.
pub(crate) fn trim_memos(c: &Connection, most: i64) -> Result<()> {
    let sql = "DELETE FROM memos WHERE rowid NOT IN (SELECT rowid FROM memos ORDER BY rowid DESC LIMIT ?1)";
    c.execute(sql, [most]).map(drop)
}

/// Rows of a table of this module.
pub(crate) fn count(c: &Connection, table: &'static str) -> Result<u64> {
    c.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0).map(i64::unsigned_abs))
}

/// Rows of a table that cannot be read, by rowid, and why.
pub(crate) fn bad_rows(c: &Connection, table: &'static str) -> Result<Vec<(i64, String)>> {
    type Decode = fn(&Row<'_>) -> Result<()>;
    let (columns, decode): (&str, Decode) = match table {
        "records" | "disagreements" => (RECORD, |r| record_at(r).map(drop)),
        "runs" => (RUN, |r| run_at(r).map(drop)),
        "pins" => ("digest, label", |r| digest(r, 0).and(r.get::<_, String>(1)).map(drop)),
        _ => ("digest, bytes", |r| digest(r, 0).and(r.get::<_, Vec<u8>>(1)).map(drop)),
    };
    let mut found = Vec::new();
    let rowids: Vec<i64> = c
        .prepare(&format!("SELECT rowid FROM {table}"))?
        .query_map([], |r| r.get(0))?
        .collect::<Result<_>>()?;
    let mut one = c.prepare(&format!("SELECT {columns} FROM {table} WHERE rowid=?1"))?;
    for rowid in rowids {
        match one.query_row([rowid], decode).optional() {
            Ok(_) => {}
            Err(e) => found.push((rowid, format!("{table} row {rowid}: {e}"))),
        }
    }
    Ok(found)
}

pub(crate) fn remove_row(c: &Connection, table: &'static str, rowid: i64) -> Result<()> {
    c.execute(&format!("DELETE FROM {table} WHERE rowid=?1"), [rowid]).map(drop)
}

/// Calls `each` for every row that can still be read, from both ends towards the damage. A row may come
/// twice. Returns nothing: whatever stops it is the damage that is being saved from.
fn salvage<T>(
    c: &Connection,
    table: &str,
    columns: &str,
    at: fn(&Row<'_>) -> Result<T>,
    mut each: impl FnMut(T),
) {
    for order in ["ASC", "DESC"] {
        let Ok(mut all) = c.prepare(&format!("SELECT {columns} FROM {table} ORDER BY rowid {order}")) else {
            return;
        };
        let Ok(mut rows) = all.query([]) else { return };
        while let Ok(Some(row)) = rows.next() {
            if let Ok(value) = at(row) {
                each(value);
            }
        }
    }
}

pub(crate) fn salvage_objects(c: &Connection, each: impl FnMut((Digest, Vec<u8>))) {
    salvage(c, "objects", "digest, bytes", |r| Ok((digest(r, 0)?, r.get(1)?)), each);
}

pub(crate) fn salvage_records(c: &Connection, table: &'static str, each: impl FnMut((Digest, Record))) {
    salvage(c, table, RECORD, record_at, each);
}

pub(crate) fn salvage_runs(c: &Connection, each: impl FnMut(RunEntry)) {
    salvage(c, "runs", RUN, run_at, each);
}

pub(crate) fn salvage_pins(c: &Connection, each: impl FnMut(Pin)) {
    salvage(c, "pins", "digest, label", |r| Ok(Pin { digest: digest(r, 0)?, label: r.get(1)? }), each);
}

/// SQLite's own look at the file; empty when it finds nothing wrong.
pub(crate) fn quick_check(c: &Connection) -> Result<Vec<String>> {
    let mut check = c.prepare("PRAGMA quick_check(20)")?;
    let said: Vec<String> = check.query_map([], |r| r.get(0))?.collect::<Result<_>>()?;
    Ok(if said == ["ok"] { Vec::new() } else { said })
}

fn clamp(limit: usize) -> impl ToSql {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
