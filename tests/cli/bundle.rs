//! A bundle out of one store and into another.

use crate::space::{Space, bundle};

#[test]
fn a_car_carries_the_answer_to_an_empty_store() {
    let (here, there) = (Space::new(), Space::new());
    let ran = here.pipe(&["run", "tiny.toml"]).ok();
    let cid = bundle(&ran);
    let car = there.path("result.car");
    assert_eq!(here.pipe(&["export", "--output", car.to_str().unwrap()]).ok().trim(), cid);
    assert_eq!(there.pipe(&["import", "result.car"]).ok().trim(), cid);
    let shown = there.pipe(&["show", &cid]).ok();
    let answer = ran.lines().next().unwrap();
    assert!(shown.starts_with(answer), "{shown}");
    assert_eq!(
        there.pipe(&["show", &cid, "--output", "answer/answers.json"]).ok(),
        here.pipe(&["show", "--output", "answer/answers.json"]).ok()
    );
    // What came in is kept by gc.
    there.pipe(&["store", "gc"]).ok();
    assert_eq!(there.pipe(&["show", &cid]).ok(), shown);
    // The same export again has the same bytes.
    here.pipe(&["export", "--output", "again.car"]).ok();
    assert_eq!(std::fs::read(here.path("again.car")).unwrap(), std::fs::read(car).unwrap());
}

#[test]
fn a_tampered_car_leaves_nothing_behind() {
    let (here, there) = (Space::new(), Space::new());
    let cid = bundle(&here.pipe(&["run", "tiny.toml"]).ok());
    here.pipe(&["export", "--output", "result.car"]).ok();
    let car = std::fs::read(here.path("result.car")).unwrap();
    let places = (0..car.len()).step_by(car.len() / 61 + 1);
    for (case, at) in places.enumerate() {
        let mut bad = car.clone();
        bad[at] ^= 1 << (case % 8);
        std::fs::write(there.path("bad.car"), &bad).unwrap();
        let error = there.pipe(&["import", "bad.car"]).fails(4);
        assert!(error.contains("bad.car"), "byte {at}: {error}");
        there.pipe(&["show", &cid]).fails(5);
    }
    for length in [0, 1, 10, car.len() / 2, car.len() - 1] {
        std::fs::write(there.path("bad.car"), &car[..length]).unwrap();
        there.pipe(&["import", "bad.car"]).fails(4);
    }
    assert_eq!(there.objects(), 0);
}

#[test]
fn a_run_that_failed_has_no_bundle() {
    let space = Space::new();
    space.edit("tiny.toml", "[steps.prompt]", "[steps.prompt]\nids = [999999]");
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["steps"]["prompt"].as_table_mut().unwrap().retain(|k, _| k == "op" || k == "model" || k == "ids");
    space.write("tiny.toml", &table.to_string());
    space.pipe(&["run", "tiny.toml"]).fails(4);
    let error = space.pipe(&["export"]).fails(2);
    assert!(error.contains("no bundle"), "{error}");
}
