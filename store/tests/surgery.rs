//! Directories that somebody or something damaged: what is wrong is noticed, named and set aside, and the
//! rest of the store goes on.

mod common;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{bytes, child, did_not_run, hear, key, part, record, run, say, this_exe};
use pipe_store::{Digest, FsckOptions, GcOptions, Recorded, Store, StoreError};

/// The other process of the tests below: leaves a log that was never brought into the index.
#[test]
fn other_process() {
    let Some(part) = part() else { return };
    let store = Store::open(Path::new(&part[1])).unwrap();
    for n in 0..20 {
        let outputs =
            [(store.put(&bytes(n, 300)).unwrap(), 300), (store.put(&bytes(n, 70_000)).unwrap(), 70_000)];
        store.put_record(&key(n), &record("s", n, &outputs)).unwrap();
    }
    say("written");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn object_path(store: &Store, digest: &Digest) -> PathBuf {
    store.get(digest).unwrap().path().unwrap().to_path_buf()
}

fn writable(path: &Path) -> fs::File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64) {
    let mut file = writable(path);
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

fn sql(root: &Path, statement: &str) {
    rusqlite::Connection::open(root.join("index.sqlite")).unwrap().execute_batch(statement).unwrap();
}

#[test]
fn damaged_files_are_noticed_set_aside_and_made_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit", |p| flip(p, 150_000)),
        ("the first bit", |p| flip(p, 0)),
        ("cut short", |p| writable(p).set_len(100_000).unwrap()),
        ("emptied", |p| writable(p).set_len(0).unwrap()),
        ("longer", |p| writable(p).set_len(400_000).unwrap()),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let put = bytes(1, 300_000);
        let digest = store.put(&put).unwrap();
        let claim = record("s", 1, &[(digest, 300_000)]);
        store.put_record(&key(1), &claim).unwrap();
        let path = object_path(&store, &digest);
        damage(&path);
        let bad = fs::read(&path).unwrap();

        let report = store.fsck(&FsckOptions::default()).unwrap();
        assert!(!report.is_clean(), "{what}");
        assert_eq!((report.damaged[0].digest, report.damaged[0].found), (digest, Some(Digest::of(&bad))));
        match store.get(&digest) {
            Err(StoreError::Damaged { digest: d, found, path }) => {
                assert_eq!((d, found), (digest, Digest::of(&bad)), "{what}");
                assert_eq!(fs::read(path).unwrap(), bad, "{what}: kept to be looked at");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(!store.has(&digest).unwrap(), "{what}");
        assert!(matches!(store.get(&digest), Err(StoreError::Missing { .. })), "{what}");
        let report = store.fsck(&FsckOptions::default()).unwrap();
        assert!(report.is_clean() && report.hollow == [key(1)], "{what}: {report:?}");
        assert_eq!(store.put(&put).unwrap(), digest);
        assert_eq!(store.put_record(&key(1), &claim).unwrap(), Recorded::Same);
        assert!(*store.get(&digest).unwrap() == *put, "{what}");
        assert_eq!(store.stats().unwrap().damaged_files, 1);
        store.gc(&GcOptions::default()).unwrap();
        assert_eq!(store.stats().unwrap().damaged_files, 0);
    }
}

#[test]
fn a_cut_object_is_replaced_when_it_is_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let put = bytes(1, 300_000);
    let digest = store.put(&put).unwrap();
    writable(&object_path(&store, &digest)).set_len(100_000).unwrap();
    let claim = record("s", 1, &[(digest, 300_000)]);
    let early = store.put_record(&key(1), &claim);
    assert!(matches!(early, Err(StoreError::OutputLength { stated: 300_000, actual: 100_000, .. })));
    store.put(&put).unwrap();
    assert!(*store.get(&digest).unwrap() == *put);
    store.put_record(&key(1), &claim).unwrap();
}

