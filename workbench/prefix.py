"""Prefix cache: block hashes, and which blocks hold which content.

A block's hash covers its tokens and, through its parent's hash, everything before it; so two equal hashes mean two
equal prefixes.  Only full blocks have one.  The rule is vLLM's (``kv_cache_utils.py``): several physical blocks may
hold the same content, a look-up returns the oldest.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

ROOT = b"\x00" * 16
"""The parent of every first block: fixed, so that hashes are the same in every process."""


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Hash of one full block after ``parent``: 16 bytes.

    >>> block_hash(ROOT, [1, 2]) == block_hash(ROOT, [1, 2])
    True
    >>> block_hash(block_hash(ROOT, [1, 2]), [3, 4]) == block_hash(ROOT, [3, 4])
    False
    """
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


def extend_hashes(hashes: list[bytes], token_ids: Sequence[int], block_size: int) -> None:
    """Append to ``hashes`` those of all full blocks of ``token_ids`` that it lacks."""
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else ROOT
        hashes.append(block_hash(parent, token_ids[start : start + block_size]))


class PrefixIndex:
    """Maps a hash to the physical blocks with that content, oldest first."""

    def __init__(self) -> None:
        self._blocks_of: dict[bytes, tuple[int, ...]] = {}
        self._hash_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._hash_of)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._hash_of

    def add(self, block_id: int, digest: bytes) -> None:
        """Register a block that became full."""
        self._blocks_of[digest] = (*self._blocks_of.get(digest, ()), block_id)
        self._hash_of[block_id] = digest

    def find(self, digest: bytes) -> int | None:
        """The oldest block with this content."""
        blocks = self._blocks_of.get(digest)
        return blocks[0] if blocks else None

    def hash_of(self, block_id: int) -> bytes | None:
        """The content of a block, if it is registered."""
        return self._hash_of.get(block_id)

    def drop(self, block_id: int) -> bytes | None:
        """Forget a block's content because it is reused; returns the hash it had."""
        digest = self._hash_of.pop(block_id, None)
        if digest is not None:
            left = tuple(other for other in self._blocks_of[digest] if other != block_id)
            if left:
                self._blocks_of[digest] = left
            else:
                del self._blocks_of[digest]
        return digest

    def blocks(self) -> dict[int, bytes]:
        """Every registered block and its hash (a copy)."""
        return dict(self._hash_of)

    def copy(self) -> PrefixIndex:
        """An independent index with the same content."""
        twin = PrefixIndex()
        twin._blocks_of = self._blocks_of.copy()
        twin._hash_of = self._hash_of.copy()
        return twin
