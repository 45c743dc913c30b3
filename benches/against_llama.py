#!/usr/bin/env python3
"""Tokens per second of `pipe`, spec by spec, beside llama.cpp, on one machine and in one run, as a Markdown table.

    cargo build --release
    LLAMA_BENCH=path/to/llama-bench python3 benches/against_llama.py \\
        F32.gguf:f32 Q8_0.gguf:q8,q8a8 Q4_0.gguf:q4,q4a8 Q4_1.gguf:q4

Each argument is a model that both run, llama.cpp as the file says, `pipe` in the specs behind the colon. Rounds
alternate between the programs (and swap who goes first), so that a slow minute of the machine hits all; the table
shows medians, the spread of each, and the ratio ours / theirs. Needs a quiet machine, and nothing but Python's
standard library.

llama.cpp: its source is inside the sdist of PyPI's llama-cpp-python (`vendor/llama.cpp`):
    cmake -G Ninja -S vendor/llama.cpp -B build -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF
    ninja -C build llama-bench llama-quantize
    build/bin/llama-quantize --allow-requantize MODEL-Q4_1.gguf F32.gguf F32       # and Q8_0, Q4_0
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

TASKS = ("prefill", "decode")


def run(command):
    """Standard output of a command; its last words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error}")
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed ({done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout


def llama(options, threads, model):
    """One run of llama-bench: {"prefill": tokens/s, "decode": tokens/s}."""
    command = [options.llama_bench, "-m", model, "-p", str(options.prompt), "-n", str(options.gen)]
    command += ["-t", str(threads), "-r", "1", "-ngl", "0", "-o", "json"]
    speeds = {}
    for entry in json.loads(run(command)):
        speeds["prefill" if entry["n_prompt"] else "decode"] = entry["avg_ts"]
    return speeds


def ours(options, threads, model, spec):
    """One run of `pipe bench`, in the same form."""
    command = [options.pipe, "bench", model, "--prompt", str(options.prompt), "--reps", "1"]
    command += ["--gen", str(options.gen), "--threads", str(threads), "--spec", spec, "--json"]
    found = json.loads(run(command))
    return {task: found[f"{task}_tokens_per_s"] for task in TASKS}


def measure(options, threads, model, specs):
    """{(program or spec, task): [tokens/s of each round]}."""
    found = {}
    programs = [(spec, lambda spec=spec: ours(options, threads, model, spec)) for spec in specs]
    programs.append(("llama.cpp", lambda: llama(options, threads, model)))
    for index in range(options.rounds):
        for name, program in programs if index % 2 == 0 else reversed(programs):
            print(f"{os.path.basename(model)}, {threads} threads, round {index + 1}: {name}", file=sys.stderr)
            speeds = program()
            missing = [task for task in TASKS if not speeds.get(task, 0) > 0]
            if missing:
                sys.exit(f"{name} gave no speed for {', '.join(missing)}: {speeds}")
            for task in TASKS:
                found.setdefault((name, task), []).append(speeds[task])
    return found


def cell(speeds):
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"


def processor():
    """The name of the CPU, if the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf:SPEC[,SPEC]", help="a model, and our specs for it")
    parser.add_argument("--llama-bench", default=os.environ.get("LLAMA_BENCH"), help="or LLAMA_BENCH")
    parser.add_argument("--pipe", default=os.environ.get("PIPE", "target/release/pipe"), help="or PIPE")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of prefill")
    parser.add_argument("--gen", type=int, default=64, help="tokens of decode")
    parser.add_argument("--threads", default="1", help="thread counts, as in 1,2")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if not options.llama_bench:
        parser.error("name llama-bench (or LLAMA_BENCH)")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    rows = ["| model | spec | threads | | pipe | llama.cpp | ratio |", "|---|---|---|---|---|---|---|"]
    for threads in (int(count) for count in options.threads.split(",")):
        for argument in options.models:
            model, _, specs = argument.rpartition(":")
            if not model:
                parser.error(f"{argument}: write MODEL.gguf:SPEC")
            found = measure(options, threads, model, specs.split(","))
            name = os.path.basename(model)
            for spec in specs.split(","):
                for task, size in zip(TASKS, (options.prompt, options.gen)):
                    pair = found[spec, task], found["llama.cpp", task]
                    ratio = statistics.median(pair[0]) / statistics.median(pair[1])
                    rows.append(
                        f"| {name} | {spec} | {threads} | {task} {size} | {cell(pair[0])} | {cell(pair[1])} | **{ratio:.2f}** |"
                    )
    print(f"{processor()}; tokens/s, median of {options.rounds} alternating rounds (lowest to highest)\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
