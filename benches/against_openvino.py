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
import statistics
import sys

from against_llama import TASKS, cell, ours, processor


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
        speeds = options.prompt / metrics.get_ttft().mean * 1e3, 1e3 / metrics.get_tpot().mean
        return dict(zip(TASKS, speeds))


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
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    print(f"{processor()}; OpenVINO {openvino.__version__}; ", end="")
    print(f"tokens/s, median of {options.rounds} alternating rounds (lowest to highest)\n")
    print("| pipe | OpenVINO | threads | | pipe | OpenVINO | ratio |")
    print("|---|---|---|---|---|---|---|")
    for threads in map(int, options.threads.split(",")):
        for pair in options.pairs:
            model, spec, precision = pair.rsplit(":", 2)
            theirs = Theirs(options.model, precision, threads)
            theirs.round(options, 0)
            found = {"pipe": [], "OpenVINO": []}
            programs = [
                ("pipe", lambda _: ours(options, threads, model, spec)),
                ("OpenVINO", lambda index: theirs.round(options, index + 1)),
            ]
            for index in range(options.rounds):
                for name, program in programs if index % 2 == 0 else reversed(programs):
                    found[name].append(program(index))
            for task, size in zip(TASKS, (options.prompt, options.gen)):
                mine, other = ([speeds[task] for speeds in of] for of in found.values())
                ratio = statistics.median(mine) / statistics.median(other)
                row = [spec, precision, threads, f"{task} {size}", cell(mine), cell(other), f"**{ratio:.2f}**"]
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    try:
        import numpy
        import openvino
        import openvino_genai as genai
    except ImportError as error:
        sys.exit(f"{error}: run it with the Python of an environment that has openvino-genai (see the top of this file)")
    main()
