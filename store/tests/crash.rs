//! Dying at every step of every write, and being killed at any moment: what was acknowledged is there,
//! what was not is whole or absent, and the next process goes on without an unlock step.

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{bytes, child, did_not_run, hear, key, part, record, run, said, say, this_exe};
use pipe_store::{Digest, FsckOptions, GcOptions, Recorded, Store};

/// What the script puts: small ones, large ones, staged ones.
const SIZES: [usize; 6] = [20, 30_000, 100_000, 70_000, 66_000, 1000];

fn digest(n: usize) -> Digest {
    Digest::of(&bytes(n as u64, SIZES[n]))
}

/// Every kind of write; says what has returned. Running it again on any store it died on must work.
fn script(store: &Store, say: fn(&str)) {
    let put = |n: usize| {
        let digest = store.put(&bytes(n as u64, SIZES[n])).unwrap();
        say(&format!("object {n}"));
        (digest, SIZES[n] as u64)
    };
    let first = [put(0), put(2)];
    store.put_record(&key(1), &record("s", 1, &first)).unwrap();
    say("record 1");
    let staged = |n: usize| {
        let mut staged = store.stage().unwrap();
        staged.write_all(&bytes(n as u64, SIZES[n])).unwrap();
        let done = staged.commit().unwrap();
        say(&format!("object {n}"));
        done
    };
    let second = [staged(1), staged(3)];
    store.put_record(&key(2), &record("s", 2, &second)).unwrap();
    say("record 2");
    let again = store.put_record(&key(2), &record("s", 3, &first)).unwrap();
    assert!(matches!(again, Recorded::Disagrees { .. }));
    say("disagreement 2");
    store.put_run(&run("kept", 1, &[key(1), key(2)], &[])).unwrap();
    say("run kept");

    // Something for gc: a run with objects of its own, dropped again.
    store.forget_run("old").unwrap();
    let lost = [put(4), put(5)];
    store.put_run(&run("lost", 2, &[], &[lost[0].0, lost[1].0])).unwrap();
    store.forget_run("lost").unwrap();
    say("dropped");
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.kept.runs, 1);
    // And an old run with objects of its own, which drops out by age.
    let old = [put(4), put(5)];
    store.put_run(&run("old", 0, &[], &[old[0].0, old[1].0])).unwrap();
    let age = GcOptions { max_age: Some(Duration::from_millis(5)), now_ms: 6, ..GcOptions::default() };
    let report = store.gc(&age).unwrap();
    assert_eq!((report.removed.runs, report.kept.runs), (1, 1));
    say("collected");
}

/// The other process of the tests below.
#[test]
fn other_process() {
    let Some(part) = part() else { return };
    let root = Path::new(&part[1]);
    match &part[0][..] {
        "script" => script(&Store::open_dying_at(root, part[2].parse().unwrap()).unwrap(), say),
        "rebuild" => drop(Store::rebuild(root).unwrap()),
        "forever" => {
            let store = Store::open(root).unwrap();
            say("open");
            for n in 0.. {
                let (small, large) = (bytes(n, 500), bytes(n, 65_536 + n as usize));
                let outputs =
                    [(store.put(&small).unwrap(), 500), (store.put(&large).unwrap(), large.len() as u64)];
                store.put_record(&key(n), &record("s", n, &outputs)).unwrap();
                say(&n.to_string());
            }
        }
        other => panic!("{other}"),
    }
}

/// Nothing is damaged, and every record that is there has all its bytes.
fn check(store: &Store, when: &str) {
    let report = store.fsck(&FsckOptions::default()).unwrap();
    assert!(report.is_clean() && report.hollow.is_empty() && report.strays.is_empty(), "{when}: {report:?}");
    for (_, record) in store.records_of_step("s", 1000).unwrap() {
        for output in record.outputs {
            assert_eq!(
                store.get(&output.artifact.digest).unwrap().len() as u64,
                output.artifact.length,
                "{when}"
            );
        }
    }
}

#[test]
fn dying_at_every_step_loses_nothing_and_believes_nothing() {
    let steps = until_it_survives(1, |step| {
        survives(&format!("died at step {step}"), |root| {
            child(&this_exe(), &["script", root, &step.to_string()])
        })
    });
    assert!(steps > 60, "only {steps} steps were tried");
}

/// This test binary in another process that strace kills at the n-th call of a kind: so inside SQLite's
/// own writes too.
fn traced(calls: &str, n: u64, part: &[&str]) -> Command {
    let inner = child(&this_exe(), part);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"]);
    strace.arg(format!("inject={calls}:signal=KILL:when={n}")).arg(inner.get_program());
    strace.args(inner.get_args()).envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    strace
}

const CALLS: [&str; 6] =
    ["?pwrite64", "?fdatasync", "?fsync", "?rename,?renameat,?renameat2", "?unlink,?unlinkat", "?ftruncate"];

/// Every ninth call; all of them with PIPE_STORE_EVERY_CALL=1. None: this machine cannot.
fn stride() -> Option<u64> {
    let dir = tempfile::tempdir().unwrap();
    let probe = traced("?pwrite64", 60_000, &["script", dir.path().to_str().unwrap(), "0"]).output();
    if !probe.is_ok_and(|out| out.status.success()) {
        did_not_run("there is no strace here, or it may not trace");
        return None;
    }
    Some(if std::env::var_os("PIPE_STORE_EVERY_CALL").is_some() { 1 } else { 9 })
}

