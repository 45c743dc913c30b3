//! `pipe specs`: the card of every spec, as a table, as JSON, as a picture; and what it says of mistakes.

use serde_json::Value;

use crate::space::Space;

const SPECS: [&str; 5] = ["f32", "q8", "q4", "q8a8", "q4a8"];
/// The least that can be measured: what is looked at here does not depend on speed.
const QUICK: [&str; 6] = ["--prompt", "4", "--gen", "2", "--reps", "1"];

fn with_quick<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let threads: &[&str] = if args.contains(&"--threads") { &[] } else { &["--threads", "1"] };
    [args, &QUICK, threads].concat()
}

/// The card as JSON; over a short text unless another is asked for, since most of the time goes there.
#[track_caller]
fn card(space: &Space, args: &[&str]) -> Value {
    let mut args = with_quick(args);
    if !args.contains(&"--text") {
        space.write("short.txt", "When the tide is out, the boats lie on the sand and wait for the sea.");
        args.extend(["--text", "short.txt"]);
    }
    args.extend(["specs", "--json"]);
    args.rotate_right(2);
    serde_json::from_str(&space.pipe(&args).ok()).unwrap()
}

/// All of a card that must be the same anywhere: no speed, no memory, no front.
fn facts(card: &Value) -> Value {
    let rows = card["specs"].as_array().unwrap().iter();
    let rows = rows.map(|row| {
        ["spec", "weights_bytes", "bytes_per_token", "same_weights", "stored_weights"].map(|f| row[f].clone())
    });
    serde_json::json!([card["text"], card["files"], rows.collect::<Vec<_>>()])
}

#[test]
fn a_table_and_json_of_every_spec() {
    let space = Space::new();
    let temporary = space.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let run = |args: &[&str]| {
        let output = space.command(&with_quick(args)).env("TMPDIR", &temporary).output().unwrap();
        crate::space::Ran::from(output).ok()
    };
    let table = run(&["specs", "tiny.gguf"]);
    for spec in SPECS {
        let named = |line: &&str| line.trim_start_matches('*').split_whitespace().next() == Some(spec);
        assert_eq!(table.lines().filter(named).count(), 1, "{spec}:\n{table}");
    }
    let json: Value = serde_json::from_str(&run(&["specs", "tiny.gguf", "--json"])).unwrap();
    let rows = json["specs"].as_array().unwrap();
    assert!(rows.iter().map(|r| r["spec"].as_str().unwrap().trim_end_matches("@1")).eq(SPECS), "{json}");
    let positions = json["text"]["positions"].as_u64().unwrap();
    assert!(positions > 500 && json["text"]["window"] == 256, "{json}");
    assert!(table.contains(json["text"]["blake3"].as_str().unwrap()), "{table}");
    for row in rows {
        for field in ["prefill_tokens_per_s", "decode_tokens_per_s", "weights_bytes", "bytes_per_token"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field}: {row}");
        }
        let kl = |field: &str| row[field]["mean_kl"].as_f64().unwrap();
        assert_eq!(row["same_weights"]["positions"], positions, "{row}");
        match row["spec"].as_str().unwrap() {
            "f32@1" => {
                let exact = serde_json::json!(
                    { "mean_kl": 0.0, "max_kl": 0.0, "top1_agreement": 100.0, "positions": positions }
                );
                assert_eq!((&row["same_weights"], &row["stored_weights"]), (&exact, &exact));
                assert_eq!(row["pareto"], true, "nothing is nearer to f32 than f32: {row}");
            }
            // Narrower weights cost more than the arithmetic adds.
            _ => assert!(0.0 < kl("same_weights") && kl("same_weights") < kl("stored_weights"), "{row}"),
        }
        if cfg!(target_os = "linux") {
            let memory = |field: &str| row["memory"][field].as_u64().unwrap();
            assert!(memory("beyond_weights_bytes") > 0, "{row}");
            assert!(memory("peak_bytes") > memory("beyond_weights_bytes"), "{row}");
        }
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "packed weights were left behind");
}

#[test]
fn fidelity_does_not_depend_on_what_computes() {
    let space = Space::new();
    let one = card(&space, &["tiny.gguf", "--spec", "q8,q4a8", "--threads", "1", "--impl", "scalar"]);
    let other = card(&space, &["tiny.gguf", "--spec", "q4a8,q8", "--threads", "3"]);
    assert_eq!(facts(&one), facts(&other));
    assert_eq!(one["specs"].as_array().unwrap().len(), 2);
}

#[test]
fn a_recipe_a_run_a_cid_and_a_file_are_one_model() {
    let space = Space::new();
    let error = space.pipe(&["specs", "tiny.toml"]).fails(2);
    assert!(error.contains("pipe run tiny.toml"), "{error}");
    assert!(space.pipe(&["specs"]).fails(2).contains("no runs yet"));
    let cid = crate::space::bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let log = space.pipe(&["log"]).ok();
    let run = log.split_whitespace().next().unwrap();
    let file = card(&space, &["tiny.gguf", "--spec", "q4"]);
    for of in [Some("tiny.toml"), Some(run), Some(cid.as_str()), None] {
        let args: Vec<&str> = of.into_iter().chain(["--spec", "q4"]).collect();
        assert_eq!(facts(&card(&space, &args)), facts(&file), "{of:?}");
    }
    space.pipe(&["specs", "tiny.toml", "--step", "prompt"]).fails(2);
}

