"""``Texts``: the running text of every request of an engine, one stream each."""

from __future__ import annotations

from workbench.detokenize import TextStream
from workbench.request import Request
from workbench.tokenizer import Tokenizer


class Texts:
    """The scheduler's :class:`~workbench.scheduler.TextSink` over a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._streams: dict[str, TextStream] = {}

    def open(self, request: Request) -> None:
        """Start a stream; the prompt's tail decides how its first token reads."""
        self._streams[request.id] = TextStream(self.tokenizer, request.sampling, request.prompt_token_ids[-8:])

    def push(self, request_id: str, token_id: int) -> bool:
        """Take one output token; ``True`` when it completed a stop string."""
        return self._streams[request_id].push(token_id)

    def take(self, request_id: str, *, finished: bool) -> str:
        """Text that became final; the stream of a finished request is flushed and kept for :meth:`stop_reason`."""
        stream = self._streams[request_id]
        return stream.take() + stream.finish() if finished else stream.take()

    def stop_reason(self, request_id: str) -> str | None:
        """The stop string that ended the output."""
        return self._streams[request_id].stop_reason

    def close(self, request_id: str) -> None:
        """Forget a request."""
        self._streams.pop(request_id, None)
