"""``Names``: what columns refer to by number: strings, sets of owners, requests, and the texts of token ids.

The lists only grow, also when steps are taken back, so a number means the same to every receiver, whenever it joined.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

TextOf = Callable[[int], str]
Entry = TypeVar("Entry", bound=Hashable)

UNSEEN = -1
"""Stands in an owner set for one that took the block before the trace begins."""


class Mark(NamedTuple):
    """How much of each list there was."""

    strings: int = 0
    owner_sets: int = 0
    requests: int = 0
    vocab: int = 0


class RequestInfo(NamedTuple):
    """A request as it was first sent; ``uncached`` says that it never asks the prefix cache, since it wants ``prompt_logprobs``."""

    id: str
    prompt: tuple[int, ...]
    max_tokens: int
    priority: int
    uncached: bool = False


class Numbered(Generic[Entry]):
    """A list without duplicates, and the place of each entry in it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._places: dict[Entry, int] = {}

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._places

    def __len__(self) -> int:
        return len(self.entries)

    def place(self, entry: Entry) -> int:
        """Where the entry stands; a new one is put at the end."""
        found = self._places.get(entry)
        if found is None:
            found = self._places[entry] = len(self.entries)
            self.entries.append(entry)
        return found


class Names:
    """The lists; ``text_of`` gives the text of a token id."""

    def __init__(self, text_of: TextOf) -> None:
        self._strings: Numbered[str] = Numbered()
        self._owner_sets: Numbered[tuple[int, ...]] = Numbered()
        self._requests: Numbered[RequestInfo] = Numbered()
        self._vocab: Numbered[int] = Numbered()
        self._texts: list[str] = []  # of the vocabulary's entries
        self._text_of = text_of

    def string(self, text: str) -> int:
        """The number of a string; the empty one has none."""
        return self._strings.place(text) if text else -1

    def owner_set(self, owners: tuple[int, ...]) -> int:
        """The number of a set of owners, given as requests' numbers; the empty one has none."""
        return self._owner_sets.place(owners) if owners else -1

    def request(self, info: RequestInfo) -> int:
        """The number of a request, new or known."""
        if info not in self._requests:
            self.tokens(info.prompt)
        return self._requests.place(info)

    def tokens(self, ids: Iterable[int]) -> None:
        """Have the texts of these token ids sent, if they were not."""
        for token in ids:
            if token not in self._vocab and token >= 0:
                self._texts.append(self._text_of(token))
                self._vocab.place(token)

    @property
    def mark(self) -> Mark:
        """How much there is now."""
        return Mark(len(self._strings), len(self._owner_sets), len(self._requests), len(self._vocab))

    def between(self, first: Mark, end: Mark) -> dict[str, Any]:
        """What came between two marks, as fields of a part; ``base`` is where its strings, owner sets and requests belong."""
        requests = self._requests.entries[first.requests : end.requests]
        tokens = slice(first.vocab, end.vocab)
        return {
            "base": [first.strings, first.owner_sets, first.requests],
            "strings": self._strings.entries[first.strings : end.strings],
            "owner_sets": self._owner_sets.entries[first.owner_sets : end.owner_sets],
            "requests": [info._asdict() for info in requests],
            "vocab": [self._vocab.entries[tokens], self._texts[tokens]],
        }
