//! Recipes as a user writes them: every mistake is reported at once, in words that stay the same.
//! `UPDATE_EXPECT=1 cargo test --test recipe` writes the expected reports anew; read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::pipeline;
use pipe::recipe::{self, LoadError, Recipe};
use proptest::prelude::*;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A case's recipe under its bare name, so that no machine's path gets into a report.
fn case(path: &Path) -> Recipe {
    let name = path.file_name().unwrap().to_string_lossy();
    recipe::parse(&name, path.parent().unwrap(), fs::read_to_string(path).unwrap())
}

#[test]
fn every_mistake_is_reported_as_expected() {
    let folder = here("tests/cases/recipe");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    cases.sort();
    assert!(cases.len() >= 25, "only {} cases in {}", cases.len(), folder.display());
    let mut wrong = Vec::new();
    for path in cases {
        let recipe = case(&path);
        let found = pipeline::compile(&recipe).expect_err(&format!("{} compiles", path.display()));
        let report = recipe::render(&found, &recipe.text, false);
        // The folder's path is in messages about files.
        let report = report.replace(&format!("{}/", folder.display()), "");
        let expected = path.with_extension("stderr");
        if update {
            fs::write(&expected, &report).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != report {
            wrong.push(format!("{}:\n{report}", path.display()));
        }
        for diagnostic in &found {
            let start = recipe.text[..diagnostic.span.start as usize].rsplit('\n').next().unwrap();
            assert_eq!(diagnostic.column as usize, start.chars().count() + 1, "{diagnostic}");
            let json = serde_json::to_string(diagnostic).unwrap();
            assert_eq!(&serde_json::from_str::<recipe::Diagnostic>(&json).unwrap(), diagnostic);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} reports differ (UPDATE_EXPECT=1 to accept):\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_file_that_is_no_recipe_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(matches!(recipe::load(&path("none.toml")), Err(LoadError::Read { .. })));
    fs::write(path("model.toml"), b"name = 1\nkey = \"\xff\"\n").unwrap();
    match recipe::load(&path("model.toml")) {
        Err(error @ LoadError::NotText { at: 16, line: 2, .. }) => {
            assert!(error.to_string().contains("UTF-8"))
        }
        other => panic!("{other:?}"),
    }
    let huge = fs::File::create(path("huge.toml")).unwrap();
    huge.set_len(recipe::MAX_BYTES + 1).unwrap();
    assert!(matches!(recipe::load(&path("huge.toml")), Err(LoadError::TooLarge { .. })));
}

#[test]
fn a_flood_of_mistakes_is_counted_not_endless() {
    let text = "= 1\n".repeat(50_000);
    let found = recipe::parse("noise.toml", Path::new(""), text).diagnostics();
    assert!((50..200).contains(&found.len()), "{}", found.len());
    assert!(found.iter().any(|d| d.message.contains("more")), "nothing says that there are more");
}

#[test]
fn colour_only_on_request() {
    let recipe = recipe::parse("x.toml", Path::new(""), "[pipeline]\nnam = 1\n");
    let found = recipe.diagnostics();
    assert!(!recipe::render(&found, &recipe.text, false).contains('\u{1b}'));
    assert!(recipe::render(&found, &recipe.text, true).contains("\u{1b}["));
}

#[test]
fn one_line_reads_like_a_compilers() {
    let recipe = recipe::parse(
        "x.toml",
        Path::new(""),
        "[pipeline]\nname = \"x\"\nnam = 1\n[steps.a]\nop = \"file\"\n",
    );
    let lines: Vec<String> = recipe.diagnostics().iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "x.toml:3:1: [pipeline] has no key `nam` (did you mean `name`?)");
    assert_eq!(lines.len(), 2);
}

/// Reads, compiles and renders whatever comes; the fuzz target does the same.
fn digest(text: &str) {
    let recipe = recipe::parse("x.toml", Path::new("no/such/folder"), text);
    if let Err(found) = pipeline::compile(&recipe) {
        assert!(!found.is_empty());
        for colour in [false, true] {
            let report = recipe::render(&found, text, colour);
            assert!(report.matches("Error").count() >= found.len());
            // Nothing that a recipe quotes may steer the terminal.
            assert!(colour || !report.contains(|c: char| c.is_control() && c != '\n'), "{report:?}");
        }
    }
}

/// Pieces of recipes, right and wrong, so that random joins get deep.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ",",
    ".",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\"",
    "\"\"\"",
    "'",
    "#",
    "\\",
    "\u{2028}",
    "é",
    "\0",
    "\u{1b}[2J",
    "[pipeline]\n",
    "name = \"x\"\n",
    "[steps.a]\n",
    "[steps.b]\n",
    "[steps.a.files]\n",
    "[steps]\n",
    "op = \"fetch\"\n",
    "op = \"file\"\n",
    "op = \"tokenize\"\n",
    "op = \"infer\"\n",
    "op = infer\n",
    "model = \"a\"\n",
    "tokens = \"b\"\n",
    "prompts = \"a.b\"\n",
    "prompt = \"Hi\"\n",
    "ids = [1, 0x2, -3",
    "stop = [\"\"]\n",
    "max_tokens = 0\n",
    "spec = \"f32\"\n",
    "sampler = { kind = \"top_p\", p = 0.5, seed = 1 }\n",
    "sampler = \"greedy\"\n",
    "from = \"hf:a/b@c/d\"\n",
    "sha256 = \"00\"\n",
    "path = \"x\"\n",
    "[steps.b.probes.p]\n",
    "at = \"layer.{0..2}/qkv.*\"\n",
    "at = [\"layer.{0,\", \"*\"]\n",
    "sample = { tokens = \"every 2\", elements = { top = 1 } }\n",
    "a.b = 1\n",
    "1979-05-27T07:32:00Z",
    "inf",
    "nan",
    "true",
    "99999999999999999999",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        digest(&text);
    }

    #[test]
    fn any_join_of_pieces_is_read_without_panic(picks in proptest::collection::vec(0..PIECES.len(), 0..40)) {
        digest(&picks.into_iter().map(|i| PIECES[i]).collect::<String>());
    }

    #[test]
    fn any_cut_of_a_recipe_is_read_without_panic(from in 0usize..900, to in 0usize..900) {
        let text = include_str!("../pipelines/smollm2.toml");
        let at = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        digest(&text[..at(from)]);
        digest(&format!("{}{}", &text[..at(from)], &text[at(to)..]));
    }
}
