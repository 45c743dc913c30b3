//! `pipe diff`: pairs with one planted change; each names that change, and what merely follows from it.

use std::str::FromStr;

use pipe::bundle::{Bundle, SealedOutput, car};
use pipe::model::Bytes;
use pipe::model::gguf::Gguf;
use pipe_store::Store;
use serde_json::Value;

use crate::space::{Space, bundle};

impl Space {
    /// Runs a recipe; its bundle's CID.
    fn cid(&self, recipe: &str) -> String {
        bundle(&self.pipe(&["run", recipe]).ok())
    }

    /// The comparison as data; it must find a difference.
    #[track_caller]
    fn different(&self, a: &str, b: &str) -> Value {
        let ran = self.pipe(&["diff", a, b, "--json"]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(found["same"], false);
        found
    }

    /// The bundle of this CID, changed.
    fn with(&self, cid: &str, change: impl FnOnce(&Store, &mut Bundle)) -> String {
        let store = Store::open(&self.path("store")).unwrap();
        let digest = car::digest_of(&cid::Cid::from_str(cid).unwrap()).unwrap();
        let mut sealed = Bundle::from_bytes(&store.get(&digest).unwrap()).unwrap();
        change(&store, &mut sealed);
        let digest = store.put(&sealed.to_bytes()).unwrap();
        car::cid_of(car::DAG_CBOR, &digest).to_string()
    }
}

/// Steps by themselves different, and those that follow with from where.
fn causes(found: &Value) -> (Vec<String>, Vec<String>) {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let list = |v: &Value| v.as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("+");
    let steps = found["steps"].as_array().unwrap().iter();
    let (own, following): (Vec<&Value>, Vec<&Value>) =
        steps.partition(|step| !step["causes"].as_array().unwrap().is_empty());
    let own = own.into_iter().map(|s| format!("{}: {}", text(&s["step"]), list(&s["causes"])));
    let following =
        following.into_iter().map(|s| format!("{} from {}", text(&s["step"]), list(&s["follows"])));
    (own.collect(), following.collect())
}

fn step<'a>(found: &'a Value, name: &str) -> &'a Value {
    let steps = found["steps"].as_array().unwrap();
    steps.iter().find(|s| s["step"] == name).unwrap_or_else(|| panic!("no step {name} in {found}"))
}

fn detail<'a>(found: &'a Value, name: &str, output: &str) -> &'a Value {
    let outputs = step(found, name)["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|o| o["name"] == output);
    &output.unwrap_or_else(|| panic!("no {output:?} of {name} in {found}"))["detail"]
}

