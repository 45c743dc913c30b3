//! Several processes on one store: leases, racing for one key, gc beside a living writer, full disks and
//! stores that can only be read.

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use common::{bytes, child, did_not_run, hear, key, part, record, run, said, say, this_exe};
use pipe_store::{Digest, FsckOptions, GcOptions, Recorded, Store, StoreError};

/// Waits until the parent says go.
fn ready() {
    say("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn go(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
}

/// The other process of the tests below.
#[test]
fn other_process() {
    let Some(part) = part() else { return };
    let root = Path::new(&part[1]);
    match &part[0][..] {
        "count" => {
            let store = Store::open(root).unwrap();
            let counter = root.join("counter");
            ready();
            for _ in 0..25 {
                let _held = store.lease(&key(1)).unwrap();
                let n: u64 = std::fs::read_to_string(&counter).unwrap().parse().unwrap();
                std::fs::write(&counter, (n + 1).to_string()).unwrap();
            }
        }
        "same" => {
            let store = Store::open(root).unwrap();
            ready();
            let put = bytes(1, 3_000_000);
            let digest = store.put(&put).unwrap();
            let small = store.put(b"small").unwrap();
            let claim = record("s", 1, &[(digest, put.len() as u64), (small, 5)]);
            say(&format!("{:?}", store.put_record(&key(1), &claim).unwrap()));
        }
        "open" => {
            // Everybody creates the store at once.
            ready();
            let store = Store::open(root).unwrap();
            say(&store.put(part[2].as_bytes()).unwrap().to_string());
        }
        "hold" => {
            let store = Store::open(root).unwrap();
            let _lease = store.lease(&key(1)).unwrap();
            store.put(&bytes(5, 70_000)).unwrap();
            let mut staged = store.stage().unwrap();
            staged.write_all(b"half").unwrap();
            ready();
        }
        "fill" => fill(root),
        "read" => read_only(root),
        other => panic!("{other}"),
    }
}

fn start(part: &[&str], n: usize) -> Vec<Child> {
    let mut children: Vec<_> = (0..n).map(|_| child(&this_exe(), part).spawn().unwrap()).collect();
    for child in &mut children {
        assert_eq!(hear(child), "ready");
    }
    children.iter_mut().for_each(go);
    children
}

fn finish(child: Child) -> Vec<String> {
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    said(&out.stdout)
}

#[test]
fn a_lease_excludes_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("counter"), "0").unwrap();
    for child in start(&["count", dir.path().to_str().unwrap()], 4) {
        finish(child);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("counter")).unwrap(), "100");
}

#[test]
fn processes_that_race_for_one_object_and_one_record_agree() {
    let dir = tempfile::tempdir().unwrap();
    let mut said: Vec<_> =
        start(&["same", dir.path().to_str().unwrap()], 4).into_iter().flat_map(finish).collect();
    said.sort();
    assert_eq!(said, [format!("{:?}", Recorded::New), "Same".into(), "Same".into(), "Same".into()]);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.fsck(&FsckOptions::default()).unwrap().is_clean());
    assert_eq!(store.stats().unwrap().staged_files, 0);
}

#[test]
fn processes_that_create_one_store_share_it() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new/store");
        let mut children: Vec<_> = (0..4)
            .map(|n| child(&this_exe(), &["open", root.to_str().unwrap(), &n.to_string()]).spawn().unwrap())
            .collect();
        children.iter_mut().for_each(|child| assert_eq!(hear(child), "ready"));
        children.iter_mut().for_each(go);
        let digests: Vec<Digest> =
            children.into_iter().flat_map(finish).map(|d| d.parse().unwrap()).collect();
        let store = Store::open(&root).unwrap();
        assert_eq!(digests.len(), 4);
        assert!(digests.iter().all(|d| store.has(d).unwrap()));
    }
}

