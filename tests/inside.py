"""An introspection beside an independent computation: the model's forward pass in numpy, in f64, with its own lens,
attribution and ablations. Within 1e-4 relative: the model computes in f32.

    inside.py MODEL.gguf INTROSPECTION.json
"""

import json
import sys

import gguf
import numpy as np

TOLERANCE = 1e-4
# Nats, and parts of logits: below this f32 has nothing to say.
FLOOR = 2e-6

compared = {}


def check(name, ours, theirs, where):
    compared[name] = compared.get(name, 0) + 1
    error = abs(ours - theirs)
    if not (error <= FLOOR or error <= TOLERANCE * abs(theirs)):
        sys.exit(f"{name} {where}: {ours} against {theirs}")


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        value = lambda key: reader.fields[f"llama.{key}"].parts[-1][0]
        self.layers, self.heads = int(value("block_count")), int(value("attention.head_count"))
        self.kv_heads = int(value("attention.head_count_kv"))
        self.eps = float(value("attention.layer_norm_rms_epsilon"))
        self.base = float(value("rope.freq_base"))
        self.tensors = {
            t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors
        }
        self.embed = self.tensors["token_embd.weight"]
        self.head = self.tensors.get("output.weight", self.embed)
        self.dim = self.tensors["blk.0.attn_q.weight"].shape[0] // self.heads

    def of(self, layer, name):
        return self.tensors[f"blk.{layer}.{name}.weight"]

    def norm(self, x, gain):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.eps) * gain

    def rope(self, x):
        """Pairs of neighbours, [positions, heads, dim]."""
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return out

    def forward(self, tokens, off=(), means=None, embedded=None):
        """Everything of one pass; `off` names ablated components, whose means are another pass's."""
        x = self.embed[tokens].copy()
        for position, row in (embedded or {}).items():
            x[position] = row
        seen = {"embed": x.copy(), "streams": [x.copy()], "context": [], "hidden": [], "attention": [], "down": [], "weights": []}
        n = len(tokens)
        future = np.triu(np.full((n, n), -np.inf), 1)
        for layer in range(self.layers):
            y = self.norm(x, self.of(layer, "attn_norm"))
            split = lambda name, heads: (y @ self.of(layer, name).T).reshape(n, heads, self.dim)
            q, k = self.rope(split("attn_q", self.heads)), self.rope(split("attn_k", self.kv_heads))
            v = split("attn_v", self.kv_heads)
            context, all_weights = np.empty((n, self.heads, self.dim)), []
            for head in range(self.heads):
                kv = head // (self.heads // self.kv_heads)
                scores = q[:, head] @ k[:, kv].T / np.sqrt(self.dim) + future
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                all_weights.append(weights)
                context[:, head] = weights @ v[:, kv]
                if f"layer.{layer:02}/head.{head}" in off:
                    context[:, head] = means["context"][layer][head]
            added = context.reshape(n, -1) @ self.of(layer, "attn_output").T
            x = x + added
            y = self.norm(x, self.of(layer, "ffn_norm"))
            gate, up = y @ self.of(layer, "ffn_gate").T, y @ self.of(layer, "ffn_up").T
            hidden = gate / (1 + np.exp(-gate)) * up
            if f"layer.{layer:02}/ffn" in off:
                hidden = np.tile(means["hidden"][layer], (n, 1))
            down = hidden @ self.of(layer, "ffn_down").T
            x = x + down
            for name, value in [("context", context), ("hidden", hidden), ("attention", added), ("down", down), ("weights", all_weights), ("streams", x.copy())]:
                seen[name].append(value)
        seen["logits"] = self.logits(x)
        return seen

    def logits(self, x):
        return self.norm(x, self.tensors["output_norm.weight"]) @ self.head.T


def softmax(logits):
    p = np.exp(logits - logits.max())
    return p / p.sum()


def kl(p, q):
    p, q = softmax(p), softmax(q)
    return float(np.sum(p * (np.log(p) - np.log(q))))


def entropy(p):
    return float(-np.sum(p * np.log(p)))