#[test]
fn nothing_planted_nothing_found() {
    let (here, there) = (Space::new(), Space::new());
    for recipe in ["tiny.toml", "sampled.toml"] {
        let a = here.cid(recipe);
        here.pipe(&["export", "--output", there.path("a.car").to_str().unwrap()]).ok();
        there.pipe(&["run", recipe, "--threads", "1", "--impl", "scalar"]).ok();
        let told = there.pipe(&["diff", "a.car"]).ok();
        assert!(told.contains("the same: ") && told.contains(&a), "{told}");
        let found: Value = serde_json::from_str(&there.pipe(&["diff", "a.car", "--json"]).ok()).unwrap();
        assert_eq!(
            (&found["same"], &found["first"], &found["unexplained"]),
            (&true.into(), &Value::Null, &false.into())
        );
        // A recipe against what it gave; another order of its text.
        here.pipe(&["diff", recipe, &a]).ok();
    }
    let text = std::fs::read_to_string(here.path("tiny.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    here.write("sorted.toml", &table.to_string());
    here.pipe(&["diff", "tiny.toml", "sorted.toml"]).ok();
}

#[test]
fn a_seed() {
    let space = Space::new();
    let a = space.cid("sampled.toml");
    space.edit("sampled.toml", "seed = 42", "seed = 44");
    let b = space.cid("sampled.toml");
    let found = space.different(&a, &b);
    assert_eq!(causes(&found), (vec!["first: fields".into()], vec![]));
    assert_eq!(found["first"]["step"], "first");
    assert_eq!(found["first"]["what"], "sampler.seed: 42 -> 44");
    assert_eq!(step(&found, "first")["fields"].as_array().unwrap().len(), 1);
    assert_eq!(step(&found, "first")["inputs"], serde_json::json!([]));

    // The texts part where the draws do: from one distribution, which `infer` itself gave.
    let answer = &detail(&found, "first", "answers.json")["answers"][0];
    let tokens = |cid: &str| -> Vec<u64> {
        let answers = space.pipe(&["show", cid, "--output", "first/answers.json"]).ok();
        let answers: Value = serde_json::from_str(&answers).unwrap();
        answers["answers"][0]["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect()
    };
    let (x, y) = (tokens(&a), tokens(&b));
    let at = x.iter().zip(&y).position(|(x, y)| x != y).unwrap();
    assert_eq!(answer["parts_at"], at);
    assert_eq!(answer["positions"], serde_json::json!([25 + at, 25 + at]));
    let both = &answer["distributions"];
    assert_eq!(both["a"], both["b"]);
    assert_eq!(both["a"]["top"].as_array().unwrap().len(), 5);
    let asked: Vec<u64> =
        both["a"]["asked"].as_array().unwrap().iter().map(|t| t["token"].as_u64().unwrap()).collect();
    assert_eq!(asked, [x[at], y[at]]);
    let mut p: Vec<f64> =
        both["a"]["top"].as_array().unwrap().iter().map(|t| t["p"].as_f64().unwrap()).collect();
    assert!(p.iter().sum::<f64>() < 1.0 && p[0] > 0.0, "{p:?}");
    let sorted = p.clone();
    p.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(p, sorted);
    let trace = &detail(&found, "first", "trace.safetensors")["differing"][0];
    assert_eq!((&trace["position"], &trace["block"]), (&(25 + at).into(), &Value::Null));
    assert_eq!(trace["tokens"], serde_json::json!([x[at], y[at]]));

    let told = space.pipe(&["diff", &a, &b]).stdout;
    assert!(told.contains("different, first in first: sampler.seed: 42 -> 44\n"), "{told}");
    assert!(told.contains(&format!("prompt 0 parts at generated token {at}: ")), "{told}");
    assert!(told.contains("both there: "), "{told}");
}

#[test]
fn a_prompt() {
    let space = Space::new();
    let a = space.cid("tiny.toml");
    space.edit("tiny.toml", "capital of France?", "capital of Spain?");
    let found = space.different(&a, &space.cid("tiny.toml"));
    assert_eq!(causes(&found), (vec!["prompt: fields".into()], vec!["answer from prompt".into()]));
    assert_eq!(found["first"]["step"], "prompt");
    let fields = step(&found, "prompt")["fields"].as_array().unwrap();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0]["field"], "prompts.chat.0.content");
    let prompt = &detail(&found, "prompt", "tokens.json")["prompts"][0];
    let at = prompt["parts_at"].as_u64().unwrap();
    assert!(prompt["texts"][1].as_str().unwrap().contains("Spain"), "{prompt}");
    let inputs = step(&found, "answer")["inputs"].as_array().unwrap();
    assert_eq!((inputs.len(), &inputs[0]["port"]), (1, &"tokens".into()));
    let trace = &detail(&found, "answer", "trace.safetensors")["differing"][0];
    assert_eq!((&trace["position"], &trace["block"]), (&at.into(), &Value::Null));
    // Each side's distribution is after its own prompt.
    let both = &detail(&found, "answer", "answers.json")["answers"][0]["distributions"];
    assert_ne!(both["a"], both["b"]);
}

#[test]
fn a_spec() {
    let space = Space::new();
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 24\ntrace = \"full\"");
    let a = space.cid("tiny.toml");
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 24\nspec = \"q4\"");
    let b = space.cid("tiny.toml");
    let found = space.different(&a, &b);
    let packs = ["model.pack-f32 from answer", "model.pack-q4 from answer"].map(str::to_owned);
    assert_eq!(causes(&found), (vec!["answer: fields".into()], packs.to_vec()));
    assert_eq!(found["first"]["what"], "spec: \"f32@1\" -> \"q4@1\"");
    let trace = detail(&found, "answer", "trace.safetensors");
    assert_eq!(trace["spec"], serde_json::json!(["f32@1", "q4@1"]));
    let first = &trace["differing"][0];
    assert_eq!(first["position"], 0);
    // The row as each side has it, compared here by hand.
    let block = first["block"].as_str().unwrap();
    let rows = |cid: &str| -> Vec<f32> {
        let out = space.command(&["show", cid, "--output", "answer/trace.safetensors"]).output().unwrap();
        let file = safetensors::SafeTensors::deserialize(&out.stdout).unwrap();
        let tensor = file.tensor(&format!("0/{block}")).unwrap();
        let words = tensor.data().chunks_exact(4).take(tensor.shape()[1]);
        words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let (x, y) = (rows(&a), rows(&b));
    let differing = x.iter().zip(&y).filter(|(x, y)| x.to_bits() != y.to_bits()).count();
    let largest = x.iter().zip(&y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs()).fold(0.0, f64::max);
    assert!(differing > 0);
    assert_eq!((&first["row"]["differing"], &first["row"]["elements"]), (&differing.into(), &x.len().into()));
    assert_eq!(first["row"]["max_abs"], largest);
}

