"""A short name for a set of weights, so that what was trained for one model is not used with another."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_ROW_STEP = 97
_DIGITS = 16


def weights_fingerprint(final_norm: Tensor, embedding: Tensor) -> str:
    """Sixteen hexadecimal digits that tell a model's weights from any other's.

    A draft head reads the hidden states of the target that it was trained for; with another target of the same shape it would
    run and draft nonsense.  Its file therefore carries this fingerprint, and loading compares.

    ``final_norm``: ``[hidden]``; ``embedding``: ``[vocab, hidden]``; any dtype, device and layout.  Hashed are both shapes, the norm
    in float32 and every 97th row of the embedding in bfloat16 (little endian), as every dtype in which a model is loaded keeps these
    if its checkpoint is bfloat16.

    >>> weights_fingerprint(torch.ones(4), torch.zeros(100, 4))
    'fb28e8ef75de5422'
    """
    digest = hashlib.sha256()
    for tensor, kept in ((final_norm, final_norm.to(torch.float32)), (embedding, embedding[::_ROW_STEP].to(torch.bfloat16))):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(_little_endian_bytes(kept.detach().cpu().contiguous()))
    return digest.hexdigest()[:_DIGITS]


def _little_endian_bytes(tensor: Tensor) -> bytes:
    integers = tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).numpy()
    return integers.astype(integers.dtype.newbyteorder("<")).tobytes()
