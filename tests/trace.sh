#!/usr/bin/env bash
# Traces and probes of the toy model as a stranger reads them: with PyPI's safetensors, numpy and blake3, and torch
# where it is installed already. Needs Python with venv and pip; where these cannot be had it says so and succeeds;
# PIPE_TRACE=1 makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/venv.sh
environment trace-2 PIPE_TRACE "traces and probes in Python" packages numpy safetensors blake3

toy
# Some tokens twice; a prompt whose answer fills the context, so that its last token goes through the model; one token.
{
    echo '{"id": "twice", "text": "the cat and the hat and the cat"}'
    echo "{\"id\": \"fills\", \"ids\": [$(seq -s, 5 256)]}"
    echo '{"id": "one", "ids": [9]}'
} > "$scratch/prompts.jsonl"
cat > "$scratch/recipe.toml" <<'RECIPE'
pipeline = { name = "trace" }
[steps]
model = { op = "file", path = "model.gguf" }
prompts = { op = "file", path = "prompts.jsonl" }
tokens = { op = "tokenize", model = "model", prompts = "prompts" }
digests = { op = "infer", model = "model", tokens = "tokens", max_tokens = 8, stop = false, trace = "digests" }
blocks = { op = "infer", model = "model", tokens = "tokens", max_tokens = 8, stop = false, trace = "blocks" }
layers = { op = "infer", model = "model", tokens = "tokens", max_tokens = 8, stop = false, trace = "layers" }

[steps.full]
op = "infer"
model = "model"
tokens = "tokens"
max_tokens = 8
stop = false
trace = "full"

[steps.full.probes.drawn]
at = ["embed", "layer.*.down"]
sample = { tokens = "every 4", layers = { stratified = 2, seed = 4 }, elements = { reservoir = 6, seed = 18364758544493064720 } }
[steps.full.probes.random]
at = "layer.*.swiglu"
sample = { tokens = "answer", layers = "every 2", elements = { projection = 5, seed = 18364758544493064720 } }
[steps.full.probes.largest]
at = ["layer.1.qkv.k", "layer.*.gate_up.gate", "layer.*.attention.heads"]
sample = { tokens = "prompt", elements = { top = 3 } }
[steps.full.probes.stride]
at = "layer.*.rope.q"
sample = { tokens = "last", elements = { stride = 7 } }
[steps.full.probes.numbers]
at = "layer.*.ffn.residual"
sample = { elements = "none" }
features = ["rms", "outlier_ratio", "kurtosis", "l0", "sparsity"]
[steps.full.probes.weights]
at = "layer.*.attention.weights"
features = ["rms", "entropy", "renyi2", "sink_mass", "previous_token", "duplicate_token", "induction"]
RECIPE

cargo build --locked --quiet --bin pipe
pipe=target/debug/pipe
$pipe run --quiet "$scratch/recipe.toml" > /dev/null
for output in {digests,blocks,layers,full}/{answers.json,trace.safetensors} full/probes.safetensors tokens/tokens.json; do
    mkdir -p "$scratch/${output%/*}"
    $pipe show --output "$output" > "$scratch/$output"
done
"$venv/bin/python" tests/trace.py "$scratch"
