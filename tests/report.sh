#!/usr/bin/env bash
# Reports in headless Chromium, at a phone's and a desk's width, light and dark: no console message, no request, no
# overflow, every label within its picture and large enough to read; screenshots and a PDF of each. Needs Python and
# Chromium; where none is found it says so and succeeds; PIPE_CHROMIUM=1 makes that an error. PIPE_REPORT_SHOTS names
# the folder for the screenshots.
set -euo pipefail
cd "$(dirname "$0")/.."

not_run() {
    echo "not run: reports in a browser, because $*" >&2
    [ -z "${PIPE_CHROMIUM:-}" ]
    exit
}

chromium=
for name in chromium chromium-browser google-chrome; do
    chromium=$(command -v "$name") && break
done
[ -n "$chromium" ] || not_run "there is no Chromium"
command -v python3 > /dev/null || not_run "there is no Python"

cargo build --locked --quiet --bin pipe
pipe=$PWD/target/debug/pipe
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PIPE_STORE="$scratch/store"
shots=${PIPE_REPORT_SHOTS:-$scratch/shots}

page() { # NAME RECIPE [ARGUMENT…]
    "$pipe" --quiet run "$2" > /dev/null
    "$pipe" --quiet report --output "$scratch/$1.html" "${@:3}" > /dev/null
    python3 tests/report.py "$chromium" "$scratch/$1.html" "$shots"
}

"$pipe" --quiet run pipelines/tiny-inside.toml > /dev/null
printf 'the cat is on the mat and the dog is on the cat' > "$scratch/text.txt"
"$pipe" specs --json --prompt 4 --gen 2 --reps 1 --text "$scratch/text.txt" > "$scratch/card.json"
page inside pipelines/tiny-inside.toml --specs "$scratch/card.json"
page plain pipelines/tiny.toml
# What a stranger may write: markup, long words, other scripts, names without end; and a prompt of many tokens.
cp pipelines/tiny.gguf "$scratch/model.gguf"
python3 - > "$scratch/lines.jsonl" <<'LINES'
import json
words = "</style><script>document.title = 'broken'</script><img src=x onerror=alert(1)> "
wide = "w" * 60 + " \u202e\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u6f22\u5b57 \U0001f600 " + "a b\tc\n" * 6
print(json.dumps({"id": "<b>" + "long-" * 60, "text": words + wide}))
LINES
cat > "$scratch/hostile.toml" <<'RECIPE'
pipeline = { name = "hostile" }
[steps]
model = { op = "file", path = "model.gguf" }
lines = { op = "file", path = "lines.jsonl" }
a-step-with-a-name-of-many-words-that-goes-on-and-on = { op = "tokenize", model = "model", prompts = "lines" }
answer = { op = "infer", model = "model", tokens = "a-step-with-a-name-of-many-words-that-goes-on-and-on", max_tokens = 8 }
inside = { op = "introspect", of = "answer", causes = 0 }
scores = { op = "score", of = "answer", introspection = "inside" }
RECIPE
page hostile "$scratch/hostile.toml"