#[test]
fn kill_frees_leases_and_gc_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child(&this_exe(), &["hold", dir.path().to_str().unwrap()]).spawn().unwrap();
    assert_eq!(hear(&mut holder), "ready");
    let store = Store::open(dir.path()).unwrap();
    assert!(store.try_lease(&key(1)).unwrap().is_none(), "held by the other process");
    let who = match store.gc(&GcOptions::default()) {
        Err(StoreError::Busy { who, .. }) => who,
        other => panic!("{other:?}"),
    };
    assert!(who.len() == 1 && who[0].contains(&holder.id().to_string()), "{who:?}");
    assert!(store.has(&Digest::of(&bytes(5, 70_000))).unwrap(), "not recorded yet, and its process lives");
    assert_eq!(store.fsck(&FsckOptions { repair: true }).unwrap().orphans.len(), 0);
    assert_eq!(store.stats().unwrap().staged_files, 1, "fsck leaves what a living process stages");

    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(store.lease(&key(1)).unwrap());
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!((report.removed.objects, report.removed.leftovers), (1, 1), "{report:?}");
    assert_eq!(store.stats().unwrap().staged_files, 0);
    assert_eq!(std::fs::read_dir(dir.path().join("leases")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("writers")).unwrap().count(), 1, "only ourselves");
}

#[test]
fn another_handle_of_this_process_keeps_gc_away_too() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    assert!(matches!(one.gc(&GcOptions::default()), Err(StoreError::Busy { .. })));
    assert!(one.gc(&GcOptions { dry_run: true, ..GcOptions::default() }).is_ok());
    drop(two);
    assert!(one.gc(&GcOptions::default()).is_ok());
}

/// Runs on a file system of 4 MiB: fills it by every kind of write.
fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    let mut kept = Vec::new();
    let full = |e: StoreError| assert!(matches!(e, StoreError::Full { .. }), "{e:?}");
    let mut attempt = |n| {
        let put = bytes(n, if n % 2 == 0 { 300_000 } else { 40_000 });
        let digest = store.put(&put)?;
        store.put_record(&key(n), &record("s", n, &[(digest, put.len() as u64)]))?;
        kept.push((n, digest));
        Ok(())
    };
    full((0..).find_map(|n| attempt(n).err()).unwrap());
    // What is left of the space goes too: small objects, staged files, copies.
    let small = (1000..).find_map(|n| store.put(&bytes(n, 2000)).err());
    full(small.unwrap());
    let mut staged = store.stage();
    if let Ok(staged) = &mut staged {
        let e = staged.write_all(&bytes(1, 4_000_000)).unwrap_err();
        full(StoreError::io("write", staged.path(), e));
    }
    drop(staged);
    full(store.put_file(&this_exe()).unwrap_err());
    assert!(kept.len() > 4);
    let check = |store: &Store| {
        for (n, digest) in &kept {
            assert!(store.record(&key(*n)).unwrap().is_some() && store.get(digest).is_ok());
        }
        let report = store.fsck(&FsckOptions::default()).unwrap();
        assert!(report.is_clean() && report.orphans.is_empty() && report.hollow.is_empty(), "{report:?}");
    };
    check(&store);
    // The next process opens the full store and can read it.
    drop(store);
    let store = Store::open(root).unwrap();
    check(&store);
    // Room again, and it goes on.
    std::fs::remove_file(store.get(&kept[0].1).unwrap().path().unwrap()).unwrap();
    kept.remove(0);
    let digest = store.put(&bytes(5000, 100_000)).unwrap();
    store.put_record(&key(5000), &record("s", 1, &[(digest, 100_000)])).unwrap();
    // Full once more, gc makes room: nothing here belongs to a run.
    full((6000..).find_map(|n| store.put(&bytes(n, 70_000)).err()).unwrap());
    full((6000..).find_map(|n| store.put(&bytes(n, 1000)).err()).unwrap());
    drop(store);
    let store = Store::open(root).unwrap();
    let report = store.gc(&GcOptions::default()).unwrap();
    assert!(report.removed.objects > 4, "{report:?}");
    store.put(&bytes(9000, 2_000_000)).unwrap();
    say("full and well");
}

