"""``NativeDraft``: an EAGLE head's drafts, one after the other, in one call of compiled code."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.models.config import ModelConfig
from workbench.models.native import NativeKernels, NativeLinear, Step, rotations


class _Matrix(ctypes.Structure):
    _fields_ = (("packed", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("inputs", ctypes.c_int64), ("outputs", ctypes.c_int64))

    @classmethod
    def of(cls, linear: NativeLinear) -> _Matrix:
        packed, scale, _ = linear.addresses
        return cls(packed, scale, linear.inputs, linear.outputs)


class _DraftHead(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("qkv", "output", "gate_up", "down", "head")),
        *((name, ctypes.c_void_p) for name in ("embed_norm", "feature_norm", "ffn_norm", "norm", "embedding", "draft_ids")),
    )


class Link(NamedTuple):
    """A chain of drafts to be continued.

    ``token`` is read at ``position`` on top of a hidden state, then ``passes - 1`` of the drafts that follow, each where the one before it
    ends; the request's ``block_ids`` have slots for them.
    """

    token: int
    position: int
    passes: int
    block_ids: Sequence[int]


class NativeDraft:
    """Continues chains with matrices that :meth:`NativeKernels.make_int8_linear` made; no bias.

    ``norms`` and ``linears`` go by the names of ``_DraftHead``; ``embedding`` is bf16, ``draft_ids`` int64.
    """

    def __init__(
        self,
        kernels: NativeKernels,
        config: ModelConfig,
        linears: dict[str, NativeLinear],
        norms: dict[str, Tensor],
        embedding: Tensor,
        draft_ids: Tensor,
    ) -> None:
        self._library, self._config = kernels.library, config
        self._keep = (linears, norms, embedding, draft_ids)  # whose memory the struct points to
        self._head = _DraftHead(
            **{name: _Matrix.of(linear) for name, linear in linears.items()},
            **{name: norm.data_ptr() for name, norm in norms.items()},
            embedding=embedding.data_ptr(),
            draft_ids=draft_ids.data_ptr(),
        )

    def run(self, links: Sequence[Link], hidden: Tensor, kv: Tensor) -> list[list[int]]:
        """The drafts that follow, ``passes`` for each link; ``hidden``, ``[links, size]``, is written over.

        Links with more passes come first.
        """
        if not links:
            return []
        passes = np.array([link.passes for link in links])
        most, rows = int(passes[0]), len(links)
        positions = np.array([link.position for link in links]) + np.arange(most)[:, None]
        step, keep = self._step(links, positions, kv)
        counts = (passes > np.arange(most)[:, None]).sum(1)
        drafts = np.zeros((most + 1, rows), np.int64)
        drafts[0] = [link.token for link in links]
        room = torch.empty(self._library.wb_draft_room(ctypes.byref(self._head), rows))
        pointers = (counts.ctypes.data, drafts.ctypes.data, hidden.data_ptr(), kv.data_ptr(), room.data_ptr())
        self._library.wb_draft(ctypes.byref(self._head), most, *pointers, step)
        del keep
        return [drafts[1 : 1 + link.passes, row].tolist() for row, link in enumerate(links)]

    def _step(self, links: Sequence[Link], positions: np.ndarray, kv: Tensor) -> tuple[Step, tuple[object, ...]]:  # type: ignore[type-arg]
        """Where every pass reads and writes; of passes in which a link takes no part the numbers are never looked at."""
        config, block_size = self._config, kv.shape[2]
        widths = [len(link.block_ids) for link in links]
        begins = np.cumsum([0, *widths[:-1]])
        tables = np.array([block for link in links for block in link.block_ids], np.int64)
        blocks = np.minimum(positions // block_size, np.array(widths) - 1)
        slots = tables[begins + blocks] * block_size + positions % block_size
        cosines, sines = rotations(positions, config)
        arrays = (slots, positions, begins, tables)
        sizes = (config.num_heads, config.num_kv_heads, config.head_dim, block_size, len(links), kv.stride(0))
        addresses = (*(array.ctypes.data for array in arrays), cosines.data_ptr(), sines.data_ptr())
        return Step(*sizes, *addresses, config.rms_norm_eps, torch.get_num_threads()), (*arrays, cosines, sines)
