"""Text of an output while it grows: nothing is shown that a later token could change.

Three things hold text back.  Bytes of an unfinished character wait for the rest of it; a possible beginning of a stop
string waits until it is one or is not; and when a stop string is complete, it and all after it are never shown.
Text that was shown is never taken back.

    tokens ──decode──► window (a few last tokens, re-decoded at each step)
                       │ settled characters
                       ▼
                       text  ──stop strings──►  released  ──take()──► shown
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

from workbench.request import SamplingParams

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSETTLED = 3  # bytes of a UTF-8 character that may be waiting for its last one
_WINDOW = 8  # tokens after which the window is cut: decoding fewer gains nothing, decoding more costs
_CONTEXT = 4  # tokens that stay as context: some decoders treat the first of a text differently


class Decodes(Protocol):
    """All that is needed of a tokenizer."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``, with U+FFFD for bytes that are no UTF-8."""
        ...


class TextStream:
    """The text of one output, token by token; ``copy.copy`` gives an independent stream at the same point.

    ``prompt_tail_ids`` are the last tokens before the output (a handful is enough): the output's text is what it adds to
    theirs, so a word's leading space is kept.  All of a request's stop rules that concern text are here: ``stop``,
    ``include_stop_str_in_output``, ``min_tokens`` (a stop string counts only if it ends after that many tokens) and
    ``skip_special_tokens``.
    """

    def __init__(self, tokenizer: Decodes, sampling: SamplingParams, prompt_tail_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip_special = sampling.skip_special_tokens
        self._stops = sampling.stop
        self._include_stop = sampling.include_stop_str_in_output
        self._min_tokens = sampling.min_tokens
        self._window = list(prompt_tail_ids[-_CONTEXT:])
        tail = self._decode(self._window)
        self._settled = _settled_length(tail)  # characters of the window's text that are in self._text or before it
        self._text = ""  # settled text of the output, up to the end of a stop string
        self._released = 0  # characters of it that may be shown
        self._shown = 0  # characters of it that take() has given out
        self._num_tokens = 0
        self._stops_count_from = 0  # stop strings must end behind this position (min_tokens)
        self._finished = False
        self.stop_reason: str | None = None

    @property
    def text(self) -> str:
        """Everything that :meth:`take` and :meth:`finish` have given out or would give out now."""
        return self._text[: self._released]

    def push(self, token_id: int) -> bool:
        """Add a token; ``True`` when it completed a stop string, with which the text has ended."""
        if self._finished:
            return self.stop_reason is not None
        self._window.append(token_id)
        self._num_tokens += 1
        self._settle(self._decode(self._window))
        return self._finished

    def take(self) -> str:
        """The text that became final since the last call."""
        fresh = self._text[self._shown : self._released]
        self._shown = self._released
        return fresh

    def finish(self) -> str:
        """End the text: like :meth:`take`, with all that was held back (an unfinished character as U+FFFD)."""
        if not self._finished:
            self._finished = True
            self._text += self._decode(self._window)[self._settled :]
            self._released = len(self._text)
        return self.take()

    def __copy__(self) -> TextStream:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._window = copy.copy(self._window)
        return twin

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)

    def _settle(self, decoded: str) -> None:
        """Move what no later token can change from the window's text to the output's."""
        settled = _settled_length(decoded)
        before = len(self._text)
        if settled > self._settled:
            self._text += decoded[self._settled : settled]
            self._settled = settled
        if self._stops:
            self._look_for_stop(before)
        else:
            self._released = len(self._text)
        if len(self._window) > _WINDOW and not self._finished:
            self._cut_window(decoded)

    def _look_for_stop(self, before: int) -> None:
        if self._num_tokens <= self._min_tokens:
            self._stops_count_from = len(self._text)
        found = _first_stop(self._text, self._stops, max(before, self._stops_count_from))
        if found is None:
            self._released = len(self._text) - (0 if self._include_stop else _length_of_beginning(self._text, self._stops))
            return
        start, self.stop_reason = found
        self._finished = True
        self._text = self._text[: start + (len(self.stop_reason) if self._include_stop else 0)]
        self._released = len(self._text)

    def _cut_window(self, decoded: str) -> None:
        """Forget the window's older tokens, if the newer ones decode to the same characters without them."""
        for length in range(_CONTEXT, _CONTEXT + _UNSETTLED + 1):  # one of these begins where a character does
            context = self._window[-length:]
            tail = self._decode(context)
            settled = self._settled - (len(decoded) - len(tail))
            if settled >= 0 and decoded.endswith(tail) and _settled_length(tail) == settled:
                self._window, self._settled = context, settled
                return


def _settled_length(decoded: str) -> int:
    """How many characters of ``decoded`` stay as they are whatever follows: all but U+FFFD at its end, at most three."""
    length = len(decoded)
    while length and len(decoded) - length < _UNSETTLED and decoded[length - 1] == _REPLACEMENT:
        length -= 1
    return length


def _first_stop(text: str, stops: Sequence[str], ends_after: int) -> tuple[int, str] | None:
    """The stop string that is complete first in ``text``, with its position; the longest of those that end together.

    Only ends behind ``ends_after`` count, so the answer does not depend on how tokens cut the text.
    """
    best: tuple[int, int, str] | None = None
    for stop in stops:
        start = text.find(stop, max(0, ends_after + 1 - len(stop)))
        if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
            best = (start + len(stop), start, stop)
    return None if best is None else best[1:]


def _length_of_beginning(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` with which some stop string begins."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