#[test]
fn a_full_disk_is_an_error_and_nothing_half_written_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    // The mount lives in a namespace of its own and ends with the child.
    let script = "mount -t tmpfs -o size=4m none \"$0\" || exit 42; exec \"$@\"";
    for flags in ["-m", "-rm"] {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", script, root]).arg(this_exe());
        let inner = child(&this_exe(), &["fill", root]);
        command.args(inner.get_args()).envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let Ok(out) = command.output() else { break };
        if out.status.success() {
            assert_eq!(said(&out.stdout), ["full and well"]);
            return;
        }
        let stdout = String::from_utf8_lossy(&out.stdout);
        assert!(!stdout.contains("panicked") && !stdout.contains("FAILED"), "{stdout}");
    }
    did_not_run("mounting a small file system is not permitted here");
}

fn read_only(root: &Path) {
    let store = Store::open(root).unwrap();
    assert!(store.is_read_only());
    let large = store.get(&Digest::of(&bytes(1, 100_000))).unwrap();
    assert!(large.path().is_some() && *large == *bytes(1, 100_000));
    assert!(*store.get(&Digest::of(b"small")).unwrap() == *b"small");
    assert!(store.record(&key(1)).unwrap().is_some());
    assert_eq!(store.runs(5).unwrap().len(), 1);
    assert!(store.fsck(&FsckOptions::default()).unwrap().is_clean());
    assert!(store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }).is_ok());
    let refused = |e: Option<StoreError>| assert!(matches!(e, Some(StoreError::ReadOnly { .. })), "{e:?}");
    refused(store.put(b"new").err());
    refused(store.put(&bytes(2, 100_000)).err());
    refused(store.stage().err());
    refused(store.put_record(&key(2), &record("s", 1, &[])).err());
    refused(store.put_run(&run("x", 1, &[], &[])).err());
    refused(store.pin(&Digest::of(b"small"), "x").err());
    refused(store.forget(&key(1)).err());
    refused(store.lease(&key(1)).err());
    refused(store.gc(&GcOptions::default()).err());
    refused(store.fsck(&FsckOptions { repair: true }).err());
    say("read");
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    {
        let store = Store::open(&root).unwrap();
        let large = store.put(&bytes(1, 100_000)).unwrap();
        store.put(b"small").unwrap();
        store.put_record(&key(1), &record("s", 1, &[(large, 100_000)])).unwrap();
        store.put_run(&run("r", 1, &[key(1)], &[])).unwrap();
    }
    // Permissions do not bind root, so another user reads; it needs the program where it may go.
    let exe = dir.path().join("exe");
    std::fs::copy(this_exe(), &exe).unwrap();
    chmod(dir.path(), 0o755);
    chmod(&exe, 0o755);
    let mut dirs = vec![root.clone()];
    while let Some(path) = dirs.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => chmod(&entry.path(), 0o444),
            }
        }
        chmod(&path, 0o555);
    }
    let mut reader = child(&exe, &["read", root.to_str().unwrap()]);
    if std::fs::write(root.join("probe"), b"").is_ok() {
        std::fs::remove_file(root.join("probe")).unwrap();
        reader.uid(65_534).gid(65_534);
    }
    let out = reader.output();
    for entry in walk(&root) {
        chmod(&entry, 0o755);
    }
    let out = match out {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            did_not_run("cannot become another user here");
            return;
        }
        other => other.unwrap(),
    };
    assert_eq!(said(&out.stdout), ["read"], "{}", String::from_utf8_lossy(&out.stdout));
}

/// The directories below, so that they can be deleted again.
fn walk(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![root.to_path_buf()];
    let mut at = 0;
    while at < found.len() {
        chmod(&found[at], 0o755);
        let inside = std::fs::read_dir(&found[at]).unwrap().map(|e| e.unwrap().path());
        let inside: Vec<_> = inside.filter(|p| p.is_dir()).collect();
        found.extend(inside);
        at += 1;
    }
    found
}
