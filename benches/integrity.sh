#!/usr/bin/env bash
# `pipe verify FILE.car --level integrity` on a bundle of 1 GiB, beside `b3sum` on the same file in the same run.
# Prints both speeds and their ratio; the goal is at least half. `b3sum` is built once into the cache, unless it is on
# the PATH. Uses target/release/pipe, or the program that PIPE names.
set -euo pipefail
cd "$(dirname "$0")/.."

megabytes=${1:-1024}
pipe=${PIPE:-target/release/pipe}
[ -x "$pipe" ] || cargo build --release --locked
pipe=$(realpath "$pipe")
cache="${XDG_CACHE_HOME:-$HOME/.cache}/pipe-ci/b3sum"
if ! b3sum=$(command -v b3sum); then
    [ -x "$cache/bin/b3sum" ] || cargo install --quiet --root "$cache" b3sum
    b3sum="$cache/bin/b3sum"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Bytes that do not repeat: a cipher's stream.
head -c "$((megabytes << 20))" /dev/zero |
    openssl enc -aes-128-ctr -nosalt -K 00000000000000000000000000000001 -iv 00000000000000000000000000000001 \
        > "$work/weights"
printf '[pipeline]\nname = "long"\n[steps.weights]\nop = "file"\npath = "weights"\n' > "$work/long.toml"
"$pipe" --quiet --store "$work/store" run "$work/long.toml" > /dev/null
"$pipe" --quiet --store "$work/store" export --with-inputs --output "$work/long.car" > /dev/null
rm -rf "$work/store" "$work/weights"

echo "$(stat -c %s "$work/long.car") bytes, $(nproc) cores, $("$b3sum" --version), $("$pipe" --version) at $pipe"
seconds() { # command…: wall time, the best of three
    local best=
    for _ in 1 2 3; do
        rm -rf "$work/there"
        local started
        started=$(date +%s%N)
        "$@" > /dev/null
        local took=$((($(date +%s%N) - started) / 1000000))
        [ -n "$best" ] && [ "$best" -le "$took" ] || best=$took
    done
    echo "$best"
}
cat "$work/long.car" > /dev/null
plain=$(seconds "$b3sum" "$work/long.car")
single=$(seconds "$b3sum" --num-threads 1 "$work/long.car")
ours=$(seconds "$pipe" --quiet --store "$work/there" verify "$work/long.car" --level integrity --ipfs off)
echo "b3sum $plain ms, b3sum with one thread $single ms, pipe verify $ours ms"
echo "$plain $ours $single" | awk '{ printf "%.2f of the speed of b3sum, %.2f with one thread\n", $1 / $2, $3 / $2 }'
