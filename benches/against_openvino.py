#!/usr/bin/env python3
"""Tokens per second of `pipe` beside OpenVINO, on one machine and in one run, as a Markdown table.

    cargo build --release
    python3 -m venv ENV && ENV/bin/pip install openvino-genai
    ENV/bin/python benches/against_openvino.py --model F16.gguf F32.gguf:f32:f32 Q8_0.gguf:q8a8:default

OpenVINO reads the file of --model, which it does not take with 32-bit weights. Each argument behind it is a model for
`pipe`, a spec, and what it is compared with: OpenVINO's `f32` arithmetic, or its `default`, which on CPUs that have
them is that of 16-bit floats. Rounds alternate between the programs, so that a slow minute of the machine hits all;
the table shows medians, the spread of each, and the ratio ours / theirs. Every prompt OpenVINO is given is another
one, since it keeps what it has computed of earlier ones. Needs a quiet machine.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys

TASKS = ("prefill", "decode")


def ours(pipe, model, spec, options, threads):
    command = [pipe, "bench", model, "--spec", spec, "--json", "--reps", "1", "--threads", str(threads)]
    command += ["--prompt", str(options.prompt), "--gen", str(options.gen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed ({done.returncode}):\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return tuple(found[f"{task}_tokens_per_s"] for task in TASKS)


class Theirs:
    def __init__(self, model, precision, threads):
        hint = {"INFERENCE_PRECISION_HINT": "f32"} if precision == "f32" else {}
        self.pipeline = genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads, **hint)

    def round(self, options, number):
        tokens = [[(j + 1) * (number + 3) * 37 % 40000 + 100 for j in range(options.prompt)]]
        tokens = openvino.Tensor(numpy.array(tokens, dtype=numpy.int64))
        mask = openvino.Tensor(numpy.ones((1, options.prompt), dtype=numpy.int64))
        config = genai.GenerationConfig()
        # The first token comes with the prompt.
        config.max_new_tokens, config.ignore_eos = options.gen + 1, True
        metrics = self.pipeline.generate(genai.TokenizedInputs(tokens, mask), config).perf_metrics
        return options.prompt / metrics.get_ttft().mean * 1e3, 1e3 / metrics.get_tpot().mean


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="MODEL:SPEC:PRECISION")
    parser.add_argument("--model", required=True, help="what OpenVINO reads: GGUF with 16-bit weights")
    parser.add_argument("--pipe", default="target/release/pipe")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    print(f"{platform.processor() or platform.machine()}; OpenVINO {openvino.__version__}; ", end="")
    print(f"tokens/s, median of {options.rounds} alternating rounds (lowest to highest)\n")
    print("| pipe | OpenVINO | threads | | pipe | OpenVINO | ratio |")
    print("|---|---|---|---|---|---|---|")
    for threads in map(int, options.threads.split(",")):
        for pair in options.pairs:
            model, spec, precision = pair.rsplit(":", 2)
            theirs = Theirs(options.model, precision, threads)
            theirs.round(options, 0)
            rounds = [
                (ours(options.pipe, model, spec, options, threads), theirs.round(options, number + 1))
                for number in range(options.rounds)
            ]
            for task, name in enumerate(TASKS):
                mine, other = ([side[task] for side in sides] for sides in zip(*rounds))
                ratio = statistics.median(mine) / statistics.median(other)
                tokens = options.prompt if name == "prefill" else options.gen
                row = [spec, precision, threads, f"{name} {tokens}", spread(mine), spread(other), f"**{ratio:.2f}**"]
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    try:
        import numpy
        import openvino
        import openvino_genai as genai
    except ImportError as error:
        sys.exit(f"{error}: run it with the Python of an environment that has openvino-genai (see the top of this file)")
    main()
