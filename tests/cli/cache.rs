//! A store as one file: out, in, trimmed, damaged.

use serde_json::Value;

use crate::space::{Space, bundle, events, steps};

impl Space {
    fn export_to(&self, there: &Space, more: &[&str]) -> Value {
        let file = there.path("pipe.cache");
        let args = [&["store", "export", file.to_str().unwrap(), "--json"], more].concat();
        serde_json::from_str(&self.pipe(&args).ok()).unwrap()
    }

    /// Steps that ran, and the bundle.
    fn ran(&self, recipe: &str) -> (Vec<String>, String) {
        let events = events(&self.pipe(&["run", recipe, "--json"]).ok());
        let ran = steps(&events, "step_finished").into_iter().map(str::to_owned).collect();
        (ran, events.last().unwrap()["bundle"].as_str().unwrap().to_owned())
    }
}

#[test]
fn what_ran_here_is_a_hit_there() {
    let (here, there) = (Space::new(), Space::new());
    let cid = bundle(&here.pipe(&["run", "sampled.toml"]).ok());
    let other = bundle(&here.pipe(&["run", "score.toml"]).ok());
    let held = here.export_to(&there, &[]);
    assert_eq!((&held["held"]["runs"], &held["held"]["left_out"]), (&2.into(), &0.into()));
    there.pipe(&["store", "import", "pipe.cache"]).ok();
    // Runs come along, newest last; gc keeps what they made.
    let log = there.pipe(&["log"]).ok();
    assert_eq!(log, here.pipe(&["log"]).ok());
    there.pipe(&["store", "gc"]).ok();
    assert_eq!(there.ran("sampled.toml"), (vec![], cid));
    assert_eq!(there.ran("score.toml"), (vec![], other));
    assert!(there.pipe(&["store", "fsck"]).ok().contains("sound"));
    // Once more brings nothing, and the same store gives the same bytes.
    let again: Value =
        serde_json::from_str(&there.pipe(&["store", "import", "pipe.cache", "--json"]).ok()).unwrap();
    assert_eq!((&again["objects"], &again["records"], &again["runs"]), (&0.into(), &0.into(), &0.into()));
    let bytes = std::fs::read(there.path("pipe.cache")).unwrap();
    here.export_to(&there, &[]);
    assert_eq!(std::fs::read(there.path("pipe.cache")).unwrap(), bytes);
}

#[test]
fn a_size_is_kept_and_the_newest_comes_first() {
    let (here, there) = (Space::new(), Space::new());
    here.pipe(&["run", "tiny.toml"]).ok();
    here.edit("tiny.toml", "France", "Spain");
    let newest = bundle(&here.pipe(&["run", "tiny.toml"]).ok());
    let whole = here.export_to(&there, &[])["bytes"].as_u64().unwrap();
    for size in [0, 5_000, 60_000, 200_000, whole - 1] {
        let size = size.to_string();
        let held = here.export_to(&there, &["--max-size", &size]);
        let bytes = held["bytes"].as_u64().unwrap();
        assert!(bytes <= size.parse::<u64>().unwrap().max(4096), "{held}");
        assert!(held["held"]["left_out"].as_u64().unwrap() > 0, "{held}");
        assert_eq!(std::fs::metadata(there.path("pipe.cache")).unwrap().len(), bytes);
        there.pipe(&["store", "import", "pipe.cache"]).ok();
    }
    // The model (149,280 bytes) and the packed weights are too much for 60,000, the newest answer is not.
    let third = Space::new();
    third.edit("tiny.toml", "France", "Spain");
    here.export_to(&third, &["--max-size", "60kB"]);
    third.pipe(&["store", "import", "pipe.cache"]).ok();
    let (ran, cid) = third.ran("tiny.toml");
    assert!(!ran.contains(&"answer".to_owned()) && ran.contains(&"model".to_owned()), "{ran:?}");
    assert_eq!(cid, newest);
}

#[test]
fn a_damaged_file_is_refused_with_nothing_taken() {
    let (here, there) = (Space::new(), Space::new());
    here.pipe(&["run", "tiny.toml"]).ok();
    here.export_to(&there, &[]);
    let good = std::fs::read(there.path("pipe.cache")).unwrap();
    let try_it = |bad: &[u8], what: &str| {
        std::fs::write(there.path("bad.cache"), bad).unwrap();
        let error = there.pipe(&["store", "import", "bad.cache"]).fails(4);
        assert!(error.contains("bad.cache"), "{what}: {error}");
    };
    for (case, at) in (0..good.len()).step_by(good.len() / 61 + 1).enumerate() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (case % 8);
        try_it(&bad, &format!("byte {at}"));
    }
    for length in [0, 1, 10, 100, 2000, good.len() / 2, good.len() - 1] {
        try_it(&good[..length], &format!("{length} bytes"));
    }
    try_it(&[good.as_slice(), b"\0"].concat(), "something behind the end");
    // Cut at the border of two blocks: every block is whole, and one is gone.
    let mut car = pipe::bundle::car::CarReader::with_limit(good.as_slice(), 1 << 40).unwrap();
    let mut last = 0;
    while let Some(section) = car.next_section().unwrap() {
        last = section.offset as usize;
    }
    std::fs::write(there.path("bad.cache"), &good[..last]).unwrap();
    let error = there.pipe(&["store", "import", "bad.cache"]).fails(4);
    assert!(error.contains("is listed, and not in the file"), "{error}");
    // A bundle's CAR is no cache, nor is a cache a bundle's CAR.
    here.pipe(&["export", "--output", there.path("bundle.car").to_str().unwrap()]).ok();
    there.pipe(&["store", "import", "bundle.car"]).fails(4);
    there.pipe(&["import", "pipe.cache"]).fails(4);
    there.pipe(&["store", "import", "none.cache"]).fails(2);
    assert_eq!(there.objects(), 0);
    assert_eq!(there.pipe(&["log"]).ok(), "");
    there.pipe(&["store", "import", "pipe.cache"]).ok();
    assert_eq!(there.ran("tiny.toml").0, [""; 0]);
}
