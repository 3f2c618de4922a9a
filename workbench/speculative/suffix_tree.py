"""``SuffixTree``: how often every short run of tokens occurs in some texts, and what followed it.

A node stands for a run of 1 … ``max_depth`` tokens, its count is how often the run occurs, and its children are the runs one token
longer.  A run that occurred once is not unfolded: its node is a *leaf* that points into its text, and what follows is read there.  So
natural text takes a few nodes per token, and adding a token takes as many steps as the text's end has suffixes that occurred before
(``max_depth`` at most), however long the texts are.

    text  7 8 9 7 8        root ── 7 ×2 ── 8 ×2 ── 9 ×1 ▸ text[2:]
                                └─ 8 ×2 ── 9 ×1 ▸ text[2:]
                                └─ 9 ×1 ▸ text[2:]

The answers are a function of the texts that a tree holds, whatever order they came in and whatever was removed between: a step that is
done again finds the same.  Idea: SuffixDecoding (Oliaro et al. 2024, arXiv 2411.04975); rules as in Arctic Inference's suffix cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Node:
    """A run of tokens: its last ``token``, how often it occurs, and the runs that are one token longer.

    ``children`` is ``None`` for a leaf, whose only occurrence begins at ``text[start]`` (or whose run is as long as runs get).
    ``best`` is the child with the highest count, of several that with the smallest token; ``None`` when not known.
    """

    __slots__ = ("best", "children", "count", "start", "text", "token")

    def __init__(self, token: int, text: list[int], start: int) -> None:
        self.token, self.text, self.start = token, text, start
        self.count = 1
        self.children: dict[int, Node] | None = None
        self.best: Node | None = None

    def adopt(self, child: Node) -> None:
        """Take in a child, or take note that its count went up."""
        assert self.children is not None
        if child.token not in self.children:
            self.children[child.token] = child
            if len(self.children) == 1:
                self.best = child
        best = self.best
        if best is not None and (child.count > best.count or (child.count == best.count and child.token < best.token)):
            self.best = child

    def favourite(self) -> Node | None:
        """``best``, found out where it is not known."""
        if self.best is None and self.children:
            self.best = max(self.children.values(), key=lambda child: (child.count, -child.token))
        return self.best


class Match(NamedTuple):
    """The last ``length`` tokens of a text, found in a tree; of a leaf, ``length`` may be more than its node stands for."""

    length: int
    node: Node


class Guess(NamedTuple):
    """Drafts, and the sum of their estimated probabilities: how many of them may be expected to be right."""

    token_ids: list[int]
    score: float


class SuffixTree:
    """Counts of all runs of up to ``max_depth`` tokens in the texts it holds.

    ``text`` is the latest text, which :meth:`extend` makes longer; :meth:`add` begins another one.
    """

    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self.text: list[int] = []
        self._root = Node(-1, self.text, 0)
        self._root.children = {}
        # The suffixes of `text` that occurred before, shortest first: those of 1, 2, … tokens, for if one did, so did the shorter ones.
        self._open: list[Node] = []

    def add(self, token_ids: Sequence[int]) -> None:
        """Take in a text of its own."""
        self.text, self._open = [], []
        self.extend(token_ids)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Make the latest text longer."""
        for token in token_ids:
            self._append(token)

    def _append(self, token: int) -> None:
        self.text.append(token)
        runs = (self._root, *self._open[: self.max_depth - 1])
        children = [self._count(run, token, length) for length, run in enumerate(runs, 1)]
        self._open = [child for child in children if child.count > 1]

    def _count(self, node: Node, token: int, length: int) -> Node:
        """One more occurrence of ``node``'s run with ``token`` after it, which ends the text and is ``length`` long."""
        assert node.children is not None
        child = node.children.get(token)
        if child is None:
            child = Node(token, self.text, len(self.text) - length)
        else:
            if child.children is None:
                self._unfold(child, length)
            child.count += 1
        node.adopt(child)
        return child

    def _unfold(self, leaf: Node, length: int) -> None:
        """A run occurs a second time: what followed the first one becomes a leaf of its own."""
        if length == self.max_depth:
            return
        leaf.children = {}
        following = leaf.start + length
        if following < len(leaf.text):
            leaf.adopt(Node(leaf.text[following], leaf.text, leaf.start))

    def remove(self, token_ids: Sequence[int]) -> None:
        """Take out a text that was added; not the latest, if that is to be made longer."""
        for start in range(len(token_ids)):
            self._uncount(token_ids[start : start + self.max_depth])

    def _uncount(self, run: Sequence[int]) -> None:
        node = self._root
        for token in run:
            if node.children is None:
                return  # the rest of a leaf is not unfolded
            child = node.children[token]
            child.count -= 1
            if node.best is child:
                node.best = None
            if not child.count:
                del node.children[token]
                return
            node = child

    def own_matches(self) -> Iterator[Match]:
        """The suffixes of the latest text that occur elsewhere too, shortest first."""
        return map(Match, range(1, len(self._open) + 1), self._open)

    def matches(self, token_ids: Sequence[int]) -> Iterator[Match]:
        """The suffixes of ``token_ids`` that occur in the tree's texts, shortest first."""
        for length in range(1, min(self.max_depth, len(token_ids)) + 1):
            node = self._find(token_ids[len(token_ids) - length :])
            if node is None:
                return
            yield Match(length, node)

    def _find(self, run: Sequence[int]) -> Node | None:
        node = self._root
        for depth, token in enumerate(run):
            if node.children is None:
                first = node.start + depth
                return node if node.text[first : first + len(run) - depth] == list(run[depth:]) else None
            child = node.children.get(token)
            if child is None:
                return None
            node = child
        return node

    def follow(self, match: Match, most: int, min_probability: float) -> Guess:
        """The likeliest continuation of ``match``, token by token: at most ``most``, none whose probability is less than asked.

        A token's estimated probability is its count over that of the run before it, times the probability of that run.  Match and
        continuation together are at most ``max_depth`` long.
        """
        length, node = match
        most = min(most, self.max_depth - length)
        tokens: list[int] = []
        score, probability = 0.0, 1.0
        while len(tokens) < most:
            if node.children is None:  # it occurred once, so the rest is as likely
                first = node.start + length + len(tokens)
                rest = node.text[first : first + most - len(tokens)]
                # Added one by one, as unfolded nodes do: what a sum rounds to must not depend on how far a tree is unfolded.
                return Guess(tokens + rest, sum([probability] * len(rest), score))
            child = node.favourite()
            if child is None:
                break
            probability *= child.count / node.count
            if probability < min_probability:
                break
            tokens.append(child.token)
            score += probability
            node = child
        return Guess(tokens, score)
