#!/usr/bin/env python3
"""What looking inside costs: tokens per second of `pipe run` by level of trace, and with probes, as a Markdown table.

    cargo build --release
    python3 benches/inside.py MODEL.gguf --threads 1,2

Each round runs an `infer` step of 128 tokens of prompt and 64 to generate once for every level of trace and once with
probes. Rounds alternate (every other one goes backwards), so that a slow minute of the machine hits all; the table
shows medians, the spread of each, and the median of the rounds' ratios to the default, `digests`. Rates are of the
engine's passes with all that looks at them; what is written when the step ends is in its time alone.

A second table is of `pipe bench --trace digests`, which runs the engine in turns with nobody looking and with the
default's hashing, from an empty context, and compares the two.

Needs a quiet machine, room for the packed model in the folder for temporary files, and nothing but Python's standard
library.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile

from against_llama import processor, run

TEXT = """
The water that falls on the mountains in winter stays there as snow until the days grow long. Then it runs down
through narrow valleys, carries sand and small stones with it, and leaves them where the land is flat and the river
slow. Over thousands of years this has built the plain on which the town stands. Its first houses were of wood, close
to the bank, since whoever lived there fished or repaired boats. A flood took them, and those who came back built of
brick, a little higher up. Today the harbour is a garden, the boats are gone, and twice a year the children of the
school measure how much farther the river has moved to the east. They write the number on a wall beside the older
ones, so that everyone who passes by can see that nothing here stays where it was, and that somebody has looked.
"""

PROBES = """
[steps.answer.probes.residual]
at = "layer.*.ffn.residual"
sample = { tokens = "every 4", elements = "none" }
features = ["rms", "kurtosis"]
"""

BASE = "digests"
# Name: the trace of the step, and its probes.
STEPS = {
    BASE: ("digests", ""),
    "blocks": ("blocks", ""),
    "layers": ("layers", ""),
    "full": ("full", ""),
    "digests and probes": ("digests", PROBES),
}
NUMBERS = ("prompt", "generated", "step")


class Place:
    """A folder with a store, the model and a recipe for each kind of step."""

    def __init__(self, options, folder):
        self.options, self.folder, self.store = options, folder, os.path.join(folder, "store")
        self.runs = 0
        os.symlink(os.path.abspath(options.model), os.path.join(folder, "model.gguf"))
        self.write("prompts.jsonl", json.dumps({"text": TEXT}))
        self.pipe("run", self.recipe("text", ""), "--quiet")
        [prompt] = json.loads(self.pipe("show", "--output", "tokens/tokens.json"))["prompts"]
        if len(prompt["tokens"]) < options.prompt:
            sys.exit(f"the text has {len(prompt['tokens'])} tokens: --prompt can be no more")
        self.tokens = prompt["tokens"][: options.prompt]
        self.recipes = {}
        for number, (name, (trace, probes)) in enumerate(STEPS.items()):
            answer = f"""
[steps.answer]
op = "infer"
model = "model"
tokens = "tokens"
spec = "{options.spec}"
max_tokens = {options.gen}
stop = false
trace = "{trace}"
{probes}"""
            self.recipes[name] = self.recipe(f"recipe{number}", answer)

    def recipe(self, name, answer):
        steps = """