#[test]
fn killed_at_a_system_call_loses_nothing_and_believes_nothing() {
    let Some(stride) = stride() else { return };
    for calls in CALLS {
        until_it_survives(stride, |n| {
            survives(&format!("killed at {calls} {n}"), |root| traced(calls, n, &["script", root, "0"]))
        });
    }
}

#[test]
fn killed_while_it_rebuilds_loses_nothing() {
    let Some(stride) = stride() else { return };
    for calls in CALLS {
        // Few and decisive.
        let stride = if calls.starts_with("?rename") { 1 } else { stride };
        until_it_survives(stride, |n| {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().to_str().unwrap();
            script(&Store::open(dir.path()).unwrap(), |_| ());
            let out = traced(calls, n, &["rebuild", root]).output().unwrap();
            let store = Store::open(dir.path()).unwrap();
            check(&store, &format!("killed at {calls} {n}"));
            assert!((1..=2).all(|n| store.record(&key(n)).unwrap().is_some()), "killed at {calls} {n}");
            assert_eq!(store.disagreements(&key(2)).unwrap().len(), 1, "killed at {calls} {n}");
            assert!(store.run("kept").unwrap().is_some(), "killed at {calls} {n}");
            drop(store);
            let (store, rebuilt) = Store::rebuild(dir.path()).unwrap();
            assert_eq!((rebuilt.records, rebuilt.runs), (2, 1), "killed at {calls} {n}");
            check(&store, &format!("rebuilt after killed at {calls} {n}"));
            out.status.success()
        });
    }
}

/// Tries 1, 1 + stride and so on until a try survives; returns the number of tries. Several at once: they
/// mostly wait for the disk.
fn until_it_survives(stride: u64, survives: impl Fn(u64) -> bool + Sync) -> u64 {
    let (next, last) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n > last.load(Ordering::Relaxed) {
                        return;
                    }
                    if survives(1 + n * stride) {
                        last.fetch_min(n, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    last.into_inner()
}

/// Runs the script in a process that may die, looks at what it left, and does it all again on that. True
/// when the process came to its end.
fn survives(when: &str, start: impl FnOnce(&str) -> Command) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let out = start(root).output().unwrap();
    let acknowledged = said(&out.stdout);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{when}: {stderr}");
    {
        let store = Store::open(dir.path()).unwrap();
        check(&store, when);
        let dropped = acknowledged.iter().any(|a| a == "dropped");
        for said in &acknowledged {
            let (what, n) = said.split_once(' ').unwrap_or((said, "0"));
            let n = n.parse().unwrap_or(0);
            match what {
                // Once its run is dropped, gc may have taken it.
                "object" if n >= 4 && dropped => {}
                "object" => assert!(store.get(&digest(n)).is_ok(), "{when}: {said}"),
                "record" => assert!(store.record(&key(n as u64)).unwrap().is_some(), "{when}: {said}"),
                "disagreement" => assert_eq!(store.disagreements(&key(2)).unwrap().len(), 1, "{when}"),
                "run" => assert!(store.run("kept").unwrap().is_some(), "{when}"),
                _ => {}
            }
        }
        // A run that is still there has all its objects: gc drops the run first.
        for entry in store.runs(9).unwrap().iter().filter(|r| r.id != "lost") {
            assert!(entry.objects.iter().all(|d| store.get(d).is_ok()), "{when}: {}", entry.id);
        }
        let leftovers = store.fsck(&FsckOptions { repair: true }).unwrap();
        assert!(leftovers.orphans.len() <= 1, "{when}: {leftovers:?}");
        assert!(store.fsck(&FsckOptions::default()).unwrap().orphans.is_empty(), "{when}");
    }
    // The next process does it all again on what the dead one left.
    let again = child(&this_exe(), &["script", root, "0"]).output().unwrap();
    assert!(again.status.success(), "{when}: {}", String::from_utf8_lossy(&again.stdout));
    let store = Store::open(dir.path()).unwrap();
    check(&store, when);
    let objects: Vec<bool> = (0..6).map(|n| store.has(&digest(n)).unwrap()).collect();
    assert_eq!(objects, [true, true, true, true, false, false], "{when}");
    assert_eq!(store.disagreements(&key(2)).unwrap().len(), 1, "{when}");
    out.status.success()
}

#[test]
fn a_killed_writer_loses_no_acknowledged_record() {
    for last in [0, 1, 9, 30] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = child(&this_exe(), &["forever", dir.path().to_str().unwrap()]).spawn().unwrap();
        assert_eq!(hear(&mut writer), "open");
        let mut heard = HashMap::new();
        while !heard.contains_key(&last) {
            heard.insert(hear(&mut writer).parse::<u64>().unwrap(), ());
        }
        // SIGKILL, in the middle of whatever it does now.
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        check(&store, "killed");
        for n in heard.into_keys() {
            assert!(store.record(&key(n)).unwrap().is_some(), "record {n} of {last} is lost");
        }
        let report = store.gc(&GcOptions::default()).unwrap();
        assert_eq!(report.kept.objects, 0, "no run names them, and their writer is dead");
        let stats = store.stats().unwrap();
        assert_eq!((stats.staged_files, stats.file_objects, stats.inline_objects), (0, 0, 0));
    }
}
