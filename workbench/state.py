"""``RequestState``: where one request stands, as the scheduler tracks it.

There is no prefill or decode phase: ``num_computed_tokens`` chases the number of known tokens (vLLM v1's view).

    |<-- num_computed_tokens -->|<-- scheduled next -->|
    |<------ prompt ------>|<---- output ---->|<- drafts ->|
    |<------- num_tokens = len(token_ids) --->|
"""

from __future__ import annotations

from enum import StrEnum

from workbench.request import Request


class Status(StrEnum):
    """Where a request is in its life."""

    PENDING = "pending"  # its arrival lies ahead
    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"  # waiting again, with its output so far
    HELD = "held"  # done, but its static or dynamic batch is not
    FINISHED = "finished"


class RequestState:
    """The mutable side of one request; owned by the scheduler."""

    __slots__ = (
        "request", "id", "key", "status", "token_ids", "num_prompt_tokens", "num_computed_tokens", "draft_token_ids",
        "block_ids", "block_hashes", "num_hashed_blocks", "num_preemptions", "arrival_s", "arrival_step", "limit", "draft_ms",
    )  # fmt: skip

    def __init__(self, request: Request, order: int, max_model_len: int) -> None:
        self.request = request
        self.id = request.id
        self.key = (request.priority, order)  # who goes first under policy="priority"
        self.status = Status.PENDING
        self.token_ids = list(request.prompt_token_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.num_computed_tokens = 0
        self.draft_token_ids: tuple[int, ...] = ()
        self.draft_ms = 0.0  # this request's share of the time in which they were proposed
        self.block_ids: list[int] = []
        self.block_hashes: list[bytes] = []
        self.num_hashed_blocks = 0  # blocks of the table that are findable by content
        self.num_preemptions = 0
        self.arrival_s = 0.0
        self.arrival_step = 0
        self.limit = min(max_model_len, self.num_prompt_tokens + request.sampling.max_tokens)

    def copy(self) -> RequestState:
        """An independent state with the same content."""
        twin = object.__new__(RequestState)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        for name in ("token_ids", "block_ids", "block_hashes"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    @property
    def num_tokens(self) -> int:
        """Known tokens: prompt and output, without drafts."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> list[int]:
        """The tokens generated so far (a copy)."""
        return self.token_ids[self.num_prompt_tokens :]

    def __repr__(self) -> str:
        progress = f"{self.num_computed_tokens}/{self.num_tokens} tokens"
        return f"RequestState({self.id!r}, {self.status.value}, {progress}, blocks {self.block_ids})"
