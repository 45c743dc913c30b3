#!/usr/bin/env python3
"""Tokens per second of `pipe` beside llama.cpp, on one machine and in one run, as a Markdown table.

    cargo build --release
    LLAMA_BENCH=path/to/llama-bench python3 benches/against_llama.py MODEL-F32.gguf

Rounds alternate between the two programs (and swap who goes first), so that a slow minute of the machine hits
both; the table shows medians, the spread of each, and the ratio ours / theirs. Needs a quiet machine, and
nothing but Python's standard library.

llama.cpp: its source is inside the sdist of PyPI's llama-cpp-python (`vendor/llama.cpp`):
    cmake -G Ninja -S vendor/llama.cpp -B build -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF
    ninja -C build llama-bench llama-quantize
    build/bin/llama-quantize --allow-requantize MODEL-Q4_1.gguf MODEL-F32.gguf F32
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


def llama(options, threads):
    """One run of llama-bench: {"prefill": tokens/s, "decode": tokens/s}."""
    command = [options.llama_bench, "-m", options.model, "-p", str(options.prompt), "-n", str(options.gen)]
    command += ["-t", str(threads), "-r", "1", "-ngl", "0", "-o", "json"]
    speeds = {}
    for entry in json.loads(run(command)):
        speeds["prefill" if entry["n_prompt"] else "decode"] = entry["avg_ts"]
    return speeds


def ours(options, threads):
    """One run of `pipe bench`, in the same form."""
    command = [options.pipe, "bench", options.our_model or options.model, "--prompt", str(options.prompt)]
    command += ["--gen", str(options.gen), "--threads", str(threads), "--spec", options.spec, "--json"]
    found = json.loads(run(command))
    return {task: found[f"{task}_tokens_per_s"] for task in TASKS}


def measure(options, threads):
    """{(program, task): [tokens/s of each round]}."""
    found = {}
    programs = [("pipe", ours), ("llama.cpp", llama)]
    for index in range(options.rounds):
        for name, program in programs if index % 2 == 0 else reversed(programs):
            print(f"{threads} threads, round {index + 1} of {options.rounds}: {name}", file=sys.stderr)
            speeds = program(options, threads)
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
    parser.add_argument("model", nargs="?", default=os.environ.get("MODEL_F32"), help="GGUF for llama.cpp")
    parser.add_argument("--our-model", help="GGUF for pipe, when it is another one")
    parser.add_argument("--llama-bench", default=os.environ.get("LLAMA_BENCH"), help="or LLAMA_BENCH")
    parser.add_argument("--pipe", default=os.environ.get("PIPE", "target/release/pipe"), help="or PIPE")
    parser.add_argument("--spec", default="f32")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of prefill")
    parser.add_argument("--gen", type=int, default=64, help="tokens of decode")
    parser.add_argument("--threads", default="1", help="thread counts, as in 1,2")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if not options.model or not options.llama_bench:
        parser.error("name the model (or MODEL_F32) and llama-bench (or LLAMA_BENCH)")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    rows = ["| threads | | pipe | llama.cpp | ratio |", "|---|---|---|---|---|"]
    for threads in (int(count) for count in options.threads.split(",")):
        found = measure(options, threads)
        for task, size in zip(TASKS, (options.prompt, options.gen)):
            pair = found["pipe", task], found["llama.cpp", task]
            ratio = statistics.median(pair[0]) / statistics.median(pair[1])
            rows.append(f"| {threads} | {task} {size} | {cell(pair[0])} | {cell(pair[1])} | **{ratio:.2f}** |")
    print(f"{processor()}; {os.path.basename(options.model)}, spec {options.spec}; tokens/s, ", end="")
    print(f"median of {options.rounds} alternating rounds (lowest to highest)\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
