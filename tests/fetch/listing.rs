//! Files and folders of this machine as inputs.

use std::sync::atomic::AtomicBool;

use pipe::ops::fetch::{ListError, digest_file, list};
use pipe_store::Digest;

use crate::desk::Desk;

#[test]
fn a_folder_is_listed_in_byte_order_without_hidden_files() {
    let desk = Desk::new();
    for name in ["m/b.txt", "m/a/z", "m/a.txt", "m/B", "m/.git/x", "m/a/.hidden", "m/ä"] {
        desk.write(name, name.as_bytes());
    }
    std::fs::create_dir(desk.path("m/empty")).unwrap();
    let found = list(&desk.path("m")).unwrap();
    let names: Vec<_> = found.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["B", "a.txt", "a/z", "b.txt", "ä"]);
    assert_eq!(found[2].length, 5);
    assert_eq!(std::fs::read(&found[2].path).unwrap(), b"m/a/z");
}

#[test]
fn a_file_is_a_listing_of_one() {
    let desk = Desk::new();
    let path = desk.write("x.gguf", b"abc");
    let found = list(&path).unwrap();
    assert_eq!((found.len(), found[0].name.as_str(), found[0].length), (1, "x.gguf", 3));
    let never = AtomicBool::new(false);
    assert_eq!(digest_file(&path, &|_| {}, &never).unwrap(), (Digest::of(b"abc"), 3));
    assert!(matches!(digest_file(&path, &|_| {}, &AtomicBool::new(true)), Err(ListError::Cancelled)));
    assert!(matches!(digest_file(desk.dir.path(), &|_| {}, &never), Err(ListError::Special { .. })));
}

#[test]
fn what_cannot_be_listed_is_named() {
    let desk = Desk::new();
    let text = list(&desk.path("none")).unwrap_err().to_string();
    assert!(text.contains("none"), "{text}");
    desk.write("hidden/.x", b"");
    assert!(matches!(list(&desk.path("hidden")), Err(ListError::Empty { .. })));
    desk.write(&format!("deep/{}x", "d/".repeat(40)), b"");
    assert!(matches!(list(&desk.path("deep")), Err(ListError::TooDeep { .. })));
}

#[cfg(unix)]
#[test]
fn links_stay_inside() {
    use std::os::unix::fs::symlink;
    let desk = Desk::new();
    desk.write("secret", b"secret");
    desk.write("m/data/real", b"abc");
    symlink("data/real", desk.path("m/link")).unwrap();
    let names: Vec<_> = list(&desk.path("m")).unwrap().into_iter().map(|e| (e.name, e.length)).collect();
    assert_eq!(names, [("data/real".to_owned(), 3), ("link".to_owned(), 3)]);

    // the folder itself may be a link
    symlink("m", desk.path("alias")).unwrap();
    assert_eq!(list(&desk.path("alias")).unwrap().len(), 2);

    symlink("data", desk.path("m/folder")).unwrap();
    assert!(matches!(list(&desk.path("m")), Err(ListError::LinkedFolder { .. })));
    std::fs::remove_file(desk.path("m/folder")).unwrap();
    symlink("../secret", desk.path("m/out")).unwrap();
    assert!(matches!(list(&desk.path("m")), Err(ListError::Escapes { .. })));
    std::fs::remove_file(desk.path("m/out")).unwrap();
    symlink("nowhere", desk.path("m/broken")).unwrap();
    assert!(matches!(list(&desk.path("m")), Err(ListError::Read { .. })));
}
