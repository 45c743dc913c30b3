#!/usr/bin/env bash
# A recipe of 10,000 steps: how long a plan and a run without anything to do take, and how much memory.
#
#     cargo build --release && benches/ten_thousand_steps.sh
set -euo pipefail
cd "$(dirname "$0")/.."
pipe=$PWD/target/release/pipe
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PIPE_STORE=$scratch/store

cp pipelines/tiny.gguf "$scratch"
{
  printf '[pipeline]\nname = "big"\n[steps.model]\nop = "file"\npath = "tiny.gguf"\n'
  for ((i = 1; i < 10000; i++)); do
    printf '[steps.t%d]\nop = "tokenize"\nmodel = "model"\nids = [%d, %d]\n' "$i" $((i % 256)) $((i / 256))
  done
} > "$scratch/big.toml"

"$pipe" run --quiet "$scratch/big.toml"
python3 - "$pipe" "$scratch/big.toml" <<'PYTHON'
import resource, statistics, subprocess, sys, time
pipe, recipe = sys.argv[1:]
for command in ("plan", "run"):
    times = []
    for _ in range(9):
        start = time.monotonic()
        subprocess.run([pipe, command, "--quiet", recipe], check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.monotonic() - start))
    print(f"{command:5} {statistics.median(times):6.0f} ms  ({min(times):.0f} to {max(times):.0f})")
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"peak  {peak / 1024:6.0f} MiB")
PYTHON
