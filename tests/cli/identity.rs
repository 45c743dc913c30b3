//! One bundle CID: cold or warm, any threads, any implementation, any folder, any store.

use crate::space::{Space, bundle};

#[test]
fn one_cid_for_every_way_to_run() {
    let cids: Vec<String> = [
        vec!["run", "tiny.toml", "--threads", "1", "--jobs", "1"],
        vec!["run", "tiny.toml", "--threads", "3", "--jobs", "4"],
        vec!["run", "tiny.toml", "--threads", "8", "--impl", "scalar"],
        vec!["run", "tiny.toml", "--check"],
    ]
    .iter()
    .flat_map(|args| {
        // Each in a folder and a store of its own, cold, then warm.
        let space = Space::new();
        let cold = bundle(&space.pipe(args).ok());
        let warm = bundle(&space.pipe(args).ok());
        [cold, warm]
    })
    .collect();
    assert!(cids.iter().all(|cid| *cid == cids[0]), "{cids:#?}");
}

#[test]
fn the_order_and_comments_of_a_recipe_do_not_matter() {
    let space = Space::new();
    let one = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let table: toml::Table = std::fs::read_to_string(space.path("tiny.toml")).unwrap().parse().unwrap();
    // toml prints tables sorted, without comments.
    space.write("sorted.toml", &table.to_string());
    assert_eq!(bundle(&space.pipe(&["run", "sorted.toml"]).ok()), one);
}

#[test]
fn one_flipped_bit_of_a_weight_is_another_bundle() {
    let (space, other) = (Space::new(), Space::new());
    let one = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let mut weights = std::fs::read(other.path("tiny.gguf")).unwrap();
    let last = weights.len() - 5;
    weights[last] ^= 1;
    std::fs::write(other.path("tiny.gguf"), weights).unwrap();
    assert_ne!(bundle(&other.pipe(&["run", "tiny.toml"]).ok()), one);
}

#[test]
fn seeded_draws_repeat_and_another_seed_differs() {
    let (space, other) = (Space::new(), Space::new());
    let one = space.pipe(&["run", "sampled.toml"]).ok();
    assert_eq!(other.pipe(&["run", "sampled.toml", "--threads", "3"]).ok(), one);
    let text = std::fs::read_to_string(other.path("sampled.toml")).unwrap();
    let seed = text.split("seed = ").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
    other.edit("sampled.toml", &format!("seed = {seed}"), "seed = 987654321");
    assert_ne!(other.pipe(&["run", "sampled.toml"]).ok(), one);
}

#[test]
fn one_cid_for_every_implementation_this_machine_has() {
    let doctor: serde_json::Value =
        serde_json::from_str(&Space::new().pipe(&["doctor", "--json"]).ok()).unwrap();
    let names: Vec<&str> =
        doctor["cpu"]["implementations"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(names.contains(&"scalar"), "{doctor}");
    let run = |name: &str| bundle(&Space::new().pipe(&["run", "tiny.toml", "--impl", name]).ok());
    let cids: Vec<String> = names.iter().map(|name| run(name)).collect();
    assert!(cids.iter().all(|cid| *cid == cids[0]), "{names:?} {cids:#?}");
}
