//! What holds for every store, on disk and in memory.

mod common;

use std::io::Write;
use std::time::Duration;

use common::{both, bytes, key, record, run};
use pipe_store::{Digest, GcOptions, Item, Recorded, StoreError, Why};

#[test]
fn objects_of_all_sizes_come_back() {
    both(|store| {
        for length in [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
        {
            let put = bytes(length as u64, length);
            let digest = store.put(&put).unwrap();
            assert_eq!(digest, Digest::of(&put));
            assert_eq!(store.put(&put).unwrap(), digest, "again");
            assert_eq!(store.length(&digest).unwrap(), Some(length as u64));
            assert!(&*store.get(&digest).unwrap() == put.as_slice(), "{length} bytes");
            let inline = length < 64 << 10;
            assert_eq!(store.get(&digest).unwrap().path().is_none(), inline || store.root().is_none());
        }
        assert!(store.fsck(&Default::default()).unwrap().is_clean());
    });
}

#[test]
fn files_and_staged_files_become_objects() {
    both(|store| {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 100, 64 << 10, 300_000] {
            let put = bytes(7 + length as u64, length);
            let file = dir.path().join("file");
            std::fs::write(&file, &put).unwrap();
            assert_eq!(store.put_file(&file).unwrap(), (Digest::of(&put), length as u64));
            assert_eq!(store.file_digest(&file).unwrap(), (Digest::of(&put), length as u64));
            assert!(file.exists(), "the original stays");

            let other = bytes(8 + length as u64, length);
            let mut staged = store.stage().unwrap();
            let path = staged.path().to_path_buf();
            staged.write_all(&other).unwrap();
            assert_eq!(staged.commit().unwrap(), (Digest::of(&other), length as u64));
            assert!(!path.exists(), "the staged file is the object now");
            assert!(&*store.get(&Digest::of(&other)).unwrap() == other.as_slice());
        }
        let staged = store.stage().unwrap();
        let path = staged.path().to_path_buf();
        assert!(path.exists());
        drop(staged);
        assert!(!path.exists(), "dropped means deleted");
        assert!(matches!(store.put_file(dir.path()), Err(StoreError::Io { .. })), "a directory is no file");
        assert!(matches!(store.put_file(&dir.path().join("none")), Err(StoreError::Io { .. })));
    });
}

#[test]
fn what_is_not_there_is_missing() {
    both(|store| {
        let digest = Digest::of(b"never put");
        assert!(!store.has(&digest).unwrap());
        assert!(matches!(store.get(&digest), Err(StoreError::Missing { digest: d }) if d == digest));
        assert!(matches!(store.pin(&digest, "x"), Err(StoreError::Missing { .. })));
        assert_eq!(store.record(&digest).unwrap(), None);
        assert!(!store.forget(&digest).unwrap() && !store.forget_run("x").unwrap());
        assert!(!store.unpin(&digest).unwrap());
    });
}

#[test]
fn a_record_needs_its_objects() {
    both(|store| {
        let (small, large) = (bytes(1, 10), bytes(2, 100_000));
        let claim = record("s", 1, &[(Digest::of(&small), 10), (Digest::of(&large), 100_000)]);
        let missing = |digest| {
            let result = store.put_record(&key(1), &claim);
            assert!(matches!(result, Err(StoreError::OutputMissing { digest: d, .. }) if d == digest));
            assert_eq!(store.record(&key(1)).unwrap(), None);
        };
        missing(Digest::of(&small));
        store.put(&small).unwrap();
        missing(Digest::of(&large));
        store.put(&large).unwrap();
        let mut with_log = claim.clone();
        with_log.log = Some(Digest::of(b"log"));
        assert!(matches!(store.put_record(&key(1), &with_log), Err(StoreError::OutputMissing { .. })));
        let mut wrong = claim.clone();
        wrong.outputs[1].artifact.length += 1;
        let result = store.put_record(&key(1), &wrong);
        assert!(matches!(result, Err(StoreError::OutputLength { actual: 100_000, .. })));
        assert_eq!(store.put_record(&key(1), &claim).unwrap(), Recorded::New);
        assert_eq!(store.record(&key(1)).unwrap(), Some(claim.clone()));
    });
}

#[test]
fn the_first_record_stays_and_others_are_kept_beside_it() {
    both(|store| {
        let outputs: Vec<_> = (0..3).map(|n| (store.put(&bytes(n, 5)).unwrap(), 5)).collect();
        let first = record("s", 1, &outputs[..1]);
        assert_eq!(store.put_record(&key(1), &first).unwrap(), Recorded::New);
        let mut again = first.clone();
        again.facts = "{\"host\":2}".into();
        again.created_ms = 9;
        assert_eq!(store.put_record(&key(1), &again).unwrap(), Recorded::Same);
        let (second, third) = (record("s", 2, &outputs[1..2]), record("s", 3, &outputs[2..]));
        for other in [&second, &third, &second] {
            let done = store.put_record(&key(1), other).unwrap();
            assert_eq!(done, Recorded::Disagrees { first: first.clone() });
        }
        assert_eq!(store.record(&key(1)).unwrap(), Some(first));
        assert_eq!(store.disagreements(&key(1)).unwrap(), [second, third]);
        assert!(store.forget(&key(1)).unwrap());
        assert_eq!(store.record(&key(1)).unwrap(), None);
        assert!(store.disagreements(&key(1)).unwrap().is_empty());
    });
}

