#!/usr/bin/env bash
# An introspection of the toy model beside numpy. Needs Python with venv and pip; where numpy and gguf cannot be had it
# says so and succeeds; PIPE_INSIDE=1 makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/venv.sh
environment inside-2 PIPE_INSIDE "an introspection beside numpy" packages numpy gguf

toy
cat > "$scratch/recipe.toml" <<'RECIPE'
pipeline = { name = "inside" }
[steps]
model = { op = "file", path = "model.gguf" }
prompts = { op = "file", path = "prompts.jsonl" }
tokens = { op = "tokenize", model = "model", prompts = "prompts" }
answer = { op = "infer", model = "model", tokens = "tokens", max_tokens = 8 }
inside = { op = "introspect", of = "answer", causes = 2, faithful = 0.02 }
RECIPE

cargo build --locked --quiet --bin pipe
pipe=target/debug/pipe
$pipe run "$scratch/recipe.toml" > /dev/null
$pipe show --output inside/introspection.json > "$scratch/introspection.json"
"$venv/bin/python" tests/inside.py "$scratch/model.gguf" "$scratch/introspection.json"
