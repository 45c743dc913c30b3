#!/usr/bin/env bash
# A real IPFS node between two stores: a run is published in one, and derived again in the other from its CID alone;
# the same with a CAR and no node; every block is read back; a CAR that Kubo wrote comes in here.
#
# Needs Go, which builds Kubo into a cache once (some minutes, 120 MB), and no root. The node listens on the loopback
# only, knows no peers, and is stopped whatever happens. Where Kubo cannot be had it says so and succeeds; PIPE_KUBO=1
# makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v0.40.1
cache="${XDG_CACHE_HOME:-$HOME/.cache}/pipe-ci/kubo-$version"

not_run() {
    echo "not run: publishing to a real IPFS node, because $*" >&2
    [ -z "${PIPE_KUBO:-}" ]
    exit
}

work=$(mktemp -d)
daemon=
stop() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2> /dev/null || true
        wait "$daemon" 2> /dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

# `go install` refuses a module that excludes versions of others, so it is built from its own source.
build() {
    command -v go > /dev/null || not_run "there is no go"
    echo "building Kubo $version into $cache"
    local source
    source=$(go mod download -json "github.com/ipfs/kubo@$version" | sed -nE 's/^\s*"Dir": "(.*)",?$/\1/p') || true
    [ -n "$source" ] || not_run "its source cannot be had"
    mkdir -p "$cache"
    cp -r "$source" "$work/kubo"
    chmod -R u+w "$work/kubo"
    (cd "$work/kubo" && nice go build -trimpath -o "$cache/ipfs.new" ./cmd/ipfs) || not_run "it does not build"
    mv "$cache/ipfs.new" "$cache/ipfs"
}
[ -x "$cache/ipfs" ] || build

fail() {
    echo "failed: $*" >&2
    exit 1
}

cargo build --quiet --locked
pipe() { "${CARGO_TARGET_DIR:-target}/debug/pipe" "$@"; }
ipfs() { "$cache/ipfs" "$@"; }

export IPFS_PATH="$work/ipfs"
ipfs init --profile test > /dev/null
ipfs config Addresses.API /ip4/127.0.0.1/tcp/0
ipfs config Addresses.Gateway /ip4/127.0.0.1/tcp/0
ipfs config --json Addresses.Swarm '["/ip4/127.0.0.1/tcp/0"]'
ipfs config --json Bootstrap '[]'
"$cache/ipfs" daemon > "$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
    grep -q 'Daemon is ready' "$work/daemon.log" && break
    kill -0 "$daemon" 2> /dev/null || fail "the daemon ended: $(cat "$work/daemon.log")"
    sleep 0.1
done
node=$(cat "$IPFS_PATH/api")
ipfs version

# One store and folder publishes: the answer, and a trace long enough to be cut into blocks.
mkdir "$work/here" "$work/there"
cp pipelines/tiny.* "$work/here"
sed -i 's/max_tokens = 24/max_tokens = 200\nstop = false\ntrace = "full"/' "$work/here/tiny.toml"
here() { pipe --store "$work/here/store" "$@"; }
there() { pipe --store "$work/there/store" "$@"; }
here run "$work/here/tiny.toml" > /dev/null
# The times below are this program's.
echo "the program is a debug build"
started=$(date +%s%N)
cid=$(here publish --ipfs "$node" --output "$work/here.car")
echo "published $cid in $((($(date +%s%N) - started) / 1000000)) ms"
[ "$(here key --json | sed -E 's/.*"head":"([^"]+)".*/\1/')" = "$cid" ] || fail "the head of the chain is another"

echo "== from the CID alone, in an empty store"
there reproduce "$cid" --ipfs "$node"
rm -rf "$work/there/store"
echo "== from the node's gateway"
there reproduce "$cid" --ipfs off --gateway "$(cat "$IPFS_PATH/gateway")"
rm -rf "$work/there/store"
echo "== from the CAR, with no node"
IPFS_PATH="$work/none" there reproduce "$work/here.car" --ipfs off
rm -rf "$work/there/store"

echo "== every block of the CAR, read back from Kubo"
# Kubo's own count of what it took, and its bytes under every address it names.
ipfs dag import --pin-roots=false --stats "$work/here.car"
ipfs refs --recursive --unique "$cid" | sort > "$work/refs"
blocks=$(here publish --ipfs off --output "$work/again.car" --json | sed -E 's/.*"blocks":([0-9]+).*/\1/')
cmp "$work/here.car" "$work/again.car"
[ "$(($(wc -l < "$work/refs") + 1))" = "$blocks" ] || fail "Kubo finds $(wc -l < "$work/refs") blocks below, of $blocks"

echo "== a CAR that Kubo wrote"
ipfs dag export --progress=false "$cid" > "$work/kubo.car"
[ "$(there import "$work/kubo.car")" = "$cid" ] || fail "another root came in"
there reproduce "$cid" --ipfs off > /dev/null

echo "== a long output is an ordinary file to Kubo"
here show "$cid" --output answer/trace.safetensors > "$work/trace"
root=$(ipfs add --quiet --only-hash --cid-version 1 --hash blake3 --raw-leaves --chunker size-1048576 \
    --max-file-links 1024 "$work/trace")
grep -q "$root" "$work/refs" || fail "ipfs add calls the trace $root, which the bundle does not link"
ipfs cat "$root" | cmp - "$work/trace"

echo "== the chain goes on"
here run "$work/here/tiny.toml" --force answer > /dev/null
second=$(here publish --ipfs "$node" --ipns)
[ "$(ipfs name resolve --offline)" = "/ipfs/$second" ] || fail "the node's name points elsewhere"
[ "$second" != "$cid" ] || fail "the second manifest is the first"
there reproduce "$second" --ipfs "$node" > /dev/null
there log --chain "$second"

# The real model, where a store has a run of it (tests/real-model.sh keeps one): published from there, without inputs.
if [ -n "${PIPE_TEST_STORE:-}" ]; then
    run=$(pipe --store "$PIPE_TEST_STORE" log --json |
        sed -nE 's/.*"bundle":"(bafy[^"]+)".*"pipeline":"smollm2".*/\1/p; s/.*"pipeline":"smollm2".*"bundle":"(bafy[^"]+)".*/\1/p' |
        head -n 1)
    [ -n "$run" ] || fail "$PIPE_TEST_STORE has no run of pipelines/smollm2.toml"
    started=$(date +%s%N)
    cid=$(pipe --store "$PIPE_TEST_STORE" publish "$run" --ipfs "$node" --output "$work/real.car")
    echo "published the real model's $cid ($(stat -c %s "$work/real.car") bytes) in $((($(date +%s%N) - started) / 1000000)) ms"
    there verify "$cid" --level integrity --ipfs "$node"
else
    echo "not run: publishing a run of the real model, because PIPE_TEST_STORE names no store"
fi

echo "kubo: all as it should be"