def look(model, inside):
    tokens = np.array([t["id"] for t in inside["tokens"]][: inside["window"]["end"]])
    whole = model.forward(tokens)
    means = {
        "context": [c.mean(axis=0) for c in whole["context"]],
        "hidden": [h.mean(axis=0) for h in whole["hidden"]],
    }
    targets = [t["position"] for t in inside["attribution"]["targets"]]

    for position, token in enumerate(inside["tokens"]):
        if token["prediction"]:
            p = softmax(whole["logits"][position - 1])
            check("token.probability", token["prediction"]["probability"], p[token["id"]], position)
            check("token.entropy", token["prediction"]["entropy"], entropy(p), position)

    for layer, found in enumerate(inside["layers"]):
        stream, before = whole["streams"][layer + 1], whole["streams"][layer]
        rms = np.sqrt(np.mean(stream**2, axis=1))
        check("layer.rms", found["rms"]["mean"], rms.mean(), layer)
        check("layer.rms std", found["rms"]["std"], rms.std(), layer)
        cosine = np.sum(stream * before, axis=1) / (np.linalg.norm(stream, axis=1) * np.linalg.norm(before, axis=1))
        check("layer.cosine", found["cosine"]["mean"], cosine.mean(), layer)
        check("layer.ffn_rms", found["ffn_rms"]["mean"], np.sqrt(np.mean(whole["down"][layer] ** 2, axis=1)).mean(), layer)

    for found in inside["heads"]:
        weights, where = whole["weights"][found["layer"]][found["head"]], (found["layer"], found["head"])
        rows = [weights[t, : t + 1] for t in range(1, len(tokens))]
        check("head.entropy", found["entropy"]["mean"], np.mean([entropy(r) for r in rows]), where)
        check("head.sink", found["sink"]["mean"], np.mean([r[0] for r in rows]), where)
        check("head.previous", found["previous"]["mean"], np.mean([r[-2] for r in rows]), where)

    lens = inside["lens"]
    for row, stream in enumerate(whole["streams"]):
        seen = model.logits(stream)
        for at, position in enumerate(lens["positions"]):
            final = whole["logits"][position]
            best = np.argsort(-final, kind="stable")[: lens["among"]]
            check("lens.kl", lens["kl"][row][at], kl(final[best], seen[position][best]), (row, at))
            check("lens.entropy", lens["entropy"][row][at], entropy(softmax(seen[position][best])), (row, at))

    last = whole["streams"][-1]
    parts = {"embedding": 0.0}
    for found in inside["attribution"]["targets"]:
        t = found["position"]
        scale = 1 / np.sqrt(np.mean(last[t] ** 2) + model.eps)
        aim = (model.head[found["token"]] - model.head[found["other"]]) * model.tensors["output_norm.weight"] * scale
        check("attribution.difference", found["difference"], whole["logits"][t][found["token"]] - whole["logits"][t][found["other"]], t)
        parts["embedding"] += aim @ whole["embed"][t]
        for layer in range(model.layers):
            weights = model.of(layer, "attn_output").reshape(-1, model.heads, model.dim)
            for head in range(model.heads):
                name = f"layer.{layer:02}/head.{head}"
                parts[name] = parts.get(name, 0.0) + aim @ (weights[:, head] @ whole["context"][layer][t, head])
            name = f"layer.{layer:02}/ffn"
            parts[name] = parts.get(name, 0.0) + aim @ whole["down"][layer][t]
    check("attribution.embedding", inside["attribution"]["embedding"], parts["embedding"] / len(targets), "")
    for found in inside["attribution"]["components"]:
        check("attribution", found["direct"], parts[found["component"]] / len(targets), found["component"])

    def effect(**changes):
        other = model.forward(tokens, means=means, **changes)
        return np.mean([kl(whole["logits"][t], other["logits"][t]) for t in targets])

    relevance, beauty = inside["relevance"], inside["beauty"]
    for found in relevance["components"]:
        check("relevance", found["kl"], effect(off={found["component"]}), found["component"])
    prompt = inside["prompt_tokens"]
    for position, found in enumerate(relevance["tokens"]):
        others = []
        for quarter in (1, 2, 3):
            start = position + -(-quarter * prompt // 4)
            another = [tokens[p % prompt] for p in range(start, start + prompt) if tokens[p % prompt] != tokens[position]]
            if another and another[0] not in others:
                others.append(another[0])
        check("relevance.token", found, np.mean([effect(embedded={position: model.embed[t]}) for t in others]), position)
    mean = whole["embed"].mean(axis=0)
    without = effect(embedded={p: mean for p in range(prompt)})
    check("relevance.prompt", relevance["prompt_kl"], without, "")
    check("relevance.value", relevance["value"], 1 - np.exp(-without), "")

    every = {c["component"] for c in relevance["components"]}
    kept = set(beauty["explanation"])
    check("beauty.sufficiency", beauty["sufficiency"], effect(off=every - kept), "")
    check("beauty.comprehensiveness", beauty["comprehensiveness"], effect(off=kept), "")
    holds = beauty["sufficiency"] <= beauty["faithful"] < beauty["comprehensiveness"]
    check("beauty.value", beauty["value"], 1 - len(kept) / len(every) if holds else 0.0, "")


def main():
    model = Model(sys.argv[1])
    with open(sys.argv[2]) as file:
        introspection = json.load(file)
    for inside in introspection["prompts"]:
        if inside["relevance"] is None:
            sys.exit(f"prompt {inside['id']} has no causes; ask for more")
        look(model, inside)
    total = sum(compared.values())
    if total < 500:
        sys.exit(f"only {total} numbers were compared")
    print(f"{total} numbers of {len(compared)} kinds agree with numpy within {TOLERANCE:g} relative")


main()
