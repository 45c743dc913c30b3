"""Traces and probes opened as they are, and every number in them that follows from others computed again.

    trace.py FOLDER

FOLDER has, of each level of trace, LEVEL/answers.json and LEVEL/trace.safetensors; full/probes.safetensors; and
tokens/tokens.json.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent.parent
LEVELS = ("digests", "blocks", "layers", "full")
# Of sums in f64 in another order; of attention weights in f64 beside those in f32.
SUMS, WEIGHTS = 1e-9, 1e-5
ACTIVE = 0.1

compared = {}


def equal(what, ours, theirs):
    """Bit for bit, for arrays: no value in these files is a NaN."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    compared[what.split(":")[0]] = compared.get(what.split(":")[0], 0) + ours.size
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
        sys.exit(f"{what}: {ours} against {theirs}")


def near(what, ours, theirs, tolerance):
    compared[what.split(":")[0]] = compared.get(what.split(":")[0], 0) + ours.size
    if ours.shape != theirs.shape or not np.all(np.abs(ours - theirs) <= tolerance * (np.abs(theirs) + 1e-3)):
        sys.exit(f"{what}: {ours} against {theirs}")


def is_residual(block):
    return block == "embed" or block.endswith("/ffn.residual")


def check_trace(folder, level, transcripts):
    path = folder / level / "trace.safetensors"
    answers = json.loads((folder / level / "answers.json").read_text())["answers"]
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        about = file.metadata()
    equal("metadata", [about["format"], about["spec"], about["level"]], ["pipe/trace@1", "f32@1", level])
    blocks = json.loads(about["blocks"])
    kept = {"digests": [], "blocks": [], "layers": [b for b in blocks if is_residual(b)], "full": blocks}[level]
    names = {"tokens", "digests", *kept}
    equal("tensors", sorted(tensors), sorted(f"{i}/{name}" for i in range(len(answers)) for name in names))
    for i, (answer, prompt) in enumerate(zip(answers, transcripts, strict=True)):
        tokens, digests = tensors[f"{i}/tokens"], tensors[f"{i}/digests"]
        equal("tokens", tokens, np.array(prompt + answer["tokens"], np.uint32))
        through = len(tokens) - (answer["stopped_by"] != "context")
        equal("shapes", digests.shape, (through, len(blocks), 32))
        root = blake3()
        for p, token in enumerate(tokens):
            rows = digests[p].tobytes() if p < through else b""
            root.update(blake3(int(token).to_bytes(4, "little") + rows).digest())
        equal("roots", root.hexdigest(), answer["trace"])
        for block in kept:
            rows, place = tensors[f"{i}/{block}"], blocks.index(block)
            equal("types", [str(rows.dtype), len(rows)], ["float32", through])
            again = [list(blake3(row.astype("<f4").tobytes()).digest()) for row in rows]
            equal(f"digests of rows: {level} {i} {block}", digests[:, place], np.array(again, np.uint8))
    return tensors, blocks, answers


def documented(folder, level, answers):
    """docs/TRACE.md's own script, run beside a trace."""
    [script] = re.findall(r"```python\n(.*?)```", (HERE / "docs/TRACE.md").read_text(), re.S)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder / level, capture_output=True, text=True, check=True)
    equal("the documented script", done.stdout.strip(), answers[0]["trace"])