#[test]
fn fsck_with_repair_sets_damage_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (large, small) = (store.put(&bytes(1, 100_000)).unwrap(), store.put(b"small").unwrap());
    let whole = store.put(&bytes(2, 100_000)).unwrap();
    flip(&object_path(&store, &large), 7);
    sql(dir.path(), "UPDATE objects SET bytes=x'00'");
    fs::write(dir.path().join("objects/stray"), b"?").unwrap();
    fs::write(dir.path().join("staged/9999999-0-0"), b"half").unwrap();
    let report = store.fsck(&FsckOptions { repair: true }).unwrap();
    let mut damaged: Vec<_> = report.damaged.iter().map(|d| d.digest).collect();
    damaged.sort();
    let mut expected = [large, small];
    expected.sort();
    assert_eq!(damaged, expected);
    assert_eq!((report.orphans.len(), report.strays.len(), report.objects), (1, 1, 3));
    let report = store.fsck(&FsckOptions::default()).unwrap();
    assert!(report.is_clean() && report.orphans.is_empty(), "{report:?}");
    assert!(!store.has(&large).unwrap() && !store.has(&small).unwrap() && store.get(&whole).is_ok());
    assert!(dir.path().join("objects/stray").exists(), "what is not ours stays");
}

#[test]
fn small_objects_are_verified_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"small").unwrap();
    sql(dir.path(), "UPDATE objects SET bytes=x'736d616c6d'");
    let found = Digest::of(b"smalm");
    assert!(matches!(store.get(&digest), Err(StoreError::Damaged { found: f, .. }) if f == found));
    assert!(matches!(store.get(&digest), Err(StoreError::Missing { .. })));
    store.put(b"small").unwrap();
    assert!(*store.get(&digest).unwrap() == *b"small");
}

#[test]
fn a_changed_row_is_a_bad_row_and_not_another_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let output = (store.put(b"x").unwrap(), 1);
    for n in 1..=3 {
        store.put_record(&key(n), &record("s", n, &[output])).unwrap();
        store.put_run(&run(&format!("r{n}"), n, &[key(n)], &[])).unwrap();
    }
    sql(dir.path(), "UPDATE records SET created_ms=7 WHERE created_ms=2");
    sql(dir.path(), "UPDATE runs SET keys=zeroblob(32) WHERE id='r3'");
    assert!(matches!(store.record(&key(2)), Err(StoreError::BadRow { .. })));
    assert!(matches!(store.run("r3"), Err(StoreError::BadRow { .. })));
    assert!(store.record(&key(1)).unwrap().is_some());
    // Marking cannot be complete, so nothing is removed.
    store.forget_run("r1").unwrap();
    assert!(matches!(store.gc(&GcOptions::default()), Err(StoreError::BadRow { .. })));
    let report = store.fsck(&FsckOptions { repair: true }).unwrap();
    assert_eq!(report.index_problems.len(), 2, "{report:?}");
    assert_eq!((store.record(&key(2)).unwrap(), store.run("r3").unwrap()), (None, None));
    assert!(store.record(&key(1)).unwrap().is_some() && store.run("r2").unwrap().is_some());
    assert!(store.fsck(&FsckOptions::default()).unwrap().is_clean());
    assert!(store.gc(&GcOptions::default()).is_ok());
}

/// A directory of objects that cannot be listed ends gc before anything is removed.
#[test]
fn gc_fails_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let small = store.put(b"small").unwrap();
    store.put_run(&run("r", 1, &[], &[small])).unwrap();
    store.forget_run("r").unwrap();
    let leases = dir.path().join("leases");
    fs::remove_dir(&leases).unwrap();
    assert!(matches!(store.gc(&GcOptions::default()), Err(StoreError::Io { path, .. }) if path == leases));
    assert!(store.has(&small).unwrap());
    fs::create_dir(&leases).unwrap();
    store.gc(&GcOptions::default()).unwrap();
    assert!(!store.has(&small).unwrap());
}

