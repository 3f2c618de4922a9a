"""The state at a step: values, and how to look them up."""

from __future__ import annotations

from typing import Literal

import msgspec

from workbench.errors import RequestError, TraceError
from workbench.events import Decision, KvUsage, StepRecord
from workbench.state import Status

BlockStatus = Literal["free", "cached", "in use", "unknown"]


class BlockMoment(msgspec.Struct, frozen=True):
    """One KV block.

    ``cached``: nobody holds it, but its content, which ``hash`` names, can still be hit.  ``owners``: the requests whose tables hold it,
    ``"?"`` for one that took it before the trace begins.  ``touched``: what happened to it in this step, in order
    (``hit``, ``allocated``, ``shared``, ``cached``, ``evicted``, ``freed``); a block that the commit frees is still ``in use``.
    """

    block_id: int
    status: BlockStatus
    owners: tuple[str, ...] = ()
    hash: str = ""
    touched: tuple[str, ...] = ()

    @property
    def refs(self) -> int:
        """How many requests hold this block."""
        return len(self.owners)


class RequestMoment(msgspec.Struct, frozen=True, kw_only=True):
    """One request; ``None`` where the trace does not hold it.

    ``status``: its queue after planning, or ``finished`` if it was in none.  ``num_tokens``: known tokens, prompt and output.
    ``num_computed_tokens``: those whose keys and values are in its blocks.  ``text``: its output as far as the trace holds it, from its
    beginning if ``text_complete``.  ``finish_reason``: how it ended, if that was in this step.  ``block_ids``: its table, in order.
    """

    request_id: str
    status: Status
    num_prompt_tokens: int | None
    num_tokens: int | None
    num_computed_tokens: int | None
    num_output_tokens: int | None
    text: str
    text_complete: bool
    decision: Decision | None
    finish_reason: str | None
    block_ids: tuple[int, ...] | None


class MomentData(msgspec.Struct, frozen=True, kw_only=True):
    """The state at one step; see :mod:`workbench.moment` for the two instants that it shows.

    ``requests``: those in a queue, in the order running, held, waiting, pending, then those that ended without being in one.
    ``blocks``: every block of the pool, by id.  ``wasted_slots``: slots of tables that hold no token, ``None`` if a table is unknown.
    ``unknown``: what could not be worked out, in sentences.
    """

    record: StepRecord
    block_size: int
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    held: tuple[str, ...]
    pending: tuple[str, ...]
    requests: tuple[RequestMoment, ...]
    blocks: tuple[BlockMoment, ...]
    wasted_slots: int | None
    unknown: tuple[str, ...]

    @property
    def step(self) -> int:
        """The step's number."""
        return self.record.step

    @property
    def kv(self) -> KvUsage:
        """Blocks in use, cached and free; exact also where single blocks are unknown."""
        return self.record.kv

    @property
    def fragmentation(self) -> float | None:
        """Wasted slots as a share of all slots in use; ``None`` if a table is unknown."""
        if self.wasted_slots is None:
            return None
        return self.wasted_slots / (self.kv.in_use * self.block_size) if self.kv.in_use else 0.0

    def request(self, request_id: str) -> RequestMoment:
        """One request; raises :class:`RequestError` for one that is in no queue at this step."""
        for one in self.requests:
            if one.request_id == request_id:
                return one
        names = ", ".join(one.request_id for one in self.requests) or "none"
        raise RequestError(f"request {request_id!r} is in no queue at step {self.step}; there are: {names}")

    def block(self, block_id: int) -> BlockMoment:
        """One block; raises :class:`TraceError` for an id that the pool does not have at this step."""
        for one in self.blocks:
            if one.block_id == block_id:
                return one
        raise TraceError(f"the pool has no block {block_id!r} at step {self.step}: it has {self.kv.total}, with ids from 1")