#[test]
fn one_weight() {
    let space = Space::new();
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 24\ntrace = \"full\"");
    let a = space.cid("tiny.toml");
    let mut file = std::fs::read(space.path("tiny.gguf")).unwrap();
    let gguf = Gguf::parse(Bytes::new(file.clone())).unwrap();
    // Row 3, column 5 of layer 0's keys, which are f32: 256 steps up or down.
    let tensor = gguf.header.tensor("blk.0.attn_k.weight").unwrap();
    file[tensor.data.start + (3 * 64 + 5) * 4 + 1] ^= 1;
    std::fs::write(space.path("tiny.gguf"), file).unwrap();
    let b = space.cid("tiny.toml");
    let found = space.different(&a, &b);
    let following = ["model.pack-f32 from model", "prompt from model", "answer from model"];
    let (own, mut follows) = causes(&found);
    follows.sort_by_key(|f| following.iter().position(|g| g == f));
    assert_eq!((own, follows), (vec!["model: contents".into()], following.map(str::to_owned).to_vec()));
    assert_eq!(found["first"]["what"], "the file has other contents: file");
    let tensors = detail(&found, "model", "file");
    assert_eq!(tensors["tensors"].as_array().unwrap().len(), 1);
    let tensor = &tensors["tensors"][0];
    assert_eq!((&tensor["name"], &tensor["dtype"]), (&"blk.0.attn_k.weight".into(), &"F32".into()));
    let numbers = &tensor["numbers"];
    assert_eq!((&numbers["differing"], &numbers["max_ulp"]), (&1.into(), &256.into()));
    assert_eq!(numbers["first"], serde_json::json!([3, 5]));
    // The packed weights follow, in one element too; tokens do not depend on weights.
    let packed = &detail(&found, "model.pack-f32", "packed.safetensors")["tensors"];
    assert_eq!(packed.as_array().unwrap().len(), 1, "{packed}");
    assert_eq!(packed[0]["numbers"]["differing"], 1, "{packed}");
    assert_eq!(step(&found, "prompt")["outputs"], serde_json::json!([]));
    let trace = &detail(&found, "answer", "trace.safetensors")["differing"][0];
    assert_eq!((&trace["position"], &trace["block"]), (&0.into(), &"layer.00/qkv".into()));
    // Key 3 stands behind the 64 queries.
    assert_eq!(trace["row"]["first"], serde_json::json!([64 + 3]));
    assert_eq!(trace["row"]["differing"], 1);

    // A recipe knows its files.
    let old = Space::new();
    let other = old.path("tiny.toml").display().to_string();
    let own = causes(&space.different(&other, "tiny.toml")).0;
    assert_eq!(own, ["model: contents", "answer: fields"]);
}

