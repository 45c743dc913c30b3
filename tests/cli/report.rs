//! The page of a run: what stands on it, what cannot get onto it, and what there is without a look inside.

use crate::space::{Space, bundle};

/// The page of the last run.
fn page(space: &Space, args: &[&str]) -> String {
    let all = [&["report", "--output", "page.html"], args].concat();
    assert_eq!(space.pipe(&all).ok(), "page.html\n");
    std::fs::read_to_string(space.path("page.html")).unwrap()
}

/// A page loads nothing and runs nothing: it has the tags and attributes that it should, and no others.
#[track_caller]
fn self_contained(page: &str) {
    let tags = "a b body br circle code dd details div dl dt em figcaption figure footer g h1 h2 h3 head header html i li \
                main meta nav p path pre rect section small span style summary svg table tbody td text th thead title tr \
                ul !doctype";
    let attributes = "anchor aria-hidden aria-label charset class content d height href html http-equiv id lang name \
                      preserveAspectRatio role rx style text-anchor title transform viewBox width x y";
    let (tags, attributes): (Vec<_>, Vec<_>) =
        (tags.split_whitespace().collect(), attributes.split_whitespace().collect());
    // What follows a `<` up to its `>` is markup, with the values of attributes at odd places between quotes.
    for tag in page.split('<').skip(1) {
        let names: Vec<&str> = tag.split('>').next().unwrap().split('"').step_by(2).collect();
        let names = names.join(" ");
        let mut names = names.split_whitespace();
        let tag = names.next().unwrap_or_default().trim_matches('/');
        assert!(tags.contains(&tag), "a tag <{tag}>");
        for name in names.map(|name| name.trim_end_matches(['=', '/'])).filter(|name| !name.is_empty()) {
            assert!(attributes.contains(&name), "an attribute {name} of <{tag}>");
        }
    }
    for bad in ["http://", "https://", "@import", "url("] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("NaN"), "a number that is none");
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

