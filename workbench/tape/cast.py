"""``Cast``: the number of every request in one course of events, by its id.

An id means one request only until the run is taken back: another may then be added under the same id, and gets a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.events import Command, StepRecord
from workbench.tape.names import Names, RequestInfo
from workbench.trace import Trace


class Cast(dict[str, int]):
    """Numbers by id, given when a request is first asked for, with the prompt that it had before ``position``."""

    def __init__(self, trace: Trace, names: Names) -> None:
        super().__init__()
        self._trace = trace
        self._names = names
        self._edits: dict[str, list[tuple[int, Command]]] = {}
        self._since: dict[str, int] = {}
        self._num_noticed = 0
        self.position = 0

    def notice(self, records: Iterable[StepRecord]) -> None:
        """Take note of edits in the records that follow those noticed before."""
        for record in records:
            for command in record.commands:
                if command.kind == "edit":
                    self._edits.setdefault(command.request_id, []).append((self._num_noticed, command))
            self._num_noticed += 1

    @property
    def num_noticed(self) -> int:
        """Records noticed so far."""
        return self._num_noticed

    def cut(self, position: int) -> None:
        """Forget the records from ``position`` on, and who first came with them."""
        self._num_noticed = min(self._num_noticed, position)
        for name, edits in self._edits.items():
            self._edits[name] = [edit for edit in edits if edit[0] < position]
        for name, since in list(self._since.items()):
            if since >= position:
                del self._since[name], self[name]

    def meet(self, names: Iterable[str]) -> None:
        """Give requests their numbers in the order in which they came in."""
        for name in names:
            if name not in self:
                self.__missing__(name)

    def __missing__(self, name: str) -> int:
        self._since[name] = self.position
        self[name] = number = self._names.request(self._info(name))
        return number

    def _info(self, name: str) -> RequestInfo:
        request = self._trace.requests.get(name)
        if request is None:  # of an earlier run, or of one that was just taken back
            return RequestInfo(name, (), 0, 0)
        for position, command in reversed(self._edits.get(name, ())):
            if position >= self.position:
                request = request.edited(**command.before)
        uncached = request.sampling.prompt_logprobs is not None
        return RequestInfo(name, request.prompt_token_ids, request.sampling.max_tokens, request.priority, uncached)
