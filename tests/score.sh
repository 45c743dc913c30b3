#!/usr/bin/env bash
# Scores beside lm-evaluation-harness's own formulas, on the toy model. Needs Python with venv and pip; where the
# harness's source cannot be had it says so and succeeds; PIPE_SCORE=1 makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/venv.sh
version=0.4.13
harness() {
    packages numpy
    # Without what it depends on: its source is read, not run as a program.
    packages --no-deps "lm_eval==$version"
}
environment "lm-eval-$version-2" PIPE_SCORE "scores beside lm-evaluation-harness" harness
harness=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lm_eval

toy
cp pipelines/corpus-likely.jsonl "$scratch/corpus.jsonl"
cat >> "$scratch/corpus.jsonl" <<'LINES'
{"id": "spaces", "text": "A prompt that ends in space \n ", "choices": ["one", "deux", "три"], "answer": 1}
{"id": "second", "rolling": " Two  texts,\n of several words "}
{"id": "third", "rolling": "Ein dritter Text über Äpfel."}
LINES
# The texts whose tokens the harness asks for: contexts without the white space at their end, and pairs.
"$venv/bin/python" - "$scratch/corpus.jsonl" > "$scratch/texts.jsonl" <<'PYTHON'
import json, sys
texts = set()
for line in map(json.loads, open(sys.argv[1])):
    for choice in line.get("choices", []):
        texts |= {line["text"].rstrip(), f"{line['text']} {choice}"}
for text in sorted(texts):
    print(json.dumps({"text": text}))
PYTHON
cat > "$scratch/recipe.toml" <<'RECIPE'
pipeline = { name = "score" }
[steps]
model = { op = "file", path = "model.gguf" }
corpus = { op = "file", path = "corpus.jsonl" }
texts = { op = "file", path = "texts.jsonl" }
tokens = { op = "tokenize", model = "model", prompts = "corpus" }
alone = { op = "tokenize", model = "model", prompts = "texts" }
likelihoods = { op = "infer", model = "model", tokens = "tokens", max_tokens = 0, log_likelihood = true }
scores = { op = "score", of = "likelihoods", references = "corpus", bootstrap = { resamples = 4000, seed = 7 } }
RECIPE

cargo build --locked --quiet --bin pipe
pipe=target/debug/pipe
$pipe run --quiet "$scratch/recipe.toml" > /dev/null
for output in scores/scores tokens/tokens likelihoods/log_likelihood alone/tokens; do
    $pipe show --output "$output.json" > "$scratch/${output/\//.}.json"
done
"$venv/bin/python" tests/score.py "$harness" "$scratch/scores.scores.json" "$scratch/tokens.tokens.json" \
    "$scratch/likelihoods.log_likelihood.json" "$scratch/corpus.jsonl" "$scratch/alone.tokens.json"