#[test]
fn records_of_a_step_are_newest_first() {
    both(|store| {
        let output = (store.put(b"x").unwrap(), 1);
        for (n, step, time) in [(1, "a", 5), (2, "b", 6), (3, "a", 9), (4, "a", 5), (5, "a", 7)] {
            store.put_record(&key(n), &record(step, time, &[output])).unwrap();
        }
        let order: Vec<_> = store.records_of_step("a", 10).unwrap().into_iter().map(|(k, _)| k).collect();
        assert_eq!(order, [key(3), key(5), key(4), key(1)]);
        assert_eq!(store.records_of_step("a", 2).unwrap().len(), 2);
        let many = store.records(&[key(3), key(9), key(1)]).unwrap();
        let times: Vec<_> = many.into_iter().map(|r| r.map(|r| r.created_ms)).collect();
        assert_eq!(times, [Some(9), None, Some(5)]);
        assert_eq!(store.records_of_step("none", 2).unwrap(), []);
    });
}

#[test]
fn runs_are_found_by_prefix() {
    both(|store| {
        for (id, time) in [("abc1", 1), ("abd2", 3), ("abc", 2), ("x%_", 4)] {
            store.put_run(&run(id, time, &[key(1)], &[key(2), key(3)])).unwrap();
        }
        let ids = |runs: Vec<pipe_store::RunEntry>| -> Vec<_> { runs.into_iter().map(|r| r.id).collect() };
        assert_eq!(ids(store.runs(10).unwrap()), ["x%_", "abd2", "abc", "abc1"]);
        assert_eq!(ids(store.runs(1).unwrap()), ["x%_"]);
        assert_eq!(store.run("abd").unwrap(), Some(run("abd2", 3, &[key(1)], &[key(2), key(3)])));
        assert_eq!(store.run("abc").unwrap().unwrap().id, "abc", "a whole id is never ambiguous");
        assert_eq!(store.run("%").unwrap(), None, "no wildcards");
        let candidates = match store.run("ab") {
            Err(StoreError::AmbiguousRun { candidates, .. }) => candidates,
            other => panic!("{other:?}"),
        };
        assert_eq!(candidates, ["abc", "abc1", "abd2"]);
        let mut ended = run("abd2", 3, &[], &[]);
        ended.body = "{\"done\":true}".into();
        store.put_run(&ended).unwrap();
        assert_eq!(store.run("abd2").unwrap(), Some(ended), "put again, replaced");
        assert_eq!(store.runs(10).unwrap().len(), 4);
        assert!(store.forget_run("abd2").unwrap());
        assert_eq!(store.run("abd").unwrap(), None);
    });
}

#[test]
fn a_lease_is_held_once() {
    both(|store| {
        let held = store.lease(&key(1)).unwrap();
        assert!(store.try_lease(&key(1)).unwrap().is_none());
        assert!(store.try_lease(&key(2)).unwrap().is_some(), "another key is free");
        let waiter = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| store.lease(&key(1)).map(drop).is_ok());
            drop(held);
            waiter.join().unwrap()
        });
        assert!(waiter);
        assert!(store.try_lease(&key(1)).unwrap().is_some());
    });
}

