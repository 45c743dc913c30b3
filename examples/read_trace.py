#!/usr/bin/env python3
"""How long the residual stream is after each layer, from a trace that kept it, and what probes took.

    pip install numpy safetensors
    pipe show --output answer/trace.safetensors > trace.safetensors       # a step with trace = "layers" or "full"
    pipe show --output answer/probes.safetensors > probes.safetensors     # a step with probes
    python3 examples/read_trace.py trace.safetensors probes.safetensors
"""

import json
import sys

import numpy as np
from safetensors import safe_open


def residual_stream(path):
    with safe_open(path, "np") as file:
        about = file.metadata()
        blocks = [b for b in json.loads(about["blocks"]) if b == "embed" or b.endswith("/ffn.residual")]
        prompts = [name.split("/")[0] for name in file.keys() if name.endswith("/tokens")]
        if f"{prompts[0]}/embed" not in file.keys():
            sys.exit(f"{path} is of level {about['level']}, which keeps no rows: run with trace = \"layers\"")
        print(f"{path}: norm of the residual stream ({about['spec']}); a column is a prompt, its mean over positions")
        for block in blocks:
            rows = [file.get_tensor(f"{prompt}/{block}").astype(np.float64) for prompt in sorted(prompts, key=int)]
            print(f"{block:24}", *(f"{np.linalg.norm(x, axis=1).mean():10.4f}" for x in rows))


def probes(path):
    with safe_open(path, "np") as file:
        names = set(file.keys())
        for source, axes in json.loads(file.metadata()["axes"]).items():
            probe = source.split("/")[0]
            positions = file.get_tensor(f"0/{probe}/positions")
            print(f"{source}, prompt 0, positions {', '.join(map(str, positions))}")
            if f"0/{source}" in names:
                values = file.get_tensor(f"0/{source}")
                print("    samples", " × ".join(f"{size} {axis}s" for size, axis in zip(values.shape, axes)))
            for name in sorted(name for name in names if name.startswith(f"0/{source}@")):
                feature = file.get_tensor(name)
                print(f"    {name.split('@')[1]:16} {feature.mean():.6g} on average, up to {feature.max():.6g}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    residual_stream(sys.argv[1])
    for path in sys.argv[2:]:
        probes(path)
