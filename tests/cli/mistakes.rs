//! Mistakes of a user: the recipe, the arguments, the files. The exact texts of recipe errors are cases of
//! their own; here it is the exit code and the way to the terminal.

use crate::space::Space;

#[test]
fn every_mistake_of_a_recipe_is_reported_at_once() {
    let space = Space::new();
    space.write(
        "bad.toml",
        "[pipeline]\nname = \"bad\"\n\n[steps.a]\nop = \"file\"\npath = \"missing.gguf\"\ncolour = 1\n\n\
         [steps.b]\nop = \"tokenise\"\nmodel = \"a\"\ntext = \"x\"\n\n\
         [steps.c]\nop = \"infer\"\nmodel = \"aa\"\ntokens = \"b\"\nmax_tokens = \"many\"\n",
    );
    let error = space.pipe(&["run", "bad.toml"]).fails(3);
    for word in [
        "bad.toml:6",
        "missing.gguf",
        "bad.toml:7",
        "colour",
        "tokenise",
        "tokenize",
        "bad.toml:16",
        "bad.toml:18",
        "max_tokens",
    ] {
        assert!(error.contains(word), "no `{word}` in\n{error}");
    }
    assert!(!space.path("store").exists(), "a bad recipe touched the store");
    let json = space.pipe(&["plan", "bad.toml", "--json"]).fails(3);
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.len() > 4 && lines[0]["line"].is_u64(), "{json}");
}

#[test]
fn a_recipe_that_is_not_there_or_not_text() {
    let space = Space::new();
    space.pipe(&["run", "nowhere.toml"]).fails(3);
    std::fs::write(space.path("binary.toml"), [0xff, 0xfe, 0, 1]).unwrap();
    space.pipe(&["run", "binary.toml"]).fails(3);
    space.pipe(&["run", "."]).fails(3);
}

#[test]
fn weights_that_are_not_weights_name_the_field() {
    let space = Space::new();
    let good = std::fs::read(space.path("tiny.gguf")).unwrap();
    std::fs::write(space.path("tiny.gguf"), &good[..good.len() / 2]).unwrap();
    let error = space.pipe(&["run", "tiny.toml"]).fails(4);
    assert!(error.contains("tensor"), "{error}");
    std::fs::write(space.path("tiny.gguf"), b"<html>not found</html>").unwrap();
    space.pipe(&["run", "tiny.toml"]).fails(4);
    std::fs::write(space.path("tiny.gguf"), b"").unwrap();
    space.pipe(&["run", "tiny.toml"]).fails(4);
}

#[test]
fn a_fetch_with_a_wrong_hash_names_both_and_keeps_nothing() {
    let space = Space::new();
    let wrong = "0".repeat(64);
    let right = {
        use sha2::Digest;
        let bytes = std::fs::read(space.path("tiny.gguf")).unwrap();
        pipe_store::hex(&sha2::Sha256::digest(bytes))
    };
    space.write(
        "fetch.toml",
        &format!("[pipeline]\nname = \"f\"\n[steps.w]\nop = \"fetch\"\nfrom = \"file:tiny.gguf\"\nsha256 = \"{wrong}\"\n"),
    );
    let error = space.pipe(&["run", "fetch.toml"]);
    assert!(error.code == 4 || error.code == 6, "{}", error.stderr);
    assert!(error.stderr.contains(&wrong) && error.stderr.contains(&right), "{}", error.stderr);
    assert_eq!(space.objects(), 0);
    space.edit("fetch.toml", &wrong, &right);
    space.pipe(&["run", "fetch.toml"]).ok();
}
