//! What disks do: damage, no room, no permission. A clear error with its exit code, and nothing lost.

use std::path::Path;

use crate::running::walk;
use crate::space::{Space, bundle, events, steps};

#[test]
fn a_damaged_object_is_never_believed_and_is_made_again() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    for path in walk(&space.path("store/objects")) {
        flip(&path);
    }
    let report = space.pipe(&["store", "fsck"]);
    assert_eq!(report.code, 5, "{}", report.stdout);
    let ran = events(&space.pipe(&["run", "tiny.toml", "--force", "answer", "--json"]).ok());
    assert!(!steps(&ran, "step_remade").is_empty(), "{ran:?}");
    assert_eq!(ran.last().unwrap()["bundle"], bundle(&first));
    space.pipe(&["store", "fsck"]).ok();
}

/// Change one byte, whatever the file's mode.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let mode = std::fs::metadata(path).unwrap().permissions();
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

#[test]
fn a_lost_index_is_made_again() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    for entry in std::fs::read_dir(space.path("store")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("index") {
            std::fs::remove_file(path).unwrap();
        }
    }
    space.pipe(&["store", "fsck", "--repair"]).ok();
    assert_eq!(space.pipe(&["run", "tiny.toml"]).ok(), first);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clear_error_and_room_mends_it() {
    let space = Space::new();
    let mount = space.path("small");
    std::fs::create_dir(&mount).unwrap();
    let run = |program: &str, args: &[&str]| {
        std::process::Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    let target = mount.to_str().unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=320k", "tmpfs", target]) {
        println!("not run: a tmpfs cannot be mounted here");
        return;
    }
    let ran = space.pipe(&["run", "tiny.toml", "--store", target]);
    let grown = run("mount", &["-o", "remount,size=64m", target]);
    let again = space.pipe(&["run", "tiny.toml", "--store", target]);
    let sound = space.pipe(&["store", "fsck", "--store", target]);
    assert!(run("umount", &[target]));
    let error = ran.fails(5);
    assert!(error.contains("full") || error.contains("space"), "{error}");
    assert!(grown);
    again.ok();
    sound.ok();
}

#[cfg(unix)]
#[test]
fn a_store_that_cannot_be_written_is_a_clear_error() {
    let space = Space::new();
    // A file where the folder should be: refuses root as well.
    space.write("file", "");
    let error = space.pipe(&["run", "tiny.toml", "--store", "file/store"]).fails(5);
    assert!(error.contains("file/store"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_store_can_be_read_and_says_why_it_cannot_be_written() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    let store = space.path("store");
    let target = store.to_str().unwrap();
    let run = |args: &[&str]| {
        std::process::Command::new("mount").args(args).output().is_ok_and(|o| o.status.success())
    };
    if !run(&["--bind", target, target]) || !run(&["-o", "remount,ro,bind", target]) {
        println!("not run: a read-only mount cannot be made here");
        return;
    }
    let shown = space.pipe(&["show"]);
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 23");
    let ran = space.pipe(&["run", "tiny.toml"]);
    std::process::Command::new("umount").arg(target).status().unwrap();
    assert!(shown.ok().contains(&bundle(&first)));
    let error = ran.fails(5);
    assert!(error.contains("can only be read"), "{error}");
}
