"""The target writes its own training text: user turns it invents, and its answers to them.

All slots decode one token per step, each at a position of its own.  What a slot has to say next is either known (prompt, and the
few tokens between turns) or sampled; a slot that has finished is given a new opening.  The step reads and writes fixed tensors
only, so that on a GPU it is captured once as a CUDA graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.decode_attention import best_attention
from training.loops import closed
from training.target import Target


class Chat(NamedTuple):
    """Token ids of the chat template: what precedes a user's words, what follows them, what ends a turn."""

    prefix: list[int]
    after_user: list[int]
    end: int
    forbidden: list[int]


class Task(NamedTuple):
    """One sequence to write: the words that the user begins with, how many must follow, how the answer is sampled."""

    kind: int
    opening: list[int]
    min_user: int
    temperature: float
    raw: bool


class Sequence(NamedTuple):
    """One finished sequence: ``tokens[answer_start:]`` is the answer, with its end token unless it was cut short."""

    kind: int
    temperature: float
    tokens: np.ndarray
    answer_start: int


@dataclass(frozen=True)
class Limits:
    """``user_end``: the position where a user's turn is ended at the latest; ``answer``: most new tokens; ``min_p``: sampled
    are tokens at least this probable beside the best; ``user_temperature`` is that of invented user turns."""

    user_end: int
    answer: int
    min_p: float
    user_temperature: float