/// A recipe of the toy with prompts from a file, looked into or not.
fn with_prompts(space: &Space, lines: &str, inside: bool) {
    let recipe = "
pipeline = { name = \"lines\" }
[steps]
model = { op = \"file\", path = \"tiny.gguf\" }
lines = { op = \"file\", path = \"lines.jsonl\" }
prompt = { op = \"tokenize\", model = \"model\", prompts = \"lines\" }
answer = { op = \"infer\", model = \"model\", tokens = \"prompt\", max_tokens = 4 }
scores = { op = \"score\", of = \"answer\" }
";
    let look = "inside = { op = \"introspect\", of = \"answer\", causes = 0 }\n";
    space.write("lines.jsonl", lines);
    space.write("lines.toml", &format!("{recipe}{}", if inside { look } else { "" }));
    space.pipe(&["run", "lines.toml"]).ok();
}

#[test]
fn a_page_has_everything_and_needs_nothing() {
    let space = Space::new();
    let cid = bundle(&space.pipe(&["run", "tiny-inside.toml"]).ok());
    let html = page(&space, &[]);
    self_contained(&html);
    for section in [
        "answer",
        "scores",
        "checks",
        "causes",
        "attribution",
        "lens",
        "attention",
        "layers",
        "unusual",
        "steps",
        "addresses",
    ] {
        assert!(html.contains(&format!("<section id=\"{section}\">")), "no section {section}");
        assert!(html.contains(&format!("href=\"#{section}\"")), "no way to {section}");
    }
    let answer: serde_json::Value =
        serde_json::from_str(&space.pipe(&["show", "--output", "answer.checksum/answer.json"]).ok()).unwrap();
    let checksum = answer["checksum"].as_str().unwrap();
    let beauty = answer["scores"]["scores"]["beauty"]["value"].as_f64().unwrap();
    let trace = answer["answers"][0]["trace"].as_str().unwrap();
    for fact in
        [cid.as_str(), checksum, trace, &format!("{beauty:.4}"), "8 of 8", "one pass", "answer.checksum"]
    {
        assert!(html.contains(fact), "no {fact}");
    }
    // A token of the answer with its numbers, a head, a check's evidence, a step's time.
    for part in
        [">us</span>", "probability 9", "layer 0, head 3", "every number is finite", "introspect · ran, "]
    {
        assert!(html.contains(part), "no {part}");
    }
    // The folder of the recipe is nobody's business.
    assert!(!html.contains(space.path("").to_str().unwrap()));

    // The same run, the same bytes; and a name of its own.
    assert_eq!(page(&space, &[]), html);
    let name = space.pipe(&["report"]).ok();
    assert!(name.starts_with("tiny-inside-") && name.ends_with(".html\n"), "{name}");
    assert_eq!(std::fs::read_to_string(space.path(name.trim())).unwrap(), html);
    assert_eq!(space.pipe(&["report", "--output", "-"]).ok(), html);

    // Again, everything is a hit, and what it took is told of the run that computed it.
    space.pipe(&["run", "tiny-inside.toml"]).ok();
    let again = page(&space, &[]);
    assert!(again.contains("introspect · hit, ") && !again.contains("introspect · ran"));
    let json: serde_json::Value =
        serde_json::from_str(&space.pipe(&["report", "--json", "--output", "page.html"]).ok()).unwrap();
    let told = (&json["cid"], &json["file"], &json["prompt"], &json["bytes"]);
    assert_eq!(told, (&cid.into(), &"page.html".into(), &"0".into(), &again.len().into()));
}

#[test]
fn hostile_words_stay_words() {
    let space = Space::new();
    let line = r#"{"id": "<img src=x onerror=alert(1)>", "text": "</style><script>alert('1')</script>\"&"}"#;
    for inside in [true, false] {
        with_prompts(&space, line, inside);
        let html = page(&space, &[]);
        self_contained(&html);
        assert!(html.contains("prompt &lt;img src=x onerror=alert(1)&gt;, answered"), "{}", &html[..200]);
        assert_eq!(html.matches("</style>").count(), 1);
    }
    let html = page(&space, &[]);
    let text = "&lt;/style&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;";
    assert!(html.contains(text), "the prompt is not shown");
}

#[test]
fn without_a_look_inside_it_says_how_to_get_more() {
    let space = Space::new();
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let ran = space.pipe(&["report", "--output", "page.html"]);
    assert!(ran.stderr.contains("did not look inside"), "{}", ran.stderr);
    let html = page(&space, &[]);
    self_contained(&html);
    let told = ["op = &quot;introspect&quot;\nof = &quot;answer&quot;", "imus", "infer · ran", &cid];
    assert!(told.iter().all(|part| html.contains(part)), "{html}");
    assert!(!html.contains("id=\"lens\"") && !html.contains("#lens"));
    // The advice is a recipe that works, and the answer is not computed again.
    let lines = html.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap().replace("&quot;", "\"");
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    space.write("more.toml", &format!("{recipe}\n{lines}"));
    let ran = space.pipe(&["run", "more.toml", "--json"]).ok();
    assert!(!ran.lines().any(|line| line.contains("step_started") && line.contains("\"answer\"")), "{ran}");
    assert!(page(&space, &[]).contains("<section id=\"lens\">"));
}

#[test]
fn a_page_is_of_one_prompt() {
    let space = Space::new();
    let lines = "{\"id\": \"a\", \"text\": \"one\"}\n{\"id\": \"b\", \"text\": \"two three\"}\n";
    with_prompts(&space, lines, true);
    let first = page(&space, &[]);
    assert!(first.contains("prompt a, answered") && first.contains("pipe report --prompt: b."));
    let second = page(&space, &["--prompt", "b"]);
    assert!(second.contains("prompt b, answered") && second.contains("all prompts together"));
    self_contained(&second);
    let error = space.pipe(&["report", "--prompt", "c"]).fails(2);
    assert!(error.contains("no prompt `c`") && error.contains("there are a, b"), "{error}");
    let error = space.pipe(&["report", "--step", "prompt"]).fails(2);
    assert!(error.contains("no infer step `prompt`") && error.contains("there are answer"), "{error}");
    space.pipe(&["report", "nothing"]).fails(2);
    let error = space.pipe(&["report", "--output", "no/such/folder.html"]).fails(4);
    assert!(error.contains("--output"), "{error}");
}

#[test]
fn a_bundle_of_others_and_a_failed_run_have_pages_too() {
    let (space, other) = (Space::new(), Space::new());
    let cid = bundle(&space.pipe(&["run", "tiny-inside.toml"]).ok());
    space.pipe(&["export", "--output", "run.car"]).ok();
    let car = space.path("run.car");
    other.pipe(&["import", car.to_str().unwrap()]).ok();
    let html = page(&other, &[&cid]);
    self_contained(&html);
    assert!(html.contains("<section id=\"lens\">") && html.contains("No run of this store computed"));

    // Token 999999 is not in the vocabulary, which only a run can find out.
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let broken = "[steps.bad]\nop = \"tokenize\"\nmodel = \"model\"\nids = [999999]\n";
    space.write("broken.toml", &format!("{recipe}\n{broken}"));
    space.pipe(&["run", "broken.toml", "--keep-going"]).fails(4);
    let html = page(&space, &[]);
    self_contained(&html);
    assert!(html.contains("999999") && html.contains("failed") && html.contains("imus"), "{html}");
}

#[test]
fn a_card_of_the_model_goes_onto_the_page() {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    space.write("text.txt", "the cat is on the mat and the dog is on the cat");
    let args = ["specs", "--json", "--spec", "f32,q8", "--prompt", "4", "--gen", "2", "--reps", "1"];
    let card = space.pipe(&[&args[..], &["--text", "text.txt"]].concat()).ok();
    space.write("card.json", &card);
    let html = page(&space, &["--specs", "card.json"]);
    self_contained(&html);
    let told = ["<section id=\"versions\">", "f32@1, of this answer", "<td>q8@1</td>", "tokens per second"];
    assert!(told.iter().all(|part| html.contains(part)), "{html}");
    // Of another model, or no card at all.
    let file = card.split("\"files\":{\"").nth(1).unwrap().split('"').nth(2).unwrap();
    space.write("other.json", &card.replace(file, &"00".repeat(32)));
    let error = space.pipe(&["report", "--specs", "other.json"]).fails(2);
    assert!(error.contains("which this run does not use"), "{error}");
    space.write("other.json", "{}");
    space.pipe(&["report", "--specs", "other.json"]).fails(2);
}

#[test]
fn a_failed_check_is_not_to_be_overlooked() {
    let space = Space::new();
    space.pipe(&["run", "tiny-inside.toml"]).ok();
    let found = space.pipe(&["show", "--output", "inside/introspection.json"]).ok();
    let mut found: pipe::inside::Introspection = serde_json::from_str(&found).unwrap();
    let mut inside = found.prompts.remove(0);
    inside.checks[2].passed = false;
    inside.checks[2].evidence = "layer 1, head 2, position 9 <looks> ahead".into();
    let report = pipe::report::Report {
        pipeline: "broken".into(),
        cid: None,
        run: None,
        steps: vec![],
        answer: None,
        others: vec![],
        inside: Some(("inside".into(), inside)),
        scores: vec![],
        scores_of_all: vec![],
        checksum: None,
        versions: None,
        missing: vec![],
    };
    let html = pipe::report::html(&report);
    self_contained(&html);
    for part in ["7 of 8", "1 of 8 failed: do not trust this page", "position 9 &lt;looks&gt; ahead"] {
        assert!(html.contains(part), "no {part}");
    }
    assert_eq!(html.matches("class=\"check bad\"").count(), 1);
}

#[test]
fn show_tells_the_main_of_it() {
    let space = Space::new();
    space.pipe(&["run", "tiny-inside.toml"]).ok();
    let shown = space.pipe(&["show"]).ok();
    for line in [
        "inside: inside of answer, prompt 0\n",
        "  checks       8 of 8 passed\n",
        "  decided by   layer 2 ",
        "  components   layer.00/",
        "  rests on     \"",
    ] {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    let checksum = shown.lines().find(|line| line.starts_with("checksum ")).unwrap();
    let listed = space.pipe(&["prove", "--list"]).ok().lines().count();
    assert!(checksum.ends_with(&format!(" over {listed} leaves")), "{checksum}");
    space.pipe(&["run", "tiny.toml"]).ok();
    assert!(!space.pipe(&["show"]).ok().contains("checksum"));
}