#[test]
fn of_several_models_one_is_chosen() {
    let space = Space::new();
    std::fs::write(space.path("other.gguf"), {
        // Another name is another file.
        let bytes = std::fs::read(space.path("tiny.gguf")).unwrap();
        let at = bytes.windows(3).position(|w| w == b"toy").unwrap();
        [&bytes[..at], b"tox", &bytes[at + 3..]].concat()
    })
    .unwrap();
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    space.write(
        "two.toml",
        &format!(
            "{text}\n[steps.other]\nop = \"file\"\npath = \"other.gguf\"\n\n[steps.second]\nop = \"infer\"\n\
             model = \"other\"\ntokens = \"prompt\"\nmax_tokens = 2\n"
        ),
    );
    space.pipe(&["run", "two.toml"]).ok();
    let error = space.pipe(&["specs", "two.toml"]).fails(2);
    assert!(error.contains("--step") && error.contains("answer, second"), "{error}");
    assert_eq!(card(&space, &["two.toml", "--step", "second", "--spec", "f32"])["model"], "tox");
    assert_eq!(card(&space, &["two.toml", "--step", "answer", "--spec", "f32"])["model"], "toy");
}

#[test]
fn the_picture_is_well_formed_and_shows_every_spec() {
    let space = Space::new();
    let args = with_quick(&[
        "specs",
        "tiny.gguf",
        "--svg",
        "card.svg",
        "--by",
        "prefill",
        "--against",
        "stored",
        "--text",
        "tiny.toml",
    ]);
    assert_eq!(space.pipe(&args).ok(), "", "the picture instead of the table");
    let svg = std::fs::read_to_string(space.path("card.svg")).unwrap();
    well_formed(&svg);
    for spec in SPECS {
        assert_eq!(svg.matches(&format!(">{spec}</text>")).count(), 1, "{spec}:\n{svg}");
    }
    let marks = |class: &str| svg.matches(&format!("class=\"{class}\"")).count();
    assert!(marks("front") > 0 && marks("front") + marks("beaten") == SPECS.len(), "{svg}");
    assert!(svg.contains("prefill, tokens/s") && svg.contains("stored weights"), "{svg}");
}

/// Tags nest, attributes are quoted, `&` begins an entity. Enough of XML for what is written here.
#[track_caller]
fn well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut roots = 0;
    for (i, piece) in xml.split('<').enumerate() {
        let Some((tag, words)) = piece.split_once('>') else {
            assert!(i == 0 && piece.trim().is_empty(), "no end of a tag: {piece}");
            continue;
        };
        assert!(!words.contains('>'), "{piece}");
        for entity in piece.split('&').skip(1) {
            let name = entity.split(';').next().unwrap();
            assert!(["lt", "gt", "amp", "quot"].contains(&name), "&{name}");
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{piece}");
        } else {
            roots += usize::from(open.is_empty());
            let name = tag.split([' ', '/']).next().unwrap();
            let attributes = tag[name.len()..].trim_end_matches('/');
            // name="value" pairs: outside the quotes there are names and `=` only.
            for (j, part) in attributes.split('"').enumerate().filter(|(j, _)| j % 2 == 0) {
                let last = j == attributes.matches('"').count();
                assert!(last && part.trim().is_empty() || !last && part.ends_with('='), "{piece}");
            }
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(!open.is_empty() || words.trim().is_empty(), "words outside: {words}");
    }
    assert!(open.is_empty() && roots == 1, "{open:?}, {roots} roots");
}

#[test]
fn a_text_of_ones_own() {
    let space = Space::new();
    space.write("own.txt", "The cat sat on the mat.");
    let own = card(&space, &["tiny.gguf", "--spec", "q8", "--text", "own.txt"]);
    assert_eq!(own["text"]["name"], "own.txt");
    assert!(own["text"]["positions"].as_u64().unwrap() < 24, "{own}");
    space.write("own.txt", "");
    for args in [["--text", "own.txt"], ["--text", "missing.txt"]] {
        let error = space.pipe(&[&["specs", "tiny.gguf"], &args[..]].concat()).fails(2);
        assert!(error.contains(args[1]), "{error}");
    }
}

#[test]
fn mistakes_are_told_before_anything_is_measured() {
    let space = Space::new();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["tiny.gguf", "--spec", "q8a"], 2, "did you mean"),
        (&["tiny.gguf", "--prompt", "257"], 2, "context of 256"),
        (&["tiny.gguf", "--svg", "nowhere/card.svg"], 2, "nowhere"),
        (&["tiny.gguf", "--by", "decoding"], 2, "decode"),
        (&["tiny.gguf", "--step", "answer"], 2, "no step"),
        (&["tini.gguf"], 2, "no file, run or CID"),
        (&["tini.toml"], 3, "tini.toml"),
    ];
    for (args, code, word) in cases {
        let error = space.pipe(&[&["specs"], args].concat()).fails(code);
        assert!(error.contains(word), "{args:?}: {error}");
    }
    std::fs::write(space.path("bad.gguf"), b"no model").unwrap();
    space.pipe(&["specs", "bad.gguf"]).fails(4);
}

/// A terminal's Ctrl-C goes to the processes that measure as well; another sender may mean the first alone.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_weights_and_no_process_behind() {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    for whole_group in [true, false] {
        let space = Space::new();
        let mut command = space.command(&["specs", "tiny.gguf", "--spec", "q4", "--reps", "1000000"]);
        command.env("TMPDIR", space.path("")).process_group(0);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("speed and memory") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it measured");
        }
        let whom = format!("{}{}", if whole_group { "-" } else { "" }, child.id());
        let sent = std::process::Command::new("kill").args(["-INT", "--", &whom]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        // Ends only when every process that holds this stderr has.
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(rest.contains("error: stopped"), "{rest}");
        let left = std::fs::read_dir(space.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("pipe-specs")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
