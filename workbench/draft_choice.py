"""``DraftChoice``: how many drafts a step asked for, and why: the decision of ``num_speculative_tokens="auto"``."""

from __future__ import annotations

from typing import Literal

import msgspec


class DraftChoice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many drafts to propose for each request after a step, and why.

    ``measuring``: nothing is known yet, a plain step is measured first.  ``best``: these drafts make the most tokens per millisecond.
    ``off``: no drafts do.  ``probe``: another number may be better, or was not tried for long; one step finds out.  Tokens are per
    request and step, milliseconds those of the whole batch's step, its drafting included; 0 where nothing is known.
    ``rival`` is what was compared with: no drafts for ``best``, the best number of drafts for ``off``, the best of all for ``probe``.
    """

    num_drafts: int
    reason: Literal["measuring", "best", "off", "probe"]
    num_requests: int
    expected_tokens: float = 1.0
    step_ms: float = 0.0
    plain_ms: float = 0.0
    rival_drafts: int = 0
    rival_tokens: float = 1.0
    rival_ms: float = 0.0

    @property
    def speed_up(self) -> float:
        """Tokens per millisecond, as a multiple of a plain step's; 1 before the first measurement."""
        return self.expected_tokens * self.plain_ms / self.step_ms if self.step_ms else 1.0

    def sentence(self) -> str:
        """The choice and its numbers in plain English."""
        count, rival = _drafts(self.num_drafts), _drafts(self.rival_drafts)
        outcome = f"{self.expected_tokens:.1f} tokens in {_ms(self.step_ms)}" if self.num_drafts else f"1 token in {_ms(self.step_ms)}"
        match self.reason:
            case "measuring":
                return "no drafts yet: a step without them is measured first"
            case "best":
                return f"{count}: {outcome} instead of 1 in {_ms(self.plain_ms)} ({self.speed_up:.1f} times as fast{self._each()})"
            case "off":
                would = f"{rival} would make {self.rival_tokens:.1f} tokens in {_ms(self.rival_ms)}"
                return f"no drafts: {would}, a step without them makes 1 in {_ms(self.plain_ms)}{self._each()}"
            case "probe":
                known = f"{rival} make{'' if self.rival_drafts != 1 else 's'} {self.rival_tokens:.1f} in {_ms(self.rival_ms)}"
                return f"{count} for one step, to find out: {outcome} expected; {known}{self._each()}"

    def _each(self) -> str:
        return f", for each of {self.num_requests} requests" if self.num_requests > 1 else ""


def _drafts(count: int) -> str:
    return "no drafts" if not count else "1 draft" if count == 1 else f"{count} drafts"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms" if value >= 0.1 else f"{value:.2g} ms"
