//! Deriving a published result again: identical, different, or impossible, step by step.

use std::io::Write;
use std::net::TcpListener;

use pipe::bundle::{Bundle, car};
use pipe::publish::{Claim, Link, Manifest};
use pipe_store::Store;

use crate::forge::{blocks, car as write_car, key, manifest, node, publish, published};
use crate::space::{Space, bundle, events};
use crate::tampering::sealed;

/// The verdicts of `pipe reproduce --json`, and its last line.
fn verdicts(stdout: &str) -> (Vec<serde_json::Value>, serde_json::Value) {
    let mut lines = events(stdout);
    let last = lines.pop().unwrap();
    (lines, last)
}

#[test]
fn a_car_and_an_empty_store_give_the_same_bytes() {
    for recipe in ["tiny.toml", "sampled.toml", "score.toml"] {
        let (_home, cid, car) = published(recipe);
        let there = Space::new();
        // No recipe, no model.
        std::fs::remove_file(there.path("tiny.gguf")).unwrap();
        let args = ["reproduce", car.to_str().unwrap(), "--ipfs", "off", "--threads", "1", "--json"];
        let (steps, last) = verdicts(&there.pipe(&args).ok());
        assert!(steps.len() >= 4 && steps.iter().all(|step| step["verdict"] == "identical"), "{steps:#?}");
        assert_eq!(last["ok"], true);
        assert_eq!(last["manifest"]["cid"], cid.to_string());
        // By the CID, now that it is here; nothing of the fresh store is left.
        there.pipe(&["reproduce", &cid.to_string(), "--ipfs", "off", "--reuse"]).ok();
        there.pipe(&["verify", &cid.to_string(), "--level", "full", "--ipfs", "off"]).ok();
        let left = std::fs::read_dir(there.path("store")).unwrap().flatten();
        assert!(left.into_iter().all(|e| !e.file_name().to_string_lossy().starts_with("reproduce-")));
    }
}

#[test]
fn a_run_of_this_store_is_derived_again_too() {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    let said = space.pipe(&["reproduce", "--ipfs", "off"]).ok();
    assert!(said.contains("4 of 4 steps identical"), "{said}");
}

#[test]
fn an_attestation_is_an_entry_of_the_own_chain() {
    let (_home, cid, car) = published("tiny.toml");
    let there = Space::new();
    let car = car.to_str().unwrap();
    let args = ["reproduce", car, "--ipfs", "off", "--attest", "--in-toto", "it.json"];
    let said = there.pipe(&args).ok();
    let entries = events(&there.pipe(&["log", "--chain", "--json"]).ok());
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0]["claim"], &entries[0]["of"]), (&"reproduced".into(), &cid.to_string().into()));
    assert_eq!(entries[0]["key"], there.pipe(&["key"]).ok().trim());
    assert!(said.ends_with(&format!("attested {}\n", entries[0]["cid"].as_str().unwrap())), "{said}");
    let text = std::fs::read_to_string(there.path("it.json")).unwrap();
    let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicate"]["result"], "PASSED");
    assert_eq!(statement["predicate"]["passedTests"].as_array().unwrap().len(), 4);
    let bundle: cid::Cid = entries[0]["bundle"].as_str().unwrap().parse().unwrap();
    let digest = car::digest_of(&bundle).unwrap().to_string();
    assert_eq!(statement["subject"][0]["digest"]["blake3"], digest);
}

