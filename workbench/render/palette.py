"""Colours and words for what a request does in a step.

Okabe–Ito colours, each with a second channel (height, notches, hatching), so that nothing hangs on colour alone.
Every fill is a plain mid-tone that is readable on white and on black; theme variables only refine it.
"""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """How one kind of cell is drawn and named; ``letter`` stands for it where there are only characters."""

    colour: str
    label: str
    letter: str


PREFILL, CACHE, DECODE, VERIFY = "prefill", "cache", "decode", "verify"
WAITING, IDLE, HELD, PREEMPTED = "waiting", "idle", "held", "preempted"
WORK = (DECODE, VERIFY, PREFILL)

DIM, LINE = "#767d87", "#9aa1ab"
LOOKS: dict[str, Look] = {
    PREFILL: Look("#0072b2", "prefill", "P"),
    CACHE: Look("#56b4e9", "from prefix cache", "C"),
    DECODE: Look("#009e73", "decode", "d"),
    VERIFY: Look("#cc79a7", "verify drafts", "v"),
    WAITING: Look(LINE, "waiting", "."),
    IDLE: Look(LINE, "running, not in this step", "-"),
    HELD: Look(LINE, "done, held by its batch", "h"),
    PREEMPTED: Look("#d55e00", "preempted", "!"),
}
PLAN, FORWARD, SAMPLE, DRAFT = "#e69f00", "#8b95a3", "#767d87", "#cc79a7"  # proposing has the colour of verifying