#[test]
fn without_its_index_a_store_keeps_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (large, small);
    {
        let store = Store::open(dir.path()).unwrap();
        large = store.put(&bytes(1, 100_000)).unwrap();
        small = store.put(b"small").unwrap();
        store.put_record(&key(1), &record("s", 1, &[(large, 100_000), (small, 5)])).unwrap();
    }
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(*store.get(&large).unwrap() == *bytes(1, 100_000));
    assert!(!store.has(&small).unwrap());
    assert_eq!(store.record(&key(1)).unwrap(), None);
    assert!(store.fsck(&FsckOptions { repair: true }).unwrap().is_clean());
    store.put(b"small").unwrap();
    let done = store.put_record(&key(1), &record("s", 1, &[(large, 100_000), (small, 5)])).unwrap();
    assert_eq!(done, Recorded::New);
}

/// Kills a writer and then takes its log away: an older state, but whole.
#[test]
fn without_its_log_a_store_is_older_but_whole() {
    for gone in [
        &["index.sqlite-wal"][..],
        &["index.sqlite-shm"],
        &["index.sqlite"],
        &["index.sqlite-wal", "index.sqlite-shm"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = child(&this_exe(), &["write", dir.path().to_str().unwrap()]).spawn().unwrap();
        assert_eq!(hear(&mut writer), "written");
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert!(dir.path().join("index.sqlite-wal").metadata().unwrap().len() > 0, "there is a log to lose");
        for name in gone {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        // Without the log not even the tables may be there; then it says so and rebuilds.
        let store = match Store::open(dir.path()) {
            Err(StoreError::IndexDamaged { .. } | StoreError::ForeignIndex { .. }) => {
                Store::rebuild(dir.path()).unwrap().0
            }
            other => other.unwrap(),
        };
        let report = store.fsck(&FsckOptions::default()).unwrap();
        assert!(report.is_clean() && report.hollow.is_empty(), "without {gone:?}: {report:?}");
        for n in 0..20 {
            assert!(store.get(&Digest::of(&bytes(n, 70_000))).is_ok(), "files need no index");
        }
        if gone == ["index.sqlite-shm"] {
            assert_eq!(report.records, 20, "the shared memory is made again from the log");
        }
    }
}

#[test]
fn a_damaged_index_is_named_and_rebuilt_from_what_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let large;
    {
        let store = Store::open(dir.path()).unwrap();
        large = store.put(&bytes(1, 100_000)).unwrap();
        for n in 0..300 {
            let small = (store.put(&bytes(n, 1000)).unwrap(), 1000);
            store.put_record(&key(n), &record("s", n, &[(large, 100_000), small])).unwrap();
        }
        store.put_run(&run("r", 1, &[key(1)], &[])).unwrap();
        store.pin(&large, "mine").unwrap();
    }
    let index = dir.path().join("index.sqlite");
    let whole = fs::read(&index).unwrap();

    // Rubbish in the middle: found by fsck or by use, and most rows can be saved.
    let mut torn = whole.clone();
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..middle + 2 * 4096].fill(0xA5);
    fs::write(&index, &torn).unwrap();
    {
        let store = Store::open(dir.path()).unwrap();
        let problems = store.fsck(&FsckOptions::default());
        let noticed = match &problems {
            Ok(report) => !report.is_clean(),
            Err(e) => matches!(e, StoreError::IndexDamaged { .. }),
        };
        assert!(noticed, "{problems:?}");
        let busy = Store::rebuild(dir.path());
        assert!(matches!(busy.err(), Some(StoreError::Busy { .. })), "not under somebody's feet");
    }
    let (store, rebuilt) = Store::rebuild(dir.path()).unwrap();
    assert!(rebuilt.objects > 100 && rebuilt.records > 100, "{rebuilt:?}");
    assert_eq!((rebuilt.runs, rebuilt.pins), (1, 1), "{rebuilt:?}");
    assert!(store.fsck(&FsckOptions::default()).unwrap().is_clean());
    assert!(store.get(&large).is_ok());
    assert_eq!(fs::read(rebuilt.set_aside.unwrap()).unwrap().len(), torn.len());
    drop(store);

    // No index at all any more.
    for rubbish in [b"this is not a database, not at all, and longer than a header of one hundred bytes is, so there it goes.".to_vec(), whole[..5000].to_vec()] {
        fs::write(&index, &rubbish).unwrap();
        let opened = Store::open(dir.path()).and_then(|s| s.fsck(&FsckOptions::default()));
        assert!(!matches!(&opened, Ok(report) if report.is_clean()), "{opened:?}");
        let (store, rebuilt) = Store::rebuild(dir.path()).unwrap();
        assert_eq!(rebuilt.records, 0);
        assert!(store.get(&large).is_ok() && store.fsck(&FsckOptions::default()).unwrap().is_clean());
    }
    // Rebuilding what is whole loses nothing.
    fs::write(&index, &whole).unwrap();
    let (store, rebuilt) = Store::rebuild(dir.path()).unwrap();
    assert_eq!((rebuilt.records, rebuilt.objects, rebuilt.runs), (300, 300, 1));
    assert_eq!(store.fsck(&FsckOptions::default()).unwrap().hollow, []);
}

