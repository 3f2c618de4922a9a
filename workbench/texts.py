"""``Texts``: the running text of every request of an engine, one stream each."""

from __future__ import annotations

from collections.abc import Container
from copy import copy

from workbench.detokenize import TextStream
from workbench.request import Request
from workbench.state import RequestState
from workbench.tokenizer import Tokenizer


class Texts:
    """The scheduler's :class:`~workbench.scheduler.TextSink` over a tokenizer.

    A stream is opened with a request's first token, and anew when the request was edited; it depends on the request and its tokens only.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._streams: dict[str, tuple[Request, TextStream]] = {}

    def push(self, state: RequestState, token_id: int) -> bool:
        """Take the last of ``state``'s tokens; ``True`` when it completed a stop string."""
        request, stream = self._streams.get(state.id, (None, None))
        if stream is None or request is not state.request:
            stream = self._open(state)
        return stream.push(token_id)

    def _open(self, state: RequestState) -> TextStream:
        stream = TextStream(self.tokenizer, state.request.sampling, state.request.prompt_token_ids[-8:])
        for token_id in state.output_token_ids[:-1]:
            stream.push(token_id)
        stream.take()
        self._streams[state.id] = state.request, stream
        return stream

    def take(self, request_id: str, *, finished: bool) -> str:
        """Text that became final; the stream of a finished request is flushed and kept for :meth:`stop_reason`."""
        if request_id not in self._streams:  # its first token stopped it and is no text
            return ""
        stream = self._streams[request_id][1]
        return stream.take() + stream.finish() if finished else stream.take()

    def stop_reason(self, request_id: str) -> str | None:
        """The stop string that ended the output."""
        return self._streams[request_id][1].stop_reason

    def close(self, request_id: str) -> None:
        """Forget a request."""
        self._streams.pop(request_id, None)

    def keep_only(self, request_ids: Container[str]) -> None:
        """Forget all other requests."""
        self._streams = {name: held for name, held in self._streams.items() if name in request_ids}

    def copy(self) -> Texts:
        """Independent streams at the same points."""
        twin = Texts(self.tokenizer)
        twin._streams = {name: (request, copy(stream)) for name, (request, stream) in self._streams.items()}
        return twin
