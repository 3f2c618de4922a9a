"""Which matrix product is fastest here, by number of rows: every projection of one layer of the embedded model.

    python -m benchmarks.linears [--threads 2] [--rows 1 2 4 8 16 32 64 256]

Milliseconds for all 30 layers and the LM head, weights in bf16, each way in turn, the best of five; the choice in
``models/paths.py`` rests on this.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import torch

from workbench.models import native
from workbench.models.linear import onednn_prepacked, plain, widened

SHAPES = [(960, 576), (576, 576), (3072, 576), (576, 1536)]  # outputs × inputs of qkv, o, gate + up, down
HEAD, LAYERS = (49152, 576), 30


def ways():
    """Every way that works on this machine: (name, make, type of the activations)."""
    library = native.library()
    found = [("torch bf16", plain, torch.bfloat16), ("torch f32", widened, torch.float32)]
    found.append(("oneDNN bf16", onednn_prepacked, torch.bfloat16))
    if library is not None:
        found.append(("compiled C", native.NativeKernels(library).make_linear, torch.float32))
    for name, make, dtype in found:
        try:
            make([torch.zeros(32, 32, dtype=torch.bfloat16)], None)(torch.zeros(2, 32, dtype=dtype))
        except (RuntimeError, NotImplementedError):
            continue
        yield name, make, dtype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 256])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    shapes = SHAPES * LAYERS + [HEAD]
    with torch.inference_mode():
        weights = [torch.randn(shape).to(torch.bfloat16) for shape in shapes]
        print(f"{'rows':>12}" + "".join(f"{rows:>9}" for rows in chosen.rows))
        for name, make, dtype in ways():
            linears = [make([weight], None) for weight in weights]
            times = []
            for rows in chosen.rows:
                inputs = [torch.randn(rows if shape != HEAD else min(rows, 32), shape[1]).to(dtype) for shape in shapes]
                best = float("inf")
                for _ in range(5):
                    began = perf_counter()
                    for linear, value in zip(linears, inputs, strict=True):
                        linear(value)
                    best = min(best, perf_counter() - began)
                    if best > 1:
                        break
                times.append(best * 1e3)
            print(f"{name:>12}" + "".join(f"{time:9.1f}" for time in times), flush=True)


if __name__ == "__main__":
    main()