#[test]
fn newer_and_foreign_indexes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    sql(dir.path(), "PRAGMA user_version=2");
    let newer = Store::open(dir.path()).err();
    assert!(matches!(newer, Some(StoreError::NewerFormat { found: 2, known: 1, .. })), "{newer:?}");
    sql(dir.path(), "PRAGMA user_version=1; PRAGMA application_id=1");
    assert!(matches!(Store::open(dir.path()).err(), Some(StoreError::ForeignIndex { .. })));
    let other = tempfile::tempdir().unwrap();
    sql(other.path(), "CREATE TABLE t(x)");
    assert!(matches!(Store::open(other.path()).err(), Some(StoreError::ForeignIndex { .. })));
    let file = other.path().join("file");
    fs::write(&file, b"x").unwrap();
    match Store::open(&file).err() {
        Some(StoreError::Io { path, .. }) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
}

/// The memo is used (a planted one is believed) but never outlives a change of the file.
#[test]
fn a_file_hash_is_remembered_by_its_stamp_only() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, bytes(1, 600_000)).unwrap();
    assert_eq!(store.file_digest(&file).unwrap(), (Digest::of(&bytes(1, 600_000)), 600_000));
    assert_eq!(store.stats().unwrap().memos, 0, "changed less than two seconds ago");
    let m = fs::metadata(&file).unwrap();
    let ns = |s: i64, ns: i64| s * 1_000_000_000 + ns;
    let planted = format!(
        "INSERT INTO memos VALUES({},{},{},{},{},x'{}')",
        m.dev().cast_signed(),
        m.ino().cast_signed(),
        m.len(),
        ns(m.mtime(), m.mtime_nsec()),
        ns(m.ctime(), m.ctime_nsec()),
        key(1)
    );
    sql(&dir.path().join("store"), &planted);
    assert_eq!(store.file_digest(&file).unwrap(), (key(1), 600_000), "the memo is used");
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"!").unwrap();
    let mut longer = bytes(1, 600_000);
    longer.push(b'!');
    assert_eq!(store.file_digest(&file).unwrap(), (Digest::of(&longer), 600_001));
}

/// More than 2^31 bytes, all but the last of them a hole.
#[test]
fn an_object_of_more_than_two_gigabytes() {
    if std::env::var_os("PIPE_STORE_HUGE").is_none() {
        return did_not_run("set PIPE_STORE_HUGE=1; it takes seconds and some memory");
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut staged = store.stage().unwrap();
    let length = (1u64 << 31) + 1;
    staged.file_mut().set_len(length).unwrap();
    staged.file_mut().seek(SeekFrom::End(0)).unwrap();
    staged.write_all(b"!").unwrap();
    let (digest, put) = staged.commit().unwrap();
    assert_eq!(put, length + 1);
    let object = store.get(&digest).unwrap();
    assert_eq!((object.len() as u64, object[1 << 31], object[(1 << 31) + 1]), (length + 1, 0, b'!'));
}