/// Many threads add to one number under one lease; without exclusion some additions are lost.
#[test]
fn leases_exclude_threads() {
    both(|store| {
        let number = std::sync::atomic::AtomicU64::new(0);
        use std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _held = store.lease(&key(1)).unwrap();
                        let seen = number.load(Relaxed);
                        std::thread::yield_now();
                        number.store(seen + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(number.into_inner(), 200);
    });
}

#[test]
fn gc_keeps_what_roots_reach_and_nothing_else() {
    both(|store| {
        let put = |n: u64, length: usize| (store.put(&bytes(n, length)).unwrap(), length as u64);
        let (a, b, c, log) = (put(1, 10), put(2, 100_000), put(3, 200_000), put(4, 20));
        let (pinned, mine) = (put(5, 90_000), put(6, 80_000));
        let other = put(7, 30);
        let mut one = record("s", 1, &[a, b]);
        one.log = Some(log.0);
        store.put_record(&key(1), &one).unwrap();
        store.put_record(&key(1), &record("s", 1, &[a, other])).unwrap();
        store.put_record(&key(2), &record("s", 2, &[c])).unwrap();
        store.pin(&pinned.0, "mine").unwrap();
        store.put_run(&run("r1", 10, &[key(1)], &[])).unwrap();
        store.put_run(&run("r2", 20, &[key(2)], &[pinned.0, other.0])).unwrap();
        let gc = |options: GcOptions| store.gc(&options).unwrap();
        let there = |objects: &[(Digest, u64)]| objects.iter().all(|o| store.get(&o.0).is_ok());

        let report = gc(GcOptions::default());
        assert_eq!((report.removed.objects, report.removed.bytes, report.reasons.len()), (0, 0, 0));
        assert_eq!((report.kept.objects, report.kept.records, report.kept.runs), (7, 2, 2));

        store.forget_run("r2").unwrap();
        let dry = gc(GcOptions { dry_run: true, ..GcOptions::default() });
        assert!(there(&[a, b, c, log, pinned, mine, other]), "a dry run removes nothing");
        let report = gc(GcOptions::default());
        assert_eq!((dry.kept, dry.removed, &dry.reasons), (report.kept, report.removed, &report.reasons));
        assert_eq!((report.removed.objects, report.removed.bytes), (1, 200_000));
        assert_eq!((&report.reasons[0].item, report.reasons[0].why), (&Item::Object(c.0), Why::Unreached));
        assert!(there(&[a, b, log, pinned, mine, other]) && !store.has(&c.0).unwrap());
        assert!(store.record(&key(2)).unwrap().is_some(), "a hollow hit");
        assert!(matches!(store.get(&c.0), Err(StoreError::Missing { .. })));
        assert_eq!(store.fsck(&Default::default()).unwrap().hollow, [key(2)]);

        // Making it again gives the same bytes and the record is whole.
        let again = put(3, 200_000);
        assert_eq!(store.put_record(&key(2), &record("s", 9, &[again])).unwrap(), Recorded::Same);
        assert_eq!(store.fsck(&Default::default()).unwrap().hollow, []);
    });
}

#[test]
fn gc_drops_the_oldest_runs_first() {
    both(|store| {
        let mut objects = Vec::new();
        for n in 1..=4u64 {
            let digest = store.put(&bytes(n, 100_000)).unwrap();
            let mut claim = record("s", n * 1000, &[(digest, 100_000)]);
            claim.created_ms = n * 1000;
            store.put_record(&key(n), &claim).unwrap();
            let mut entry = run(&format!("r{n}"), n * 1000, &[key(n)], &[]);
            entry.bundle = Some(store.put(&bytes(90 + n, 8)).unwrap());
            store.put_run(&entry).unwrap();
            objects.push((digest, entry.bundle.unwrap()));
        }
        let left = || -> Vec<_> { (1..=4).filter(|n| store.has(&objects[*n - 1].0).unwrap()).collect() };
        let gc = |max_age, max_bytes, now_ms| {
            store.gc(&GcOptions { max_age, max_bytes, now_ms, dry_run: false }).unwrap()
        };
        store.pin(&objects[0].1, "the first").unwrap();

        gc(Some(Duration::from_millis(3000)), None, 5000);
        assert_eq!(left(), [1, 2, 3, 4], "just young enough");
        let report = gc(Some(Duration::from_millis(2999)), None, 5000);
        assert_eq!(left(), [1, 3, 4], "the pinned bundle keeps its run");
        assert_eq!(store.record(&key(2)).unwrap(), None, "age removes a record that nothing needs");
        assert!(store.record(&key(1)).unwrap().is_some());
        let why = Why::TooOld { age_ms: 3000, max_ms: 2999 };
        assert!(report.reasons.iter().any(|r| r.item == Item::Run("r2".into()) && r.why == why));

        gc(None, Some(300_024), 0);
        assert_eq!(left(), [1, 3, 4], "fits exactly");
        let report = gc(None, Some(300_023), 0);
        assert_eq!(left(), [1, 4]);
        assert!(store.record(&key(3)).unwrap().is_some(), "a budget takes bytes and leaves the claim");
        assert_eq!(report.kept.bytes, 200_016);
        gc(Some(Duration::ZERO), Some(0), 0);
        assert_eq!(left(), [1], "a clock that went back removes nothing by age, the budget does");
    });
}

#[test]
fn a_lease_keeps_its_record() {
    both(|store| {
        let digest = store.put(&bytes(1, 70_000)).unwrap();
        store.put_record(&key(1), &record("s", 1, &[(digest, 70_000)])).unwrap();
        store.put_run(&run("r", 1, &[key(1)], &[])).unwrap();
        store.forget_run("r").unwrap();
        let old =
            GcOptions { max_age: Some(Duration::from_secs(1)), now_ms: 1_000_000, ..GcOptions::default() };
        let held = store.lease(&key(1)).unwrap();
        store.gc(&old).unwrap();
        assert!(store.has(&digest).unwrap() && store.record(&key(1)).unwrap().is_some());
        drop(held);
        store.gc(&old).unwrap();
        assert!(!store.has(&digest).unwrap() && store.record(&key(1)).unwrap().is_none());
    });
}
