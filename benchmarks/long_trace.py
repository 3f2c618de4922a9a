"""Long scripted runs for the view's benchmarks, kept between calls in the system's folder for temporary files.

``few`` is one batch for the whole run: 16 requests of thousands of tokens each.  ``many`` is a server's afternoon: 16 at a time and some
waiting, each gone after a hundred steps or so.  Both run short of KV blocks, so there are preemptions, and prompts begin alike, so there
are prefix hits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from workbench import Engine, Trace, load_trace
from workbench.runners.scripted import ScriptedRunner

SHAPES = ("few", "many")
BATCH = 16


def long_trace(shape: str, steps: int) -> Trace:
    """The trace of a run of exactly ``steps`` steps."""
    folder = Path(tempfile.gettempdir()) / "inference-workbench-benchmarks"
    path = folder / f"{shape}-{steps}.wbt"
    if not path.is_file():
        folder.mkdir(exist_ok=True)
        made = {"few": _few, "many": _many}[shape](steps)
        made.save(path)
    return load_trace(path)


def _runner(max_model_len: int) -> ScriptedRunner:
    return ScriptedRunner(lambda name, position: (position * 7 + len(name)) % 97, max_model_len=max_model_len)


def _few(steps: int) -> Trace:
    """All arrive in the first third; with a third of the blocks that they would fill in the end, they take turns."""
    engine = Engine(_runner(2 * steps), max_num_seqs=BATCH, num_blocks=BATCH * steps // 48 + 64, max_num_batched_tokens=2048)
    for step in range(steps):
        if step % (steps // 50) == 0 and len(engine.trace.requests) < BATCH:
            number = len(engine.trace.requests)
            engine.add_request([number % 3] * 512 + list(range(number, number + 400)), max_tokens=steps)
        engine.step()
    return engine.trace


def _many(steps: int) -> Trace:
    """Four more than run are there at any time."""
    engine = Engine(_runner(512), max_num_seqs=BATCH, num_blocks=BATCH * 7, max_num_batched_tokens=256)
    for _ in range(steps):
        while len(engine.unfinished) < BATCH + 4:
            number = len(engine.trace.requests) % 90
            engine.add_request([number % 3] * 32 + list(range(number, number + 48)), max_tokens=100)
        engine.step()
    return engine.trace