[pipeline]
name = "inside"
[steps]
model = { op = "file", path = "model.gguf" }
prompts = { op = "file", path = "prompts.jsonl" }
tokens = { op = "tokenize", model = "model", prompts = "prompts" }
"""
        return self.write(f"{name}.toml", steps + answer)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def pipe(self, *args):
        return run([self.options.pipe, *args, "--store", self.store])

    def step(self, name, threads):
        """One run: {"prompt": tokens/s, "generated": tokens/s, "step": ms}."""
        # A new name makes it another step. `--force` would run the same one, whose facts stay those of its first run.
        self.runs += 1
        self.write("prompts.jsonl", json.dumps({"id": str(self.runs), "ids": self.tokens}))
        self.pipe("run", self.recipes[name], "--no-prefixes", "--threads", str(threads), "--quiet")
        shown = json.loads(self.pipe("show", "--json"))
        facts = shown["facts"]["answer"]
        # The token generated last is not fed.
        counts = facts["prompt_tokens"], facts["generated_tokens"], facts["reused_prompt_tokens"], facts["threads"]
        [step] = [step for step in shown["details"]["steps"] if step["name"] == "answer"]
        if (*counts, step["outcome"]) != (self.options.prompt, self.options.gen - 1, 0, threads, "ran"):
            sys.exit(f"{name}: not what was to be measured: {facts} {step}")
        return {
            "prompt": facts["prompt_tokens_per_s"],
            "generated": facts["generated_tokens_per_s"],
            "step": step["wall_ms"],
        }

    def bench(self, threads):
        """{"none": {"prefill": tokens/s, "decode": tokens/s}, "digests": ...} of one run of `pipe bench`."""
        options = self.options
        command = [options.pipe, "bench", options.model, "--prompt", str(options.prompt), "--gen", str(options.gen)]
        command += ["--reps", str(options.rounds), "--threads", str(threads), "--spec", options.spec]
        found = json.loads(run([*command, "--trace", BASE, "--json"]))
        return {
            name: {what: rates[f"{what}_tokens_per_s"] for what in ("prefill", "decode")}
            for name, rates in (("none", found), (BASE, found["traced"]))
        }


def measure(place, threads):
    """{(name, number): [of each round]}."""
    found = {}
    # Packs the model, and leaves every trace in the store, so that no round differs from the others.
    for name in STEPS:
        place.step(name, threads)
    for index in range(place.options.rounds):
        for name in STEPS if index % 2 == 0 else reversed(STEPS):
            print(f"{threads} threads, round {index + 1}: {name}", file=sys.stderr)
            for number, value in place.step(name, threads).items():
                if not value > 0:
                    sys.exit(f"{name} gave no {number}: {value}")
                found.setdefault((name, number), []).append(value)
    return found


def row(found, threads, name):
    cells = [str(threads), name]
    for number in NUMBERS:
        values = found[name, number]
        # Round by round, so that a slow minute is compared with itself.
        ratio = statistics.median(value / base for value, base in zip(values, found[BASE, number]))
        middle = statistics.median(values)
        cells += [f"{middle:.1f} ({min(values):.1f} to {max(values):.1f})", f"**{ratio:.2f}**"]
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL.gguf")
    parser.add_argument("--spec", default="q8")
    parser.add_argument("--pipe", default=os.environ.get("PIPE", "target/release/pipe"), help="or PIPE")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--gen", type=int, default=64, help="tokens to generate")
    parser.add_argument("--threads", default="1", help="thread counts, as in 1,2")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if min(options.rounds, options.prompt) < 1 or options.gen < 2:
        parser.error("--rounds and --prompt must be at least 1, --gen 2")

    rows = ["| threads | | prompt, tokens/s | ratio | generated, tokens/s | ratio | step, ms | ratio |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    engine = ["| threads | engine alone | none | digests | ratio |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(options, folder)
        for threads in (int(count) for count in options.threads.split(",")):
            found = measure(place, threads)
            rows += [row(found, threads, name) for name in STEPS]
            bench = place.bench(threads)
            for what in ("prefill", "decode"):
                without, with_it = bench["none"][what], bench[BASE][what]
                cells = [str(threads), f"{what}, tokens/s", f"{without:.1f}", f"{with_it:.1f}"]
                engine.append(f"| {' | '.join(cells)} | **{with_it / without:.3f}** |")
    what = f"{os.path.basename(options.model)}, {options.spec}, {options.prompt} + {options.gen} tokens"
    print(f"{processor()}; {what}; median of {options.rounds} alternating rounds (lowest to highest)\n")
    print("\n".join([*rows, "", *engine]))


if __name__ == "__main__":
    main()
