//! `pipe run` as a CI job runs it: annotations, summary, JUnit, shards.

use crate::space::{Space, bundle, events, steps};

/// Every case of a JUnit file: its name, and `ok`, `failed: …` or `skipped`.
fn cases(space: &Space, file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(space.path(file)).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    let suite = document.descendants().find(|n| n.has_tag_name("testsuite")).unwrap();
    let cases: Vec<_> = suite.children().filter(|n| n.has_tag_name("testcase")).collect();
    let count = |tag: &str| cases.iter().filter(|c| c.children().any(|n| n.has_tag_name(tag))).count();
    for (attribute, n) in
        [("tests", cases.len()), ("failures", count("failure")), ("skipped", count("skipped"))]
    {
        assert_eq!(suite.attribute(attribute), Some(n.to_string().as_str()), "{attribute}: {text}");
    }
    let verdict = |case: &roxmltree::Node<'_, '_>| match case.children().find(|n| n.is_element()) {
        None => "ok".to_owned(),
        Some(n) if n.has_tag_name("failure") => format!("failed: {}", n.text().unwrap_or_default()),
        Some(_) => "skipped".to_owned(),
    };
    cases.iter().map(|case| (case.attribute("name").unwrap().to_owned(), verdict(case))).collect()
}

#[test]
fn a_good_run_is_all_cases_passed() {
    let space = Space::new();
    let ran = space
        .command(&["run", "tiny.toml", "--ci", "--junit", "pipe.xml"])
        .env("GITHUB_STEP_SUMMARY", space.path("summary.md"))
        .output()
        .unwrap();
    assert!(ran.status.success());
    let cid = bundle(&String::from_utf8(ran.stdout).unwrap());
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(!told.contains("::error") && !told.contains('\u{1b}'), "{told}");
    let found = cases(&space, "pipe.xml");
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["model", "model.pack-f32", "prompt", "answer"]);
    assert!(found.iter().all(|(_, verdict)| verdict == "ok"), "{found:?}");
    let summary = std::fs::read_to_string(space.path("summary.md")).unwrap();
    assert!(summary.starts_with("### pipe: tiny ok in ") && summary.contains(&cid), "{summary}");
    assert!(summary.contains("| answer | infer | ran |"), "{summary}");
    // A second job adds its own; without --ci nobody writes.
    let again = |args: &[&str]| {
        let ran = space.command(args).env("GITHUB_STEP_SUMMARY", space.path("summary.md")).output();
        assert!(ran.unwrap().status.success());
        std::fs::read_to_string(space.path("summary.md")).unwrap()
    };
    let twice = again(&["run", "tiny.toml", "--ci"]);
    assert!(twice.starts_with(&summary) && twice.contains("| answer | infer | hit |"), "{twice}");
    assert_eq!(again(&["run", "tiny.toml"]), twice);
}

#[test]
fn a_failed_step_is_annotated_where_the_recipe_names_it() {
    let space = Space::new();
    space.edit("tiny.toml", "prompt = [{", "#[{");
    space.edit("tiny.toml", "[steps.answer]", "ids = [999999]\n\n[steps.answer]");
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let line = text.lines().position(|line| line == "[steps.prompt]").unwrap() + 1;
    let ran = space
        .command(&["run", "tiny.toml", "--ci", "--junit", "pipe.xml", "--keep-going"])
        .env("GITHUB_STEP_SUMMARY", space.path("summary.md"))
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(4));
    let told = String::from_utf8(ran.stderr).unwrap();
    let annotation = format!("::error file=tiny.toml,line={line},title=step prompt (tokenize)::");
    assert!(told.lines().any(|l| l.starts_with(&annotation) && l.contains("999999")), "{told}");
    assert_eq!(told.matches("::error").count(), 1, "{told}");
    let found: std::collections::BTreeMap<_, _> = cases(&space, "pipe.xml").into_iter().collect();
    assert!(found["prompt"].starts_with("failed: ") && found["prompt"].contains("999999"), "{found:?}");
    assert_eq!((found["model"].as_str(), found["answer"].as_str()), ("ok", "skipped"));
    let summary = std::fs::read_to_string(space.path("summary.md")).unwrap();
    assert!(summary.starts_with("### pipe: tiny 1 failed"), "{summary}");
}

#[test]
fn mistakes_of_a_recipe_are_annotated() {
    let space = Space::new();
    space.edit("tiny.toml", "max_tokens", "max_token");
    space.edit("tiny.toml", "model = \"model\"\ntokens", "model = \"modell\"\ntokens");
    let ran = space.pipe(&["run", "tiny.toml", "--ci", "--junit", "pipe.xml"]);
    let told = ran.fails(3);
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    for word in ["max_token", "\"modell\""] {
        let line = text.lines().position(|line| line.contains(word)).unwrap() + 1;
        let annotation = format!("::error file=tiny.toml,line={line},col=");
        assert!(told.lines().any(|l| l.starts_with(&annotation)), "{word}: {told}");
    }
    let found = cases(&space, "pipe.xml");
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("modell") && found[0].1.contains("max_token"), "{found:?}");
    let told = space.pipe(&["run", "none.toml", "--ci"]).fails(3);
    assert!(told.contains("::error file=none.toml,title=recipe::cannot read"), "{told}");
}

#[test]
fn shards_share_the_work_and_join_to_the_same_bundle() {
    let (one, two, joined, whole) = (Space::new(), Space::new(), Space::new(), Space::new());
    let cid = bundle(&whole.pipe(&["run", "sampled.toml"]).ok());
    let mut ran = Vec::new();
    for (space, shard) in [(&one, "1/2"), (&two, "2/2")] {
        let events = events(&space.pipe(&["run", "sampled.toml", "--shard", shard, "--json"]).ok());
        ran.push(steps(&events, "step_finished").into_iter().map(str::to_owned).collect::<Vec<_>>());
        let file = joined.path(format!("{}.cache", &shard[..1]));
        space.pipe(&["store", "export", file.to_str().unwrap()]).ok();
        joined.pipe(&["store", "import", file.to_str().unwrap()]).ok();
    }
    let with = |name: &str| ran.iter().map(|ran| ran.contains(&name.to_owned())).collect::<Vec<_>>();
    assert_eq!((with("first"), with("second")), (vec![true, false], vec![false, true]));
    assert_eq!(with("model"), [true, true], "each has what it needs");
    let events = events(&joined.pipe(&["run", "sampled.toml", "--json"]).ok());
    assert_eq!(steps(&events, "step_finished"), [""; 0]);
    assert_eq!(events.last().unwrap()["bundle"], cid);
    // More shards than there is to do.
    one.pipe(&["run", "sampled.toml", "--shard", "3/3", "--junit", "none.xml"]).ok();
    assert_eq!(cases(&one, "none.xml"), []);
    assert!(one.pipe(&["run", "sampled.toml", "--shard", "4/3"]).fails(2).contains("2/3"));
}
