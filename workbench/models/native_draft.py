"""``NativeDraft``: an EAGLE head in one call of compiled code; ``NativeVocabulary``: the likeliest token, without scoring all of them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.config import ModelConfig
from workbench.models.native import LANES, NativeKernels, NativeLinear, Step, rotations


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
        *((name, ctypes.c_int64) for name in ("size", "groups", "has_projection")),
    )


class _DraftHead(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("fc", "query", "keys_values", "output", "gate_up", "down")),
        ("vocabulary", _Vocabulary),
        *((name, ctypes.c_void_p) for name in ("tap_norms", "embed_norm", "feature_norm", "ffn_norm", "norm")),
        ("taps", ctypes.c_int64),
    )


class _Pass(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tokens", "scored")),
        ("num_scored", ctypes.c_int64),
        ("step", ctypes.POINTER(Step)),
    )


class NativeVocabulary:
    """The likeliest of ``ids`` after hidden states, by the rows of ``embedding`` for them.

    ``screen`` scores all ids roughly, from ``project(hidden)`` where there is a projection; only the best 128 are scored with the
    embedding's rows.  Low-rank screening is the idea of SVD-softmax (Shim et al., NIPS 2017).
    """

    GROUP = 32

    def __init__(self, kernels: NativeKernels, project: NativeLinear | None, screen: NativeLinear, embedding: Tensor, ids: Tensor) -> None:
        self._keep = (project, screen, embedding, ids)  # whose memory the struct points to
        self._library = kernels.library
        self.struct = _Vocabulary(
            project=_Matrix() if project is None else _Matrix.of(project),
            screen=_Matrix.of(screen),
            embedding=embedding.data_ptr(),
            ids=ids.data_ptr(),
            size=embedding.shape[1],
            groups=-(-len(ids) // self.GROUP),
            has_projection=project is not None,
        )

    @staticmethod
    def takes(embedding: Tensor) -> bool:
        """Whether the compiled code can read these rows."""
        return embedding.dtype == torch.bfloat16 and embedding.is_contiguous() and embedding.shape[1] % (2 * LANES) == 0

    def likeliest(self, hidden: Tensor) -> list[int]:
        """One id for each row of ``hidden``, ``[rows, size]``."""
        rows = len(hidden)
        if not rows:
            return []
        ids, room = np.zeros(rows, np.int64), torch.empty(self._library.wb_likeliest_room(ctypes.byref(self.struct), rows))
        addresses = (hidden.data_ptr(), ids.ctypes.data, rows, room.data_ptr())
        self._library.wb_likeliest(ctypes.byref(self.struct), *addresses, torch.get_num_threads())
        return ids.tolist()


class Link(NamedTuple):
    """A chain of drafts: ``passes`` more after the first, which is read at ``position``; ``block_ids`` have slots for them."""

    position: int
    passes: int
    block_ids: Sequence[int]


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
        self._keep = (linears, norms, vocabulary)  # whose memory the struct points to
        qkv, queries = linears["qkv"], config.num_heads * config.head_dim
        self._head = _DraftHead(
            query=_Matrix.of(qkv, 0, queries),
            keys_values=_Matrix.of(qkv, queries),
            vocabulary=vocabulary.struct,
            taps=len(norms["tap_norms"]),
            **{name: _Matrix.of(linear) for name, linear in linears.items() if name != "qkv"},
            **{name: norm.data_ptr() for name, norm in norms.items()},
        )

    def run(self, batch: FlatBatch, taps: Sequence[Tensor], tap_rows: Sequence[int], links: Sequence[Link], kv: Tensor) -> list[list[int]]:
        """Read ``batch`` (entry ``i`` has row ``tap_rows[i]`` of each tap), then draft: ``1 + passes`` tokens for each link.

        ``batch.logits_rows`` are the entries that the links go on from, in their order; links with more passes come first.
        """
        rows, size, entries = len(links), taps[0].shape[1], len(batch.input_ids)
        step = self._kernels.prepare(batch, self._config)
        step.struct.side = kv.stride(0)
        read = _Pass(batch.input_ids.ctypes.data, batch.logits_rows.ctypes.data, rows, ctypes.pointer(step.struct))
        passes = np.array([link.passes for link in links], np.int64)
        most = int(passes.max(initial=0))
        counts = (passes > np.arange(most)[:, None]).sum(1)
        at, addresses = np.array(tap_rows, np.int64), (ctypes.c_void_p * len(taps))(*(tap.data_ptr() for tap in taps))
        drafts, hidden = np.zeros((1 + most, rows), np.int64), torch.empty(rows, size)
        room = torch.empty(self._kernels.library.wb_draft_room(ctypes.byref(self._head), entries, rows))
        chained, keep = self._chain(links, most, kv)
        begin = (ctypes.byref(self._head), ctypes.byref(read), addresses, at.ctypes.data, most, counts.ctypes.data)
        self._kernels.library.wb_draft(*begin, drafts.ctypes.data, hidden.data_ptr(), kv.data_ptr(), room.data_ptr(), chained)
        del keep
        return [drafts[: 1 + link.passes, row].tolist() for row, link in enumerate(links)]

    def _chain(self, links: Sequence[Link], most: int, kv: Tensor) -> tuple[Step, tuple[object, ...]]:
        """Where every pass reads and writes; of passes in which a link takes no part the numbers are never looked at."""
        if not most:
            return Step(), ()
        config, block_size = self._config, kv.shape[2]
        positions = np.array([link.position for link in links]) + np.arange(most)[:, None]
        widths = [len(link.block_ids) for link in links]
        begins = np.cumsum([0, *widths[:-1]])
        tables = np.fromiter(chain.from_iterable(link.block_ids for link in links), np.int64)
        blocks = np.minimum(positions // block_size, np.array(widths) - 1)
        slots = tables[begins + blocks] * block_size + positions % block_size
        cosines, sines = rotations(positions, config)
        arrays = (slots, positions, begins, tables)
        sizes = (config.num_heads, config.num_kv_heads, config.head_dim, block_size, len(links), kv.stride(0))
        addresses = (*(array.ctypes.data for array in arrays), cosines.data_ptr(), sines.data_ptr())
        return Step(*sizes, *addresses, config.rms_norm_eps, torch.get_num_threads()), (*arrays, cosines, sines)
