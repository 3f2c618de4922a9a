"""``NativeDraft``: an EAGLE head in one call of compiled code; ``NativeVocabulary``: the token that follows, without scoring all."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.models.config import ModelConfig
from workbench.models.native import LANES, NativeKernels, NativeLinear, Step
from workbench.request import SamplingParams
from workbench.sampler import GREEDY, Chosen, Draw, is_greedy


class _Matrix(ctypes.Structure):
    _fields_ = (("packed", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("inputs", ctypes.c_int64), ("outputs", ctypes.c_int64))

    @classmethod
    def of(cls, linear: NativeLinear, first: int = 0, end: int | None = None) -> _Matrix:
        """``linear``, or its outputs from ``first``, where a panel begins, to ``end``."""
        packed, scale, _ = linear.addresses
        assert packed is not None
        bytes_of_weight, scale_from = (2, None) if scale is None else (1, scale + 4 * first)
        return cls(packed + first * linear.inputs * bytes_of_weight, scale_from, linear.inputs, (end or linear.outputs) - first)


class _Vocabulary(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("project", "screen")),
        *((name, ctypes.c_void_p) for name in ("embedding", "ids")),
        ("size", ctypes.c_int64),
    )


class _DraftHead(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("fc", "query", "keys_values", "output", "gate_up", "down")),
        ("vocabulary", _Vocabulary),
        *((name, ctypes.c_void_p) for name in ("tap_norms", "embed_norm", "feature_norm", "ffn_norm", "norm")),
        ("inv_freq", ctypes.c_void_p),
        ("taps", ctypes.c_int64),
        ("rope_scaling", ctypes.c_float),
    )


class NativeVocabulary:
    """The likeliest of ``ids`` after hidden states, or one that is drawn, by the rows of ``embedding`` for them.

    ``screen`` scores all ids roughly, from ``project(hidden)`` where there is a projection; only the best 128 are scored with the
    embedding's rows.  Low-rank screening is the idea of SVD-softmax (Shim et al., NIPS 2017).
    """

    def __init__(self, kernels: NativeKernels, project: NativeLinear | None, screen: NativeLinear, embedding: Tensor, ids: Tensor) -> None:
        self._keep = (project, screen, embedding, ids)  # whose memory the struct points to
        self._library = kernels.library
        self.struct = _Vocabulary(
            project=_Matrix() if project is None else _Matrix.of(project),
            screen=_Matrix.of(screen),
            embedding=embedding.data_ptr(),
            ids=ids.data_ptr(),
            size=embedding.shape[1],
        )

    @staticmethod
    def takes(embedding: Tensor) -> bool:
        """Whether the compiled code can read these rows."""
        return embedding.dtype == torch.bfloat16 and embedding.is_contiguous() and embedding.shape[1] % (2 * LANES) == 0

    def choose(self, hidden: Tensor, draws: Sequence[Draw] = ()) -> Chosen:
        """An id for each row of ``hidden``, ``[rows, size]``: the likeliest, or the one that its draw falls on."""
        rows = len(hidden)
        ids, room = np.zeros(rows, np.int64), torch.empty(self._library.wb_choose_room(ctypes.byref(self.struct), rows))
        chances, manners, points = np.zeros(rows, np.float32), _manners(draws), np.array([draw.point for draw in draws])
        drawn = (_address(manners), _address(points))
        addresses = (hidden.data_ptr(), *drawn, chances.ctypes.data, ids.ctypes.data, rows, room.data_ptr())
        self._library.wb_choose(ctypes.byref(self.struct), *addresses, torch.get_num_threads())
        return Chosen(ids.tolist(), chances.tolist())


def _manners(draws: Sequence[Draw]) -> np.ndarray:
    """A ``Manner`` for each draw."""
    return np.array([_manner(draw.sampling) for draw in draws], np.float64)


def _manner(sampling: SamplingParams) -> tuple[float, ...]:
    return 0.0 if is_greedy(sampling) else sampling.temperature, sampling.min_p, sampling.top_k, sampling.top_p


def _address(array: np.ndarray) -> int | None:
    return array.ctypes.data if array.size else None


class Asked(NamedTuple):
    """What one request wants: entries from position ``start`` on, with the tokens that follow them, and then ``num_drafts`` drafts.

    The entries' features stand in the taps from row ``tap_row`` on; ``block_ids`` have slots for entries and drafts.  ``draws``: how each
    draft is drawn; none for the likeliest.
    """

    start: int
    tokens: Sequence[int]
    tap_row: int
    block_ids: Sequence[int]
    num_drafts: int
    draws: Sequence[Draw] = ()


class NativeDraft:
    """Drafts with matrices that :meth:`NativeKernels.make_int8_linear` made; no bias.

    ``norms`` and ``linears`` go by the names of ``_DraftHead``, but for ``qkv``, which holds ``query`` and ``keys_values``.
    """

    def __init__(
        self,
        kernels: NativeKernels,
        config: ModelConfig,
        linears: dict[str, NativeLinear],
        norms: dict[str, Tensor],
        vocabulary: NativeVocabulary,
    ) -> None:
        self._kernels, self._config = kernels, config
        inv_freq = torch.tensor(config.rope_inv_freq, dtype=torch.float32)
        self._keep = (linears, norms, vocabulary, inv_freq)  # whose memory the struct points to
        qkv, queries = linears["qkv"], config.num_heads * config.head_dim
        self._head = _DraftHead(
            query=_Matrix.of(qkv, 0, queries),
            keys_values=_Matrix.of(qkv, queries),
            vocabulary=vocabulary.struct,
            inv_freq=inv_freq.data_ptr(),
            taps=len(norms["tap_norms"]),
            rope_scaling=config.rope_scaling,
            **{name: _Matrix.of(linear) for name, linear in linears.items() if name != "qkv"},
            **{name: norm.data_ptr() for name, norm in norms.items()},
        )

    def run(self, asked: Sequence[Asked], taps: Sequence[Tensor], kv: Tensor, least: float = 0.0) -> list[list[int]]:
        """Read all entries into ``kv``, and draft: so many drafts for each request as it wants.

        A request's drafts end before the one with which the chance that all of them are right falls below ``least``.
        """
        config, library = self._config, self._kernels.library
        lengths, widths = [len(one.tokens) for one in asked], [len(one.block_ids) for one in asked]
        begins = accumulate(widths[:-1], initial=0)
        numbers = [(one.start, count, one.tap_row, table, one.num_drafts) for one, count, table in zip(asked, lengths, begins, strict=True)]
        order = sorted((place for place, one in enumerate(asked) if one.num_drafts), key=lambda place: -asked[place].num_drafts)
        entries, requests, rows = sum(lengths), len(asked), len(order)
        arrays = (
            np.array(numbers, np.int64),
            np.array(order, np.int64),
            np.fromiter(chain.from_iterable(one.tokens for one in asked), np.int64, entries),
            np.fromiter(chain.from_iterable(one.block_ids for one in asked), np.int64, sum(widths)),
        )
        drafts = np.empty((asked[order[0]].num_drafts if order else 0, rows), np.int64)
        room = torch.empty(library.wb_draft_room(ctypes.byref(self._head), entries, requests, rows, config.head_dim))
        shape = Step(config.num_heads, config.num_kv_heads, config.head_dim, kv.shape[2], 0, kv.stride(0))
        shape.eps, shape.threads = config.rms_norm_eps, torch.get_num_threads()
        numbers_at, order_at, tokens_at, tables_at = (array.ctypes.data for array in arrays)
        tap_addresses = (ctypes.c_void_p * len(taps))(*(tap.data_ptr() for tap in taps))
        manners, points = _drawn([asked[place] for place in order], len(drafts))
        read = (numbers_at, requests, order_at, rows, tokens_at, tables_at, tap_addresses, _address(manners), _address(points))
        kept = np.empty(rows, np.int64)
        written = (kept.ctypes.data, drafts.ctypes.data, kv.data_ptr(), room.data_ptr())
        library.wb_draft(ctypes.byref(self._head), *read, least, *written, shape)
        found: list[list[int]] = [[] for _ in asked]
        for row, place in enumerate(order):
            found[place] = drafts[: kept[row], row].tolist()
        return found


def _drawn(drafting: Sequence[Asked], most: int) -> tuple[np.ndarray, np.ndarray]:
    """A manner for each request, ``[rows]``, and a point for each of its drafts, ``[most, rows]``; nothing where all are greedy."""
    if not any(one.draws for one in drafting):
        return np.empty(0), np.empty(0)
    points = np.zeros((most, len(drafting)))
    for row, one in enumerate(drafting):
        points[: len(one.draws), row] = [draw.point for draw in one.draws]
    return _manners([one.draws[0] if one.draws else GREEDY for one in drafting]), points
