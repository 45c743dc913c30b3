//! Any sequence of calls gets the same answers from the disk as from memory, which is the specification.

mod common;

use std::time::Duration;

use common::{bytes, key, record, run};
use pipe_store::{Digest, FsckOptions, GcOptions, Lease, Store};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Put(u64),
    PutRecord { key: u64, outputs: Vec<u64>, log: Option<u64>, wrong_length: bool, time: u64 },
    Forget(u64),
    PutRun { id: u8, time: u64, keys: Vec<u64>, objects: Vec<u64>, bundle: Option<u64> },
    ForgetRun(u8),
    FindRun(String),
    Pin(u64),
    Unpin(u64),
    TakeLease(u64),
    FreeLeases,
    Gc { age: Option<u64>, bytes: Option<u64>, now: u64, dry: bool },
    Reopen,
}

const OBJECTS: u64 = 6;

/// Half of them inline, half files.
fn object(n: u64) -> Vec<u8> {
    bytes(n, if n.is_multiple_of(2) { 40 + n as usize } else { (64 << 10) + n as usize })
}

fn op() -> impl Strategy<Value = Op> {
    let object = || 0..OBJECTS;
    let keys = || 0..4u64;
    let some = |of| prop::collection::vec(of, 0..3);
    let id = || 0..4u8;
    prop_oneof![
        4 => object().prop_map(Op::Put),
        4 => (keys(), some(object()), prop::option::of(object()), prop::bool::weighted(0.1), 0..50u64)
            .prop_map(|(key, outputs, log, wrong_length, time)| Op::PutRecord { key, outputs, log, wrong_length, time }),
        1 => keys().prop_map(Op::Forget),
        3 => (id(), 0..50u64, some(keys()), some(object()), prop::option::of(object()))
            .prop_map(|(id, time, keys, objects, bundle)| Op::PutRun { id, time, keys, objects, bundle }),
        2 => id().prop_map(Op::ForgetRun),
        1 => "(|r|r[0-4]|r0[0-4]?)".prop_map(Op::FindRun),
        1 => object().prop_map(Op::Pin),
        1 => object().prop_map(Op::Unpin),
        1 => keys().prop_map(Op::TakeLease),
        1 => Just(Op::FreeLeases),
        3 => (prop::option::of(0..30u64), prop::option::of(0..300_000u64), 0..60u64, any::<bool>())
            .prop_map(|(age, bytes, now, dry)| Op::Gc { age, bytes, now, dry }),
        1 => Just(Op::Reopen),
    ]
}

/// Ids of different lengths, one a prefix of another.
fn id(n: u8) -> String {
    ["r0", "r01", "r1", "r02"][usize::from(n)].into()
}

/// What a caller sees, as text; paths would differ, but no answer here holds one.
fn answer<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    format!("{result:?}")
}

fn apply(store: &Store, leases: &mut Vec<Lease>, op: &Op) -> String {
    let name = |n: &u64| Digest::of(&object(*n));
    match op {
        Op::Put(n) => answer(store.put(&object(*n))),
        Op::PutRecord { key: k, outputs, log, wrong_length, time } => {
            let with = |n: &u64| (name(n), object(*n).len() as u64 + u64::from(*wrong_length));
            let mut claim =
                record(["a", "b"][*k as usize % 2], *time, &outputs.iter().map(with).collect::<Vec<_>>());
            claim.log = log.as_ref().map(name);
            answer(store.put_record(&key(*k), &claim))
        }
        Op::Forget(k) => answer(store.forget(&key(*k))),
        Op::PutRun { id: n, time, keys, objects, bundle } => {
            let keys: Vec<_> = keys.iter().map(|k| key(*k)).collect();
            let mut entry = run(&id(*n), *time, &keys, &objects.iter().map(name).collect::<Vec<_>>());
            entry.bundle = bundle.as_ref().map(name);
            answer(store.put_run(&entry))
        }
        Op::ForgetRun(n) => answer(store.forget_run(&id(*n))),
        Op::FindRun(prefix) => answer(store.run(prefix)),
        Op::Pin(n) => answer(store.pin(&name(n), "pinned")),
        Op::Unpin(n) => answer(store.unpin(&name(n))),
        Op::TakeLease(k) => match store.try_lease(&key(*k)) {
            Ok(lease) => {
                let got = lease.is_some();
                leases.extend(lease);
                got.to_string()
            }
            Err(e) => e.to_string(),
        },
        Op::FreeLeases => {
            leases.clear();
            String::new()
        }
        Op::Gc { age, bytes, now, dry } => answer(store.gc(&GcOptions {
            dry_run: *dry,
            max_age: age.map(Duration::from_millis),
            max_bytes: *bytes,
            now_ms: *now,
        })),
        Op::Reopen => {
            // A new process has put nothing yet; in memory, a run that covers everything says the same.
            let all: Vec<_> = (0..OBJECTS).map(|n| name(&n)).collect();
            store.put_run(&run("cover", 0, &[], &all)).unwrap();
            answer(store.forget_run("cover"))
        }
    }
}

/// Everything that can be asked.
fn state(store: &Store) -> Vec<String> {
    let mut seen = Vec::new();
    for n in 0..OBJECTS {
        seen.push(answer(store.get(&Digest::of(&object(n))).map(|o| Digest::of(&o))));
    }
    for k in 0..4 {
        seen.push(answer(store.record(&key(k))));
        seen.push(answer(store.disagreements(&key(k))));
    }
    for step in ["a", "b"] {
        seen.push(answer(store.records_of_step(step, 3)));
        seen.push(answer(store.all_records()));
    }
    seen.push(answer(store.runs(3)));
    seen.push(answer(store.pins()));
    let report = store.fsck(&FsckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    seen.push(format!("{} {} {} {:?}", report.objects, report.bytes, report.records, report.hollow));
    let stats = store.stats().unwrap();
    seen.push(format!("{} {} {}", stats.disagreements, stats.runs, stats.pins));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn disk_and_memory_give_the_same_answers(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Store::open(dir.path()).unwrap();
        let memory = Store::memory();
        let (mut of_disk, mut of_memory) = (Vec::new(), Vec::new());
        for (at, op) in ops.iter().enumerate() {
            let expected = apply(&memory, &mut of_memory, op);
            prop_assert_eq!(apply(&disk, &mut of_disk, op), expected, "call {}: {:?}", at, op);
            if let Op::Reopen = op {
                of_disk.clear();
                of_memory.clear();
                drop(disk);
                disk = Store::open(dir.path()).unwrap();
            }
        }
        prop_assert_eq!(state(&disk), state(&memory));
    }
}
