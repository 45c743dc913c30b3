"""Scores beside EleutherAI's lm-evaluation-harness, whose own code computes them here from the same log-likelihoods.

    score.py LM_EVAL_FOLDER SCORES.json TOKENS.json LOG_LIKELIHOOD.json CORPUS.jsonl TEXTS.json

LM_EVAL_FOLDER is the package's unpacked source. Taken from it: api/metrics.py as a whole, and the functions
`process_results`, `count_bytes`, `count_words` (api/task.py) and `_encode_pair` (api/model.py) by themselves, since the
modules around them want torch. TEXTS.json is `tokens.json` of the plain texts whose tokens `_encode_pair` asks for.
"""

import ast
import json
import math
import re
import sys
import types
from pathlib import Path

import numpy as np

TOLERANCE = 1e-6


def load_metrics(folder):
    """metrics.py with its registry as decorators that do nothing."""
    registry = types.ModuleType("lm_eval.api.registry")
    registry.register_aggregation = lambda name: lambda f: f
    registry.register_metric = lambda **_: lambda f: f
    sys.modules["lm_eval.api.registry"] = registry
    sys.modules["sacrebleu"] = types.ModuleType("sacrebleu")
    module = types.ModuleType("metrics")
    exec(compile((folder / "api/metrics.py").read_text(), "metrics.py", "exec"), module.__dict__)
    return module


def load_function(path, name, of_class, **names):
    """One method's own source, without its decorators."""
    tree = ast.parse(path.read_text())
    owner = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == of_class)
    function = next(n for n in owner.body if isinstance(n, ast.FunctionDef) and n.name == name)
    function.decorator_list = []
    scope = dict(names)
    exec(compile(ast.Module([function], []), path.name, "exec", flags=__import__("__future__").annotations.compiler_flag), scope)
    return scope[name]


checked = 0


def check(name, ours, theirs):
    global checked
    checked += 1
    if not (isinstance(ours, (int, float)) and abs(ours - theirs) <= TOLERANCE * max(1.0, abs(theirs))):
        sys.exit(f"{name}: {ours} against {theirs}")


class Task:
    """What `process_results` asks of a task."""

    multiple_input = multiple_target = False
    config = types.SimpleNamespace(process_results=None)

    def __init__(self, output_type, metrics):
        self.OUTPUT_TYPE = output_type
        self._metric_fn_list = dict.fromkeys(metrics)

    def doc_to_choice(self, doc):
        return doc["choices"]

    def doc_to_target(self, doc):
        return doc["answer"] if self.OUTPUT_TYPE == "multiple_choice" else doc["rolling"]


def main():
    folder = Path(sys.argv[1])
    scores, tokens, likelihoods = (json.loads(Path(p).read_text()) for p in sys.argv[2:5])
    corpus = [json.loads(line) for line in Path(sys.argv[5]).read_text().splitlines()]
    texts = {p["text"]: p["tokens"] for p in json.loads(Path(sys.argv[6]).read_text())["prompts"]}

    metrics = load_metrics(folder)
    softmax = lambda x: np.exp(x - np.max(x)) / np.exp(x - np.max(x)).sum()
    task = folder / "api/task.py"
    process = load_function(
        task, "process_results", "ConfigurableTask", np=np, utils=types.SimpleNamespace(softmax=softmax), eval_logger=None
    )
    Task.count_words = staticmethod(lambda doc: load_function(task, "count_words", "Task", re=re)(Task, doc))
    Task.count_bytes = staticmethod(lambda doc: load_function(task, "count_bytes", "Task")(Task, doc))
    pair = load_function(folder / "api/model.py", "_encode_pair", "TemplateLM")
    model = types.SimpleNamespace(backend="causal", tok_encode=lambda text: texts[text])

    by_id = {p["id"]: (p, ll["log_likelihood"]) for p, ll in zip(tokens["prompts"], likelihoods["prompts"], strict=True)}

    def log_likelihood(line, number):
        """The harness's tokens of a pair, and the sum over the continuation's."""
        prompt, ll = by_id[f"{line['id']}#{number}"]
        context, continuation = pair(model, line["text"], " " + line["choices"][number])
        if (prompt["tokens"], prompt["continuation"]["from"]) != (context + continuation, len(context)):
            sys.exit(f"{prompt['id']}: other tokens than {context} + {continuation}")
        # The first token has no likelihood.
        return sum(ll[len(context) - 1 :])

    items = {}
    found = {p["id"]: p["scores"]["fitness"] for p in scores["prompts"]}
    for line in corpus:
        if "rolling" in line:
            names = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
            ll = sum(by_id[line["id"]][1])
            result = process(Task("loglikelihood_rolling", names), line, [ll])
            aggregate = {**dict.fromkeys(names, metrics.weighted_perplexity), "bits_per_byte": metrics.bits_per_byte}
            for name, item in result.items():
                check(f"{line['id']} {name}", found[line["id"]]["parts"][name], aggregate[name]([item]))
            check(f"{line['id']} value", found[line["id"]]["value"], 1 / metrics.weighted_perplexity([result["byte_perplexity"]]))
        elif len(line["choices"]) == 1:
            result = process(Task("loglikelihood", ["perplexity"]), line, [(log_likelihood(line, 0), False)])
            check(f"{line['id']} perplexity", found[line["id"]]["parts"]["perplexity"], math.exp(-result["perplexity"]))
        else:
            lls = [log_likelihood(line, i) for i in range(len(line["choices"]))]
            names = ["acc", "acc_norm", "acc_bytes"]
            result = process(Task("multiple_choice", names), line, [(ll, False) for ll in lls])
            for name in names:
                check(f"{line['id']} {name}", found[line["id"]]["parts"][name], result[name])
            check(f"{line['id']} value", found[line["id"]]["value"], result["acc"])
        for name, item in result.items():
            items.setdefault(name, []).append(item)

    aggregations = {
        "perplexity": metrics.perplexity,
        "word_perplexity": metrics.weighted_perplexity,
        "byte_perplexity": metrics.weighted_perplexity,
        "bits_per_byte": metrics.bits_per_byte,
    }
    parts = scores["scores"]["fitness"]["parts"]
    for name, values in items.items():
        aggregate = aggregations.get(name, metrics.mean)
        check(name, parts[name], aggregate(values))
        if aggregate is metrics.mean:
            check(f"{name}_stderr", parts[f"{name}_stderr"], metrics.mean_stderr(values))
        else:
            # Another generator, so another sample: the two estimates of one error are near each other.
            theirs = metrics._bootstrap_internal(aggregate, 4000)((0, values))
            theirs, ours = metrics.sample_stddev(theirs), parts[f"{name}_stderr"]
            if not 0.8 < ours / theirs < 1.25:
                sys.exit(f"{name}_stderr: {ours} against {theirs}")
    print(f"{checked} numbers agree with lm-evaluation-harness within {TOLERANCE}: {', '.join(sorted(items))}")


main()
