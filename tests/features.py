"""Features of a trace beside an independent computation with numpy, within 1e-5 relative.

    features.py FEATURES.json TRACE.safetensors LOGITS.safetensors HEADS KV_HEADS HEAD_DIM

FEATURES.json is what examples/features.rs printed of the same two files. Counts and ranks must be equal.
"""

import json
import sys

import numpy as np
from safetensors import safe_open

TOLERANCE = 1e-5
# What is zero but for rounding is compared with what it is made of, of the order of 1.
FLOOR = 1e-9

compared = {}
worst = {}


def check(name, ours, theirs, where):
    compared[name] = compared.get(name, 0) + 1
    if ours is None or theirs is None:
        if ours is not theirs:
            sys.exit(f"{name} {where}: {ours} against {theirs}")
        return
    error = abs(ours - theirs)
    relative = error / abs(theirs) if theirs else error
    if not (error <= FLOOR or relative <= TOLERANCE):
        sys.exit(f"{name} {where}: {ours} against {theirs}, {relative:.1e} relative")
    if error > FLOOR:
        worst[name] = max(worst.get(name, 0.0), relative)


def ranks(x):
    """Average ranks."""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def spearman(a, b):
    a, b = ranks(a), ranks(b)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return np.corrcoef(a, b)[0, 1]


def gini(x):
    """Half the mean absolute difference over the mean: the definition that needs no sorting."""
    x = np.abs(x)
    return np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean()) if x.any() else 0.0


def of_row(x, before, ratio):
    rms = np.sqrt(np.mean(x**2))
    centred = x - x.mean()
    constant = x.min() == x.max()
    active = np.abs(x) > ratio * rms
    same = before is not None and before.shape == x.shape
    norms = np.linalg.norm(before) * np.linalg.norm(x) if same else 0
    return {
        "rms": rms,
        "outlier_ratio": np.abs(x).max() / rms if rms else 0.0,
        "kurtosis": 0.0 if constant else np.mean(centred**4) / np.var(x) ** 2,
        "l0": int(active.sum()),
        "sparsity": 1 - active.mean(),
        "cosine": (float(before @ x) / norms if norms else 0.0) if same else None,
        "gini": gini(x),
        "rank_correlation": spearman(before, x) if same else None,
    }


def effective_rank(rows):
    s = np.linalg.svd(rows, compute_uv=False)
    s = s[s > s.max() * 1e-7]
    p = s / s.sum()
    return np.exp(-(p * np.log(p)).sum())


def attention(rope, heads, kv_heads, dim):
    """[heads, positions, positions], zero above the diagonal."""
    n = len(rope)
    q = rope[:, : heads * dim].reshape(n, heads, dim).transpose(1, 0, 2)
    k = rope[:, heads * dim :].reshape(n, kv_heads, dim).transpose(1, 0, 2)
    scores = q @ np.repeat(k, heads // kv_heads, axis=0).transpose(0, 2, 1) / np.sqrt(dim)
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def of_head(p, tokens):
    """p is the row of position t, up to t."""
    t = len(p) - 1
    seen = tokens[: t + 1] == tokens[t]
    positive = p[p > 0]
    return {
        "entropy": -(positive * np.log(positive)).sum(),
        "renyi2": -np.log((p**2).sum()),
        "sink_mass": p[0],
        "previous_token": p[t - 1] if t else 0.0,
        "duplicate_token": p[:t][seen[:t]].sum(),
        "induction": p[1:][seen[:t]].sum(),
    }


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def kl(a, b):
    p, q = softmax(a), softmax(b)
    return (p * np.log(p / q)).sum()


def of_token(row, token):
    p = softmax(row)
    order = np.lexsort((np.arange(len(p)), -row))
    return {
        "log_probability": np.log(p[token]),
        "probability": p[token],
        "rank": int(np.where(order == token)[0][0]) + 1,
        "entropy": -(p * np.log(p)).sum(),
        "margin": p[order[0]] - p[order[1]],
        "top_p_size": int(np.searchsorted(np.cumsum(p[order]), 0.9)) + 1,
        "top": int(order[0]),
    }


def main():
    features, trace, logits = sys.argv[1:4]
    heads, kv_heads, dim = map(int, sys.argv[4:])
    with open(features) as f:
        ours = json.load(f)
    with safe_open(trace, "np") as f:
        blocks = json.loads(f.metadata()["blocks"])
        for i, prompt in enumerate(ours["prompts"]):
            tokens = f.get_tensor(f"{i}/tokens")
            before = None
            for block in blocks:
                rows = f.get_tensor(f"{i}/{block}").astype(np.float64)
                told = prompt["blocks"][block]
                check("effective_rank", told["effective_rank"], effective_rank(rows), (i, block))
                assert len(told["positions"]) == len(rows)
                for t, x in enumerate(rows):
                    expected = of_row(x, before[t] if before is not None else None, ours["ratio"])
                    for name, value in expected.items():
                        check(name, told["positions"][t][name], value, (i, block, t))
                before = rows
                if block.endswith("/rope"):
                    layer = str(int(block.split("/")[0].removeprefix("layer.")))
                    weights = attention(rows, heads, kv_heads, dim)
                    for h, t in np.ndindex(heads, len(rows)):
                        for name, value in of_head(weights[h, t, : t + 1], tokens).items():
                            check(f"head.{name}", prompt["heads"][layer][h][t][name], value, (i, block, h, t))
    with safe_open(logits, "np") as f:
        rows = f.get_tensor("logits").astype(np.float64)
    for i, (told, row) in enumerate(zip(ours["logits"], rows, strict=True)):
        following = rows[(i + 1) % len(rows)]
        few = told["tokens"]
        check("kl", told["kl"], kl(row, following), i)
        check("kl_restricted", told["kl_restricted"], kl(row[few], following[few]), i)
        for token, seen in zip(few, told["seen"], strict=True):
            for name, value in of_token(row, token).items():
                check(f"token.{name}", seen[name], value, (i, token))
    print(f"{sum(compared.values())} numbers of {len(compared)} features agree with numpy;", end=" ")
    name = max(worst, key=worst.get, default=None)
    print(f"largest difference {worst[name]:.1e} relative, of {name}" if name else "no difference")


main()