#[test]
fn one_recipe_field() {
    let space = Space::new();
    let a = space.cid("tiny.toml");
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 20");
    let b = space.cid("tiny.toml");
    let found = space.different(&a, &b);
    assert_eq!(causes(&found), (vec!["answer: fields".into()], vec![]));
    assert_eq!(found["first"]["what"], "max_tokens: 24 -> 20");
    let answer = &detail(&found, "answer", "answers.json")["answers"][0];
    assert_eq!((&answer["parts_at"], &answer["tokens"][1]), (&20.into(), &Value::Null));
    assert_eq!(answer["generated"], serde_json::json!([24, 20]));

    // A field that changes no byte is a difference of the recipe, and of nothing else.
    space.edit("tiny.toml", "max_tokens = 20", "max_tokens = 20\nstop = [\"never said\"]");
    let found = space.different(&b, &space.cid("tiny.toml"));
    assert_eq!(causes(&found), (vec!["answer: fields".into()], vec![]));
    assert_eq!(step(&found, "answer")["outputs"], serde_json::json!([]));
    let found = space.different("tiny.toml", &b);
    assert_eq!(step(&found, "answer")["fields"][0]["field"], "stop");

    // The name of the pipeline; a step that only one has.
    space.edit("tiny.toml", "name = \"tiny\"", "name = \"other\"");
    let other = space.cid("tiny.toml");
    let found = space.different(&b, &other);
    assert_eq!(found["pipeline"][0]["field"], "name");
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let second = "[steps.second]\nop = \"infer\"\nmodel = \"model\"\ntokens = \"prompt\"\nmax_tokens = 1\n";
    space.write("two.toml", &format!("{text}\n{second}"));
    let found = space.different(&other, &space.cid("two.toml"));
    assert_eq!(causes(&found), (vec!["second: presence".into()], vec![]));
    assert_eq!(
        (&step(&found, "second")["on"], &found["first"]["what"]),
        (&"only_b".into(), &"only B has this step".into())
    );
}

#[test]
fn cars_are_compared_and_not_kept() {
    let (here, there) = (Space::new(), Space::new());
    let a = here.cid("sampled.toml");
    here.edit("sampled.toml", "seed = 43", "seed = 7");
    let b = here.cid("sampled.toml");
    for (cid, name) in [(&a, "a.car"), (&b, "b.car")] {
        here.pipe(&["export", cid, "--output", there.path(name).to_str().unwrap()]).ok();
    }
    let found = there.different("a.car", "b.car");
    assert_eq!(causes(&found), (vec!["second: fields".into()], vec![]));
    let reason = &detail(&found, "second", "answers.json")["answers"][0]["distributions"]["not_computed"];
    let reason = reason.as_str().unwrap();
    assert!(reason.contains("is not in the store") && reason.contains("a.car"), "{reason}");
    assert!(reason.contains("model/file") || reason.contains("packed.safetensors"), "{reason}");
    assert_eq!(there.objects(), 0);

    // With its inputs a CAR is all that is needed.
    for (cid, name) in [(&a, "a.car"), (&b, "b.car")] {
        let car = there.path(name);
        here.pipe(&["export", cid, "--with-inputs", "--output", car.to_str().unwrap()]).ok();
    }
    let of = |found: &Value| detail(found, "second", "answers.json")["answers"][0].clone();
    assert_eq!(of(&there.different("a.car", "b.car")), of(&here.different(&a, &b)));
    assert_eq!(there.objects(), 0);

    std::fs::write(there.path("bad.car"), &std::fs::read(there.path("a.car")).unwrap()[..5000]).unwrap();
    assert!(there.pipe(&["diff", "bad.car", "b.car"]).fails(4).contains("bad.car"));
    there.pipe(&["diff", "none.car", "b.car"]).fails(2);
    there.pipe(&["diff", "none.toml", "b.car"]).fails(3);
    there.pipe(&["diff", "nothing", "b.car"]).fails(2);
}

#[test]
fn other_bytes_under_one_key_are_no_change_of_the_recipe() {
    let space = Space::new();
    let cid = space.cid("tiny.toml");
    let forged = space.with(&cid, |store, sealed| {
        let output = sealed.steps.get_mut("answer").unwrap().outputs.get_mut("answers.json").unwrap();
        let honest = String::from_utf8(store.get(&output.digest).unwrap().to_vec()).unwrap();
        output.digest = store.put(honest.replacen("theus", "Paris", 1).as_bytes()).unwrap();
        output.link = Some(car::cid_raw(&output.digest));
    });
    let found = space.different(&cid, &forged);
    assert_eq!(causes(&found), (vec!["answer: other_bytes".into()], vec![]));
    assert_eq!(found["first"]["what"], "one key, other bytes: answers.json");
    // What nothing above explains is still a difference.
    let unlinked = space.with(&cid, |_, sealed| {
        sealed.steps.get_mut("answer").unwrap().outputs.get_mut("answers.json").unwrap().link = None;
    });
    assert_eq!(space.different(&cid, &unlinked)["unexplained"], true);
}