class Writer:
    """Slots, their state on the device, and the step that advances all of them."""

    def __init__(self, target: Target, chat: Chat, limits: Limits, slots: int, seed: int) -> None:
        self.target, self.chat, self.limits, self.slots = target, chat, limits, slots
        device, shape = target.device, target.shape
        torch.manual_seed(seed)
        self.length = -(-(limits.user_end + len(chat.after_user) + limits.answer + 2) // 64) * 64
        self.cache = target.new_cache(slots, self.length)
        self.attend = best_attention(device, target.dtype, shape.num_heads, shape.num_kv_heads, shape.head_dim)
        self.tail = torch.tensor(chat.after_user, device=device)
        self.tail_at = torch.arange(1, 1 + len(chat.after_user), device=device)
        self.forbidden = torch.zeros(shape.vocab_size, dtype=torch.bool, device=device)
        self.forbidden[chat.forbidden] = True

        def state(value: int, *size: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.full((slots, *size), value, dtype=dtype, device=device)

        self.tokens = state(chat.end, self.length + len(chat.after_user) + 1)
        self.position, self.known, self.answer_start, self.user_min_end = state(0), state(1), state(0), state(0)
        self.in_user, self.active = state(0, dtype=torch.bool), state(0, dtype=torch.bool)
        self.temperature = state(0, dtype=torch.float32)
        self.tasks: list[Task | None] = [None] * slots
        self.prefix_cached = np.zeros(slots, dtype=bool)
        self._run: Callable[[], None] | None = None

    def start(self, slots: list[int], tasks: list[Task]) -> None:
        """Give new tasks to slots that are free.  A chat prefix that the slot's cache holds already is not read again."""
        heads = [(task.opening if task.raw else [*self.chat.prefix, *task.opening])[: self.limits.user_end] for task in tasks]
        table = np.full((len(tasks), self.tokens.shape[1]), self.chat.end, dtype=np.int64)
        for row, head in enumerate(heads):
            table[row, : len(head)] = head
        known = np.array([len(head) for head in heads])
        raw = np.array([task.raw for task in tasks])
        first = np.where(self.prefix_cached[slots] & ~raw, np.minimum(len(self.chat.prefix), known - 1), 0)
        at = torch.tensor(slots, device=self.target.device)

        def put(state: Tensor, values: np.ndarray) -> None:
            state[at] = torch.from_numpy(np.ascontiguousarray(values)).to(state.device, state.dtype)

        put(self.tokens, table)
        put(self.position, first)
        put(self.known, known)
        put(self.answer_start, np.where(raw, known, 0))
        put(self.user_min_end, known + [task.min_user for task in tasks])
        put(self.in_user, ~raw)
        put(self.temperature, np.array([task.temperature for task in tasks], dtype=np.float32))
        put(self.active, np.ones(len(tasks), dtype=bool))
        self.prefix_cached[slots] = ~raw
        for slot, task in zip(slots, tasks, strict=True):
            self.tasks[slot] = task

    def step(self) -> None:
        """Advance every slot by one token: the very code that the graph holds, so nothing here asks the device for a number."""
        current = self.tokens.gather(1, self.position[:, None])[:, 0]
        logits = self.target.decode(current, self.position, self.cache, self.attend)
        following = self.position + 1
        sampled = self._sample(logits, following)
        free = self.active & (following >= self.known)
        kept = self.tokens.gather(1, following[:, None])[:, 0]
        self.tokens.scatter_(1, following[:, None], torch.where(free, sampled, kept)[:, None])

        turn = free & self.in_user & (sampled == self.chat.end)  # the user has finished: what stands between the turns is known
        tail_at = following[:, None] + self.tail_at - 1
        kept_tail = self.tokens.gather(1, tail_at)
        self.tokens.scatter_(1, tail_at, torch.where(turn[:, None], self.tail, kept_tail))
        after = following + len(self.chat.after_user)
        self.known.copy_(torch.where(turn, after, self.known))
        self.answer_start.copy_(torch.where(turn, after, self.answer_start))

        answering = free & ~self.in_user
        ended = (sampled == self.chat.end) | (following - self.answer_start + 1 >= self.limits.answer)
        self.in_user.logical_and_(~turn)
        self.active.logical_and_(~(answering & ended))
        self.position.copy_(torch.where(self.active, following, self.position))

    def _sample(self, logits: Tensor, following: Tensor) -> Tensor:
        """The best token after noise in proportion to the temperature (none for greedy): a draw from the tempered softmax."""
        temperature = self.temperature.masked_fill(self.in_user, self.limits.user_temperature)[:, None]
        logits.masked_fill_(self.in_user[:, None] & self.forbidden, float("-inf"))
        too_early = self.in_user & (following < self.user_min_end)
        logits[:, self.chat.end].masked_fill_(too_early, float("-inf"))
        floor = logits.amax(dim=1, keepdim=True) + temperature * float(np.log(self.limits.min_p))
        noise = torch.empty_like(logits).exponential_().clamp_(min=1e-20).log_().mul_(-temperature)
        sampled = noise.add_(logits).masked_fill_(logits < floor, float("-inf")).argmax(dim=1)
        too_long = self.in_user & (following >= self.limits.user_end)
        return sampled.masked_fill(too_long, self.chat.end)

    def run(self, steps: int) -> None:
        """Advance ``steps`` tokens, by a CUDA graph where that can be captured."""
        if self._run is None:
            self._run = self._capture()
        for _ in range(steps):
            self._run()

    def _capture(self) -> Callable[[], None]:
        if self.target.device.type != "cuda":
            return self.step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # real steps: warming up must not undo anything
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
        except Exception as error:
            print(f"no CUDA graph ({type(error).__name__}: {error}): steps run eagerly", flush=True)
            torch.cuda.synchronize()
            return self.step
        print("decode step captured as a CUDA graph", flush=True)
        return graph.replay

    def stop_loops(self) -> None:
        """End the answers that have begun to go round: their slots have better things to say."""
        answering = self.active & ~self.in_user & (self.position >= self.answer_start)
        stopped = answering & closed(self.tokens, self.answer_start, self.position + 1)
        self.active.logical_and_(~stopped)
        self.position.sub_(stopped.long())  # as in a slot that ended by itself, whose last token is one on

    def collect(self, *, unfinished: bool = False) -> tuple[list[int], list[Sequence]]:
        """The slots that are free, and the sequences that those which just finished wrote; ``unfinished``: of all slots, cut short."""
        active = self.active.cpu().numpy()
        done = [slot for slot in range(self.slots) if self.tasks[slot] is not None and (unfinished or not active[slot])]
        sequences = []
        if done:
            at = torch.tensor(done, device=self.target.device)
            ends = torch.where(self.active[at], self.position[at] + 1, self.position[at] + 2).cpu().numpy()
            starts = self.answer_start[at].cpu().numpy()
            tokens = self.tokens[at].to(torch.int32).cpu().numpy().astype(np.uint16)
            for row, slot in enumerate(done):
                task = self.tasks[slot]
                assert task is not None
                self.tasks[slot] = None
                if ends[row] > starts[row] > 0:
                    sequences.append(Sequence(task.kind, task.temperature, tokens[row, : ends[row]].copy(), int(starts[row])))
        free = [slot for slot in range(self.slots) if self.tasks[slot] is None]
        if unfinished:
            self.active.zero_()
        return free, sequences


def write_all(
    writer: Writer,
    next_tasks: Callable[[int], list[Task]],
    deliver: Callable[[list[Sequence]], None],
    *,
    seconds: float,
    steps_between: int = 16,
) -> None:
    """Keep the slots busy until ``next_tasks(count)`` has no more and all are done, or until ``seconds`` have passed.

    Answers that go round in circles are ended.
    """
    end = time.monotonic() + seconds
    free = list(range(writer.slots))
    while True:
        tasks = next_tasks(len(free))
        if tasks:
            writer.start(free[: len(tasks)], tasks)
        if all(task is None for task in writer.tasks):
            return
        writer.run(steps_between)
        writer.stop_loops()
        out_of_time = time.monotonic() > end
        free, sequences = writer.collect(unfinished=out_of_time)
        deliver(sequences)
        if out_of_time:
            return