def philox(counter, key):
    """Philox4x32-10 (Salmon and others 2011)."""
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & 0xFFFFFFFF, a >> 32 ^ counter[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def draw(index, width, purpose, seed):
    return philox([index & 0xFFFFFFFF, index >> 32, width, purpose], [seed & 0xFFFFFFFF, seed >> 32])


def below(bound, words):
    return (words[0] | words[1] << 32) * bound >> 64


def reservoir(n, width, seed):
    places = list(range(min(n, width)))
    for i in range(n, width):
        place = below(i + 1, draw(i, width, 1, seed))
        if place < n:
            places[place] = i
    return sorted(places)


def stratified(layers, n, seed):
    m = len(layers)
    if n >= m:
        return layers
    bounds = [(i * m // n, (i + 1) * m // n) for i in range(n)]
    return [layers[a + below(b - a, draw(i, m, 2, seed))] for i, (a, b) in enumerate(bounds)]


def signs(n, width, seed):
    words = [word for i in range(-(-n * width // 128)) for word in draw(i, width, 3, seed)]
    bits = [words[k // 32] >> k % 32 & 1 for k in range(n * width)]
    return np.where(np.array(bits).reshape(n, width) == 1, -1.0, 1.0)


def positions_of(rule, prompt, through):
    if isinstance(rule, dict):
        return range(0, through, rule["every"])
    first = {"all": 0, "last": prompt - 1, "prompt": 0, "answer": prompt}[rule]
    return range(first, prompt if rule in ("last", "prompt") else through)


def elements_of(rule, rows):
    """What an element rule keeps of rows [..., width], and the indices that stand in the file, if any do."""
    kind, parameters = next(iter(rule.items())) if isinstance(rule, dict) else (rule, {})
    n, width = parameters.get("n"), rows.shape[-1]
    if kind in ("all", "none"):
        return (rows if kind == "all" else None), None
    if kind == "top":
        indices = np.argsort(-np.abs(rows), axis=-1, kind="stable")[..., :n]
        return np.take_along_axis(rows, indices, -1), indices
    if kind == "projection":
        # A cumulative sum goes in order and never regroups.
        matrix = signs(n, width, parameters["seed"])
        outputs = [np.cumsum(rows.astype(np.float64) * row, axis=-1)[..., -1] for row in matrix]
        return (np.stack(outputs, -1) / np.sqrt(n)).astype(np.float32), None
    indices = np.arange(0, width, n) if kind == "stride" else np.array(reservoir(n, width, parameters["seed"]))
    return rows[..., indices], indices


def features_of(rows):
    x = rows.astype(np.float64)
    rms = np.sqrt(np.mean(x**2, axis=-1))
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.mean(centred**2, axis=-1)
    # Equal elements have none.
    constant = x.max(axis=-1) == x.min(axis=-1)
    kurtosis = np.where(constant, 0.0, np.mean(centred**4, axis=-1) / np.where(constant, 1.0, spread) ** 2)
    active = np.abs(x) > ACTIVE * rms[..., None]
    return {
        "rms": rms,
        "outlier_ratio": np.abs(x).max(axis=-1) / rms,
        "kurtosis": kurtosis,
        "l0": active.sum(axis=-1).astype(np.float64),
        "sparsity": 1.0 - active.mean(axis=-1),
    }


def features_of_heads(weights, tokens):
    """Of [head, position seen], whose last position is the one that looks."""
    p, last = weights.astype(np.float64), tokens[-1]
    logs = np.log(np.where(p > 0, p, 1.0))
    same, after = tokens[:-1] == last, np.concatenate([[False], tokens[:-1] == last])
    return {
        "entropy": -(p * logs).sum(axis=-1),
        "renyi2": np.maximum(-np.log((p**2).sum(axis=-1)), 0.0),
        "sink_mass": p[:, 0],
        "previous_token": p[:, -2] if len(tokens) > 1 else np.zeros(len(p)),
        "duplicate_token": p[:, :-1] @ same,
        "induction": p @ after,
    }


class Full:
    """The rows of one prompt in a full trace, cut into the parts that probes can name."""

    def __init__(self, tensors, prompt, heads):
        self.of = lambda block: tensors[f"{prompt}/{block}"]
        self.heads = heads

    def rows(self, source):
        if source == "embed":
            return self.of(source)
        layer, name = source.split("/")
        block, _, part = name.rpartition(".")
        whole = f"{layer}/{block}"
        attention = self.of(f"{layer}/attention").shape[1]
        if name == "attention.heads":
            rows = self.of(whole)
            return rows.reshape(len(rows), self.heads, -1)
        if block in ("qkv", "rope"):
            kv = (self.of(f"{layer}/qkv").shape[1] - attention) // 2
            start = {"q": 0, "k": attention, "v": attention + kv}[part]
            return self.of(whole)[:, start : start + (attention if part == "q" else kv)]
        if block == "gate_up":
            return np.split(self.of(whole), 2, axis=1)[part == "up"]
        return self.of(source)

    def weights(self, layer):
        """[position, head, position seen], in f64 from the queries and keys of the trace."""
        q, k = (self.rows(f"{layer}/rope.{part}").astype(np.float64) for part in "qk")
        n, dim = len(q), q.shape[1] // self.heads
        q, k = q.reshape(n, self.heads, dim), k.reshape(n, -1, dim)
        k = np.repeat(k, self.heads // k.shape[1], axis=1)
        scores = np.einsum("phd,shd->phs", q, k) / np.sqrt(dim)
        scores[~np.tril(np.ones((n, n), bool))[:, None, :].repeat(self.heads, 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True)


def check_weights(name, tensor, features, full, layer, positions, tokens):
    positions = np.array(positions)
    if not len(positions):
        return
    near(f"attention weights: {name}", tensor, full.weights(layer)[positions][..., : positions[-1] + 1], WEIGHTS)
    for at, position in enumerate(positions):
        equal("what is not seen", tensor[at, :, position + 1 :], np.zeros_like(tensor[at, :, position + 1 :]))
        seen = tensor[at, :, : position + 1]
        again = features_of(seen) | features_of_heads(seen, tokens[: position + 1])
        for feature, found in features.items():
            near(f"{feature} of weights: {name} at {position}", found[at], again[feature], SUMS)


def check_probes(path, trace, answers, layers, heads):
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        about = file.metadata()
    equal("metadata", [about["format"], about["spec"]], ["pipe/probes@1", "f32@1"])
    probes, axes = json.loads(about["probes"]), json.loads(about["axes"])
    left = set(tensors)
    for name, probe in probes.items():
        sources = [source.split("/", 1)[1] for source in axes if source.startswith(f"{name}/")]
        rule, there = probe["layers"], sorted({int(s[6:8]) for s in sources if s.startswith("layer.")})
        if isinstance(rule, dict):
            wanted = layers[:: rule["every"]] if "every" in rule else stratified(layers, **rule["stratified"])
            equal("layers", there, wanted)
        for i, answer in enumerate(answers):
            full, prompt = Full(trace, i, heads), answer["prompt_tokens"]
            tokens = trace[f"{i}/tokens"]
            positions = list(positions_of(probe["tokens"], prompt, len(trace[f"{i}/digests"])))
            equal("positions", tensors[f"{i}/{name}/positions"], np.array(positions, np.uint32))
            left.remove(f"{i}/{name}/positions")
            for source in sources:
                base = f"{i}/{name}/{source}"
                features = {f: tensors[f"{base}@{f}"] for f in probe["features"]}
                left -= {base, f"{base}#indices", *(f"{base}@{f}" for f in features)}
                if source.endswith("attention.weights"):
                    check_weights(base, tensors[base], features, full, source[:8], positions, tokens)
                    continue
                rows = full.rows(source)[positions]
                equal("axes", len(axes[f"{name}/{source}"]), rows.ndim)
                values, indices = elements_of(probe["elements"], rows)
                equal("kept", base in tensors, values is not None)
                if values is not None:
                    equal(f"samples: {base}", tensors[base], np.ascontiguousarray(values))
                equal("kept", f"{base}#indices" in tensors, indices is not None)
                if indices is not None:
                    equal(f"indices: {base}", tensors[f"{base}#indices"], indices.astype(np.uint32))
                again = features_of(rows) if features else {}
                for feature, found in features.items():
                    near(f"{feature}: {base}", found, again[feature], SUMS)
    equal("unexplained tensors", sorted(left), [])


def check_torch(path):
    try:
        from safetensors.torch import load_file as load
    except ImportError:
        return "not tried, since it is not installed"
    ours, theirs = load_file(path), load(path)
    equal("tensors by torch", sorted(ours), sorted(theirs))
    for name, tensor in theirs.items():
        equal("torch", ours[name], tensor.numpy())
    return "gives the same tensors"


def check_example(folder, trace, blocks):
    paths = [folder / "full/trace.safetensors", folder / "full/probes.safetensors"]
    done = subprocess.run(
        [sys.executable, HERE / "examples/read_trace.py", *paths], capture_output=True, text=True, check=True
    )
    for block in filter(is_residual, blocks):
        norm = np.linalg.norm(trace[f"0/{block}"].astype(np.float64), axis=1).mean()
        equal("norms of the example", re.search(rf"^{re.escape(block)} +(\S+)", done.stdout, re.M)[1], f"{norm:.4f}")
    equal("probes of the example", "numbers/layer.01/ffn.residual, prompt 0" in done.stdout, True)


def main():
    folder = Path(sys.argv[1])
    transcripts = [prompt["tokens"] for prompt in json.loads((folder / "tokens/tokens.json").read_text())["prompts"]]
    traces = {level: check_trace(folder, level, transcripts) for level in LEVELS}
    for level in LEVELS:
        documented(folder, level, traces[level][2])
    full, blocks, answers = traces["full"]
    equal("ends", sorted({answer["stopped_by"] for answer in answers}), ["context", "max_tokens"])
    # Each level contains the one before.
    for tensors, names, _ in traces.values():
        places = [blocks.index(name) for name in names]
        for name, tensor in tensors.items():
            equal("levels", tensor, full[name][:, places] if name.endswith("/digests") else full[name])
    with safe_open(folder / "full/probes.safetensors", "np") as file:
        heads = file.get_slice("0/weights/layer.00/attention.weights").get_shape()[1]
    layers = sorted({int(block[6:8]) for block in blocks if block.startswith("layer.")})
    check_probes(folder / "full/probes.safetensors", full, answers, layers, heads)
    torch = [check_torch(folder / "full" / name) for name in ("trace.safetensors", "probes.safetensors")][0]
    check_example(folder, full, blocks)
    print("traces and probes in Python agree:", ", ".join(f"{n} {what}" for what, n in compared.items() if n))
    print(f"torch {torch}")


if __name__ == "__main__":
    main()