/// A signed result in which one output of `answer` is another.
fn lie(space: &Space, output: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let store = Store::open(&space.path("store")).unwrap();
    let digest = car::digest_of(&cid.parse().unwrap()).unwrap();
    let mut sealed = Bundle::from_bytes(&store.get(&digest).unwrap()).unwrap();
    let lied = sealed.steps.get_mut("answer").unwrap().outputs.get_mut(output).unwrap();
    let mut bytes = store.get(&lied.digest).unwrap().to_vec();
    change(&mut bytes);
    lied.digest = store.put(&bytes).unwrap();
    lied.link = Some(car::cid_raw(&lied.digest));
    let mut all = vec![node(sealed.to_bytes())];
    for (_, _, output) in sealed.outputs().filter(|(_, _, o)| o.link.is_some()) {
        let bytes = store.get(&output.digest).unwrap().to_vec();
        all.push(car::Block { cid: car::cid_raw(&output.digest), bytes });
    }
    let first = Link { previous: None, sequence: 0 };
    let draft = Manifest::draft(Claim::Published, all[0].cid, Default::default(), 1);
    all.insert(0, node(draft.signed(&key(space), first).to_bytes()));
    write_car(&all)
}

#[test]
fn a_signed_lie_is_found_and_named() {
    let (space, there) = (Space::new(), Space::new());
    let text = lie(&space, "answers.json", |bytes| {
        let at = bytes.windows(5).position(|w| w == b"theus").unwrap();
        bytes[at] = b'T';
    });
    std::fs::write(there.path("lie.car"), text).unwrap();
    let ran = there.pipe(&["reproduce", "lie.car", "--ipfs", "off", "--json", "--attest"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let (steps, last) = verdicts(&ran.stdout);
    let named: Vec<_> = steps.iter().map(|s| (s["step"].as_str().unwrap(), &s["verdict"])).collect();
    let same = serde_json::Value::from("identical");
    let differs = serde_json::Value::from("differs");
    let all = [("model", &same), ("model.pack-f32", &same), ("prompt", &same), ("answer", &differs)];
    assert_eq!(named, all);
    let found = &steps[3];
    assert_eq!((&found["output"], &found["place"]["at"]), (&"answers.json".into(), &"byte".into()));
    assert_eq!((&found["place"]["expected"], &found["place"]["found"]), (&b'T'.into(), &b't'.into()));
    // What is not the same is not signed.
    assert_eq!((&last["ok"], &last["attested"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(there.pipe(&["log", "--chain"]).ok(), "");

    let trace = lie(&space, "trace.safetensors", |bytes| {
        let end = bytes.len() - 1;
        bytes[end] ^= 0x40;
    });
    std::fs::write(there.path("lie.car"), trace).unwrap();
    let ran = there.pipe(&["reproduce", "lie.car", "--ipfs", "off"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("differs in trace.safetensors: prompt 0, position "), "{}", ran.stdout);
}

/// All outputs are true, and something else in the bundle is not.
#[test]
fn a_lie_beside_the_outputs_is_found() {
    let (space, _, file) = published("tiny.toml");
    let (all, there) = (blocks(&file), Space::new());
    let key = sealed(&space, &all, |bundle| bundle.steps.get_mut("answer").unwrap().key.0[0] ^= 1);
    let media = sealed(&space, &all, |bundle| {
        let output = bundle.steps.get_mut("answer").unwrap().outputs.get_mut("answers.json").unwrap();
        output.media_type = "text/plain".into();
    });
    for (lie, step, output) in [(key, "answer", "key"), (media, "bundle", "bundle")] {
        std::fs::write(there.path("lie.car"), write_car(&lie)).unwrap();
        let ran = there.pipe(&["reproduce", "lie.car", "--ipfs", "off", "--json"]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        let (steps, last) = verdicts(&ran.stdout);
        let differ: Vec<_> = steps.iter().filter(|s| s["verdict"] != "identical").collect();
        assert_eq!((differ.len(), &last["ok"]), (1, &false.into()), "{steps:#?}");
        assert_eq!((&differ[0]["step"], &differ[0]["output"]), (&step.into(), &output.into()));
    }
}

/// A web server for one file, until told to serve another.
fn serve(body: std::sync::Arc<std::sync::Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tiny.gguf", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = body.lock().unwrap().clone();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

#[test]
fn weights_are_fetched_by_hash_and_others_under_their_name_are_not_taken() {
    let space = Space::new();
    let honest = std::fs::read(space.path("tiny.gguf")).unwrap();
    let body = std::sync::Arc::new(std::sync::Mutex::new(honest.clone()));
    let url = serve(body.clone());
    let fetch =
        format!("op = \"fetch\"\nfrom = [\"{url}\"]\nblake3 = \"{}\"", pipe_store::Digest::of(&honest));
    space.edit("tiny.toml", "op = \"file\"\npath = \"tiny.gguf\"", &fetch);
    space.pipe(&["run", "tiny.toml"]).ok();
    let (cid, car) = publish(&space);
    // The weights did not travel.
    assert!(std::fs::metadata(&car).unwrap().len() < honest.len() as u64);
    let there = Space::new();
    there.pipe(&["reproduce", car.to_str().unwrap(), "--ipfs", "off"]).ok();

    body.lock().unwrap()[9999] ^= 1;
    let ran = there.pipe(&["reproduce", &cid.to_string(), "--ipfs", "off", "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let (steps, _) = verdicts(&ran.stdout);
    let model = steps.iter().find(|step| step["step"] == "model").unwrap();
    assert_eq!(model["verdict"], "could_not_run");
    assert!(model["why"].as_str().unwrap().contains(&url), "{model}");
    // Whoever has the right ones under any name may give them: the maker of the run does.
    space.pipe(&["reproduce", &cid.to_string(), "--ipfs", "off"]).ok();
    // With the inputs in the CAR nobody needs the server.
    let all =
        space.pipe(&["publish", "--ipfs", "off", "--with-inputs", "--output", "all.car", "--json"]).ok();
    assert!(all.contains("all.car"));
    let third = Space::new();
    third.pipe(&["reproduce", space.path("all.car").to_str().unwrap(), "--ipfs", "off"]).ok();
}

#[test]
fn a_local_file_too_long_to_travel_is_asked_for() {
    let space = Space::new();
    // Padding behind the weights changes nothing that is computed.
    let mut model = std::fs::read(space.path("tiny.gguf")).unwrap();
    model.resize(model.len() + (2 << 20), 0);
    std::fs::write(space.path("tiny.gguf"), &model).unwrap();
    space.pipe(&["run", "tiny.toml"]).ok();
    let (_, car) = publish(&space);
    let there = Space::new();
    let car = car.to_str().unwrap();
    let ran = there.pipe(&["reproduce", car, "--ipfs", "off"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("--input model=PATH"), "{}", ran.stdout);
    std::fs::write(there.path("elsewhere.gguf"), &model).unwrap();
    there.pipe(&["reproduce", car, "--ipfs", "off", "--input", "model=elsewhere.gguf"]).ok();
    let error = there.pipe(&["reproduce", car, "--ipfs", "off", "--input", "none=x"]).fails(2);
    assert!(error.contains("none"), "{error}");
}

#[test]
fn outputs_over_a_mebibyte_travel_in_blocks_that_nodes_take() {
    let space = Space::new();
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let long = text.replace("max_tokens = 24", "max_tokens = 200\nstop = false\ntrace = \"full\"");
    assert_ne!(long, text);
    space.write("tiny.toml", &long);
    space.pipe(&["run", "tiny.toml"]).ok();
    let (_, car) = publish(&space);
    let blocks = blocks(&car);
    assert!(blocks.iter().any(|block| block.cid.codec() == car::DAG_PB), "no output was long enough");
    assert!(blocks.iter().all(|block| block.bytes.len() <= 1 << 20));
    let sealed = Bundle::from_bytes(&blocks[1].bytes).unwrap();
    assert_eq!(sealed.version, 2);
    assert_eq!(manifest(&blocks).bundle, blocks[1].cid);
    let there = Space::new();
    there.pipe(&["reproduce", car.to_str().unwrap(), "--ipfs", "off"]).ok();
    let output = |space: &Space| {
        space.pipe(&["show", &blocks[1].cid.to_string(), "--output", "answer/trace.safetensors"])
    };
    assert!(output(&there).stdout == output(&space).stdout);
    // The address needs the bytes once only.
    let again = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    assert_eq!(again, blocks[1].cid.to_string());
}
