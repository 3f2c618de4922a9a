"""Streaming: the output of a run piece by piece, as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue

import msgspec

from workbench.events import StepRecord
from workbench.run import Run


class Chunk(msgspec.Struct, frozen=True):
    """A piece of streamed output: the text and tokens of one step."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None = None


def stream_chunks(launch: Callable[..., Run]) -> Iterator[Chunk]:
    """Start a run by ``launch(on_step=…)`` and yield a :class:`Chunk` per step that brought tokens; closing the iterator stops it."""
    records: SimpleQueue[StepRecord | None] = SimpleQueue()
    run = launch(on_step=records.put)
    own = {request.id for request in run.requests}
    run.when_done(lambda: records.put(None))
    try:
        while (record := records.get()) is not None:
            ended = {end.request_id: end.reason for end in record.finished}
            for sampled in record.sampled:
                if sampled.request_id in own:
                    yield Chunk(sampled.request_id, sampled.text, sampled.token_ids, ended.get(sampled.request_id))
        run.wait()
    finally:
        run.stop()
        run.wait()
