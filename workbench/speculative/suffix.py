"""Drafts by frequency: what followed the same words most often, in this request and in the answers given before.

No model is asked.  Where n-gram look-up copies one earlier place, this counts all of them, drafts as many tokens as the match is long,
and stops where the texts disagree too much to go on.  It pays where answers repeat their prompt, themselves or one another (agents,
code, templates).  Idea: SuffixDecoding (Oliaro et al. 2024, arXiv 2411.04975); rules and defaults as in vLLM 0.32.0's method
``suffix`` (``vllm/config/speculative.py``), which calls Arctic Inference's ``SuffixDecodingCache.speculate``:

* every suffix of the text that occurred before, up to ``max_depth`` tokens, is a match; it is followed along the likeliest tokens,
* at most ``max_factor`` × its length far, as long as the estimated probability stays at or above ``min_probability``,
* the guess with the highest score wins: the sum of its probabilities; the longer match where they are equal, and this request's own
  text before the answers of others.

The end of the text is itself an occurrence of the match, one that nothing follows yet; as with Arctic, it is counted.  Two things
differ.  Tokens of equal count: the smaller id is taken (byte-pair vocabularies give it to the more common one); there it depends on
the order of events.  Answers of others: they are used once they are *finished*; there also while they are written, so a request's
drafts depend on who runs beside it.

Going back in time.  Drafts are a function of two things.  The first is the text that is asked about; the tree of it is a cache, kept
only while it begins with what the tree was built from.  The second is the memory of finished answers, which is explicit: each is
entered with the step it finished in (:meth:`SuffixProposer.finished`), :meth:`SuffixProposer.rewind` drops those of the steps undone
(and brings back those that newer ones had pushed out), and a fork begins with :meth:`SuffixProposer.copy`.  A step done again finds
the same memory, so it proposes the same drafts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from workbench.errors import IntegrityError
from workbench.speculative.proposer import Wanted
from workbench.speculative.suffix_tree import Guess, Match, SuffixTree


class Answer(NamedTuple):
    """The output of a request that finished in ``step``."""

    step: int
    token_ids: tuple[int, ...]


class SuffixProposer:
    """A :class:`~workbench.speculative.proposer.Proposer` that counts what followed; see the module for its rule and its memory.

    ``max_depth``: the most tokens that match and drafts have together; ``max_answers``: finished answers that are remembered, the
    latest ones (0: none); ``max_factor``: drafts per token of the match; ``min_probability``: of every draft, 0 … 1.
    """

    def __init__(self, *, max_depth: int = 24, max_answers: int = 10_000, max_factor: float = 1.0, min_probability: float = 0.1) -> None:
        self.max_depth, self.max_factor, self.min_probability = max_depth, max_factor, min_probability
        self.memory = AnswerMemory(max_depth, max_answers)
        self._trees: dict[str, SuffixTree] = {}  # of requests' own texts, the one used last at the end

    def propose(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """Drafts for each of ``wanted``; time grows with the tokens that are new since the last call, for a text seen before."""
        drafts = [self._guess(one).token_ids if one.limit > 0 else [] for one in wanted]
        self._forget_idle_trees(2 * len(wanted))
        return drafts

    def _guess(self, wanted: Wanted) -> Guess:
        own, answers = self._own_tree(wanted), self.memory.tree
        guess = self._best(own, own.own_matches(), wanted.limit)
        other = self._best(answers, answers.matches(own.text[-self.max_depth :]), wanted.limit)
        return other if other.score > guess.score else guess

    def _best(self, tree: SuffixTree, matches: Iterable[Match], limit: int) -> Guess:
        best = Guess([], 0.0)
        for match in matches:
            most = min(limit, int(match.length * self.max_factor))
            guess = tree.follow(match, most, self.min_probability)
            if guess.score >= best.score:
                best = guess
        return best

    def _own_tree(self, wanted: Wanted) -> SuffixTree:
        """The tree of the request's text: the kept one if the text only grew, else (after a rewind, say) a new one."""
        token_ids = list(wanted.token_ids)
        tree = self._trees.pop(wanted.request_id, None)
        if tree is None or tree.text != token_ids[: len(tree.text)]:
            tree = SuffixTree(self.max_depth)
        tree.extend(token_ids[len(tree.text) :])
        self._trees[wanted.request_id] = tree
        return tree

    def _forget_idle_trees(self, most: int) -> None:
        for request_id in list(self._trees)[: max(0, len(self._trees) - most)]:
            del self._trees[request_id]

    def finished(self, step: int, request_id: str, output_token_ids: Sequence[int]) -> None:
        """Remember an answer: ``request_id`` finished (or was aborted) in ``step``, after these output tokens.

        Raises :class:`IntegrityError` when a later step was remembered before.
        """
        self._trees.pop(request_id, None)
        self.memory.remember(step, output_token_ids)

    def rewind(self, step: int) -> None:
        """Go back to where ``step`` is the next one: forget the answers that finished in it or later."""
        self.memory.rewind(step)

    def copy(self) -> SuffixProposer:
        """A proposer with the same knobs and memory, for a fork; from here on each remembers for itself."""
        memory = self.memory
        twin = SuffixProposer(
            max_depth=self.max_depth,
            max_answers=memory.max_answers,
            max_factor=self.max_factor,
            min_probability=self.min_probability,
        )
        twin.memory = memory.copy()
        return twin


class AnswerMemory:
    """Finished answers in the order they finished; ``tree`` counts the latest ``max_answers`` of them.

    Older ones are kept, off the tree, because a rewind may need them again: a few bytes for each of their tokens.
    """

    def __init__(self, max_depth: int, max_answers: int) -> None:
        self.max_answers = max_answers
        self._answers: list[Answer] = []
        self._tree = SuffixTree(max_depth)
        self._counted = range(0)  # which answers the tree holds

    def remember(self, step: int, token_ids: Sequence[int]) -> None:
        """Add an answer; an empty one leaves nothing to remember."""
        if self._answers and step < self._answers[-1].step:
            raise IntegrityError(f"an answer of step {step} came after one of step {self._answers[-1].step}: rewind first")
        if token_ids:
            self._answers.append(Answer(step, tuple(token_ids)))

    def rewind(self, step: int) -> None:
        """Drop the answers of ``step`` and later ones."""
        kept = len(self._answers)
        while kept and self._answers[kept - 1].step >= step:
            kept -= 1
        self._count(range(self._counted.start, min(self._counted.stop, kept)))
        del self._answers[kept:]

    def copy(self) -> AnswerMemory:
        """The same answers; the tree is built when it is first asked for."""
        twin = AnswerMemory(self._tree.max_depth, self.max_answers)
        twin._answers = self._answers[:]
        return twin

    @property
    def tree(self) -> SuffixTree:
        """The tree of the latest answers."""
        self._count(range(max(0, len(self._answers) - self.max_answers), len(self._answers)))
        return self._tree

    def _count(self, wanted: range) -> None:
        """Make the tree hold these answers and no others."""
        for index in self._counted:
            if index not in wanted:
                self._tree.remove(self._answers[index].token_ids)
        for index in wanted:
            if index not in self._counted:
                self._tree.add(self._answers[index].token_ids)
        self._counted = wanted
