#!/usr/bin/env bash
# Features beside numpy, on a trace of the toy model. Needs Python with venv and pip; where numpy cannot be had it says
# so and succeeds; PIPE_FEATURES=1 makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/venv.sh
environment features-2 PIPE_FEATURES "features beside numpy" packages numpy safetensors

toy
cat > "$scratch/recipe.toml" <<'RECIPE'
pipeline = { name = "features" }
[steps]
model = { op = "file", path = "model.gguf" }
prompts = { op = "file", path = "prompts.jsonl" }
tokens = { op = "tokenize", model = "model", prompts = "prompts" }
answer = { op = "infer", model = "model", tokens = "tokens", max_tokens = 8, trace = "full", logits = true }
RECIPE

cargo build --locked --quiet --bin pipe --example features
pipe=target/debug/pipe
$pipe run "$scratch/recipe.toml" > /dev/null
for name in trace logits; do
    $pipe show --output answer/$name.safetensors > "$scratch/$name.safetensors"
done
target/debug/examples/features "$scratch/trace.safetensors" "$scratch/logits.safetensors" "$scratch/model.gguf" \
    > "$scratch/features.json"
"$venv/bin/python" tests/features.py "$scratch/features.json" "$scratch/trace.safetensors" \
    "$scratch/logits.safetensors" 4 2 16
