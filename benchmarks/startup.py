"""How long a new process takes to its first token: import, load, prefill.

    python -m benchmarks.startup [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from time import perf_counter

CODE = "from workbench import Engine; print(next(Engine('smollm2').stream('What is gravity?', max_tokens=2)).text)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    times = []
    for _ in range(parser.parse_args().rounds):
        began = perf_counter()
        subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True)
        times.append(perf_counter() - began)
    print(f"interpreter start to first token, and exit: median {statistics.median(times):.2f} s ({min(times):.2f} … {max(times):.2f})")


if __name__ == "__main__":
    main()
