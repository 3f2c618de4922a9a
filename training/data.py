"""Written sequences on disk and as one flat table, and their division into batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.generate import Sequence
from training.loops import kept


@dataclass(frozen=True)
class Texts:
    """Sequence ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``; its answer starts ``answer_starts[i]`` tokens in."""

    tokens: np.ndarray
    offsets: np.ndarray
    answer_starts: np.ndarray
    kinds: np.ndarray
    temperatures: np.ndarray

    @classmethod
    def of(cls, sequences: list[Sequence]) -> Texts:
        return cls(
            tokens=np.concatenate([np.empty(0, np.uint16), *(sequence.tokens for sequence in sequences)]),
            offsets=np.cumsum([0, *(len(sequence.tokens) for sequence in sequences)]).astype(np.int64),
            answer_starts=np.array([sequence.answer_start for sequence in sequences], dtype=np.int64),
            kinds=np.array([sequence.kind for sequence in sequences], dtype=np.int64),
            temperatures=np.array([sequence.temperature for sequence in sequences], dtype=np.float32),
        )

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def num_answer_tokens(self) -> int:
        return int((self.lengths - self.answer_starts).sum())

    def save(self, path: Path) -> None:
        fresh = path.with_name(path.name + ".part")
        with fresh.open("wb") as file:
            np.savez(file, **vars(self))
        os.replace(fresh, path)

    @classmethod
    def load(cls, *paths: Path) -> Texts:
        parts = []
        for path in paths:
            with np.load(path) as stored:
                parts.append({name: stored[name] for name in stored.files})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "offsets"}
        lengths = np.concatenate([np.diff(part["offsets"]) for part in parts])
        return cls(offsets=np.concatenate([[0], np.cumsum(lengths)]), **joined)

    def sequence(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def answer_counts(self, vocab_size: int) -> np.ndarray:
        """How often each id stands in an answer."""
        at = np.arange(len(self.tokens)) - np.repeat(self.offsets[:-1], self.lengths)
        return np.bincount(self.tokens[at >= np.repeat(self.answer_starts, self.lengths)], minlength=vocab_size)

    def prompts(self) -> list[bytes]:
        return [self.sequence(index)[: self.answer_starts[index]].tobytes() for index in range(len(self))]

    def chosen(self, indices: np.ndarray) -> Texts:
        """Only these sequences."""
        return Texts.of(
            [Sequence(int(self.kinds[i]), float(self.temperatures[i]), self.sequence(i), int(self.answer_starts[i])) for i in indices]
        )


def without_loops(texts: Texts, device: torch.device, rows: int = 8192) -> Texts:
    """The same texts, each cut where its answer begins to go round; ``rows`` are looked at together."""
    ends = np.concatenate([_ends(texts, np.arange(first, min(first + rows, len(texts))), device) for first in range(0, len(texts), rows)])
    return Texts.of(
        [
            Sequence(int(kind), float(temperature), texts.tokens[first:end], int(start))
            for kind, temperature, first, end, start in zip(
                texts.kinds, texts.temperatures, texts.offsets, texts.offsets[:-1] + ends, texts.answer_starts, strict=False
            )
        ]
    )


def _ends(texts: Texts, indices: np.ndarray, device: torch.device) -> np.ndarray:
    lengths, starts = texts.lengths[indices], texts.answer_starts[indices]
    width = int((lengths - starts).max())
    answers = torch.arange(width).neg_().sub_(1).repeat(len(indices), 1)  # no two of these are equal: nothing repeats outside an answer
    for row, index in enumerate(indices):
        said = texts.sequence(index)[starts[row] :]
        answers[row, : len(said)] = torch.from_numpy(said.astype(np.int64))
    return np.minimum(starts + kept(answers.to(device)).cpu().numpy(), lengths)


class Batch(NamedTuple):
    """``tokens [rows, length]``, padded on the right.

    ``origins``: flat positions from which drafts start: those whose next token is an answer's, except the last.  ``remaining``: how many
    answer tokens may be drafted from there, so pass ``j`` (from 0) of an origin counts if ``remaining > j``.  Both are padded, with 0
    remaining, to a multiple of the chunk.  The origins of a sequence follow each other, so the label of pass ``j`` is found
    ``j + 1`` origins further on; ``indices`` names the sequences.
    """

    tokens: Tensor
    origins: Tensor
    remaining: Tensor
    indices: np.ndarray
    num_tokens: int


class Batches:
    """Batches of a text that lies on the device, by a budget of padded tokens."""

    def __init__(self, texts: Texts, device: torch.device, budget: int, chunk: int, round_to: int = 32) -> None:
        self.texts, self.device, self.budget, self.chunk, self.round_to = texts, device, budget, chunk, round_to
        self.flat = torch.from_numpy(texts.tokens.astype(np.int32)).to(device)

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of one epoch, as indices: similar lengths together, in a random order that seed and epoch determine."""
        generator = np.random.default_rng([seed, epoch])
        order, lengths, batches = generator.permutation(len(self.texts)), self.texts.lengths, []
        for start in range(0, len(order), 8192):
            batches += self._packed(sorted(order[start : start + 8192].tolist(), key=lengths.__getitem__))
        return [batches[index] for index in generator.permutation(len(batches))]

    def in_order(self) -> Iterator[Batch]:
        """Every sequence once, sorted by length."""
        for indices in self._packed(np.argsort(self.texts.lengths, kind="stable").tolist()):
            yield self.batch(indices)

    def _padded(self, length: int) -> int:
        return -(-length // self.round_to) * self.round_to

    def _packed(self, indices: list[int]) -> list[np.ndarray]:
        batches, current = [], []
        for index in indices:
            if current and (len(current) + 1) * self._padded(self.texts.lengths[index]) > self.budget:
                batches.append(np.array(current))
                current = []
            current.append(index)
        return [*batches, np.array(current)] if current else batches

    def batch(self, indices: np.ndarray) -> Batch:
        texts = self.texts
        lengths = texts.lengths[indices]
        width = self._padded(int(lengths.max()))
        first = texts.answer_starts[indices] - 1
        counts = np.maximum(lengths - 1 - first, 0)  # origins first .. length - 2: the last one is only a label
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(first, counts) + within
        origins = np.repeat(np.arange(len(indices)) * width, counts) + at
        remaining = np.repeat(lengths - 2, counts) - at
        padding = (0, -len(origins) % self.chunk)
        numbers = np.stack([np.pad(origins, padding), np.pad(remaining, padding)])
        rows = np.stack([texts.offsets[indices], lengths])

        def on_device(values: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(values)
            return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

        starts, ends = on_device(rows)[:, :, None]
        column = torch.arange(width, device=self.device)
        tokens = self.flat[(starts + torch.minimum(column, ends - 1))].long()
        origins_there, remaining_there = on_device(numbers)
        return Batch(tokens, origins_there, remaining_there, indices, int(lengths.sum()))