#[test]
fn a_gate_on_scores() {
    let space = Space::new();
    let cid = space.cid("tiny.toml");
    let scored = |fitness: &str, beauty: &str| {
        space.with(&cid, |store, sealed| {
            let score = |value: &str| format!("{{\"value\":{value},\"parts\":{{}}}}");
            let all = format!("{{\"fitness\":{},\"beauty\":{}}}", score(fitness), score(beauty));
            let text = format!(
                "{{\"spec\":\"x\",\"scores\":{all},\"prompts\":[{{\"id\":\"q1\",\"scores\":{all}}}]}}\n"
            );
            let digest = store.put(text.as_bytes()).unwrap();
            let output = SealedOutput {
                digest,
                length: text.len() as u64,
                media_type: "application/json".into(),
                link: Some(car::cid_raw(&digest)),
            };
            sealed.steps.get_mut("answer").unwrap().outputs.insert("scores.json".into(), output);
        })
    };
    let (a, b, c) = (scored("0.93", "0.5"), scored("0.9", "0.5"), scored("0.93", "null"));
    let found = space.different(&a, &b);
    assert_eq!(detail(&found, "answer", "scores.json")["changed"].as_array().unwrap().len(), 2);
    let fitness = found["scores"].as_array().unwrap().iter().find(|s| s["name"] == "fitness").unwrap();
    assert_eq!((fitness["a"].as_f64(), fitness["change"].as_f64()), (Some(0.93), Some(0.9 - 0.93)));
    let gate = |b: &str, on: &[&str]| {
        let mut args = vec!["diff", &a, b];
        on.iter().for_each(|on| args.extend(["--fail-on", on]));
        space.pipe(&args)
    };
    assert_eq!(gate(&b, &["fitness < -0.01"]).code, 1);
    assert!(gate(&b, &["fitness < -0.01"]).stdout.contains("fail-on fitness < -0.01: answer/fitness: FAILS"));
    assert_eq!(gate(&b, &["fitness < -0.05"]).code, 0);
    assert_eq!(gate(&b, &["fitness < -0.05", "answer/beauty >= 0"]).code, 1);
    assert_eq!(gate(&a, &["fitness < 0", "beauty < 0"]).code, 0);
    // Without a value there is nothing to be sure of.
    assert_eq!(gate(&c, &["beauty < -9"]).code, 1);
    assert_eq!(gate(&c, &["fitness < -9"]).code, 0);
    assert!(gate(&b, &["relevance < 0"]).fails(2).contains("answer/beauty, answer/fitness"));
    assert!(gate(&b, &["fitness ~ 0"]).fails(2).contains("no condition"));
    space.pipe(&["diff", "tiny.toml", "tiny.toml", "--fail-on", "fitness < 0"]).fails(2);
}

#[test]
fn a_page_stands_alone() {
    let space = Space::new();
    space.edit("tiny.toml", "capital of France?", "<b>capital</b> & more?");
    let a = space.cid("tiny.toml");
    space.edit("tiny.toml", "& more?", "& less?");
    let b = space.cid("tiny.toml");
    let ran = space.pipe(&["diff", &a, &b, "--html", "page.html"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let page = std::fs::read_to_string(space.path("page.html")).unwrap();
    for (needed, why) in [
        ("<meta name=\"viewport\"", "a phone"),
        ("&lt;b&gt;capital&lt;/b&gt; &amp; <mark>more?", "A's prompt, marked"),
        ("&lt;b&gt;capital&lt;/b&gt; &amp; <mark>less?", "B's prompt, marked"),
        ("answer (infer), follows from prompt", "what follows"),
        ("class=\"bar\"", "distributions"),
        (&a, "A's address"),
        (&b, "B's address"),
    ] {
        assert!(page.contains(needed), "{why}: no {needed} in {page}");
    }
    for foreign in ["http:", "https:", "<script", "src=", "href=", "@import", "url(", "<b>capital"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    space.pipe(&["diff", &a, &b, "--html", "no/folder/page.html"]).fails(4);
}
