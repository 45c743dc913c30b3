#!/usr/bin/env python3
"""Writes vectors.txt: blocks of every stored type, dequantised by the Python package of ggml's authors.

    pip install gguf==0.19.0 && python3 make.py > vectors.txt

Per type: its name, one block in hex, its weights' bits in hex, and one number over BLOCKS random blocks.
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType, dequantize

BLOCKS = 4096
# Type: bytes, and where its f16 numbers stand.
TYPES = {
    "F16": (2, [0]),
    "BF16": (2, []),
    "Q8_0": (34, [0]),
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}


def mix(z):
    """SplitMix64's last steps."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def blocks(size, halves):
    """BLOCKS random blocks; byte i is the lowest of mix(i + 1). No f16 is infinite or NaN."""
    data = mix(np.arange(1, BLOCKS * size + 1, dtype=np.uint64)).astype(np.uint8).reshape(BLOCKS, size)
    for at in halves:
        high = data[:, at + 1]
        high[(high & 0x7C) == 0x7C] ^= 0x40
    return data


def main():
    np.seterr(all="ignore")
    for name, (size, halves) in TYPES.items():
        data = blocks(size, halves)
        bits = dequantize(data, GGMLQuantizationType[name]).astype(np.float32).view(np.uint32).reshape(-1)
        if name == "BF16":
            bits = np.where((bits & 0x7F800000) == 0x7F800000, np.uint32(0), bits)
        of_one = "".join(f"{b:08x}" for b in bits[: bits.size // BLOCKS])
        places = np.arange(bits.size, dtype=np.uint64) << np.uint64(32)
        total = mix(places | bits.astype(np.uint64)).sum(dtype=np.uint64)
        sys.stdout.write(f"{name} {data[0].tobytes().hex()} {of_one} {total:016x}\n")


main()
