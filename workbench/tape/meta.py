"""What a screen must know of a run before its first step: model, settings, and the words for codes."""

from __future__ import annotations

from typing import Any

import msgspec

from workbench._knobs import Knob, knobs
from workbench.config import EngineConfig
from workbench.events import Reason
from workbench.moment.reuse import has_order
from workbench.render.board import REASON_WORDS
from workbench.render.facts import method_in_words
from workbench.tape.rows import REASONS, TOUCHES
from workbench.trace import Trace

VERSION = 1

_AS_NUMBERS = {Reason.NO_FREE_BLOCKS: "blocks needed: {needed}, free: {available}"}


def meta(trace: Trace, first_step: int) -> dict[str, Any]:
    """The ``meta`` of a run's description; ``first_step`` is the step shown first."""
    config = msgspec.to_builtins(trace.config)
    return {
        "version": VERSION,
        "model": msgspec.to_builtins(trace.model),
        "block_size": trace.config.block_size,
        "policy": trace.config.policy,
        "first_step": first_step,
        "fidelity": trace.fidelity,
        "config": config,
        "speculation": method_in_words(trace.config),
        "reasons": list(REASONS),
        "reason_words": {reason.value: _template(reason) for reason in Reason},
        "events": list(TOUCHES),
        "has_order": has_order(trace),
        "knobs": [_knob(knob, config[knob.name]) for knob in knobs(EngineConfig)],
    }


def _template(reason: Reason) -> str:
    """Words with numbers to be filled in, none of which a noun follows that would have to agree with it."""
    return (
        REASON_WORDS[reason]
        .replace("needs {blocks}, {available} free", "blocks needed: {needed}, free: {available}")
        .replace("{blocks}", "{needed} blocks")
    )


def _knob(knob: Knob, value: Any) -> dict[str, Any]:
    return {
        "name": knob.name,
        "type": knob.type.__name__,
        "doc": knob.doc,
        "unit": knob.unit,
        "group": knob.group,
        "ge": knob.ge,
        "gt": knob.gt,
        "le": knob.le,
        "choices": list(knob.choices),
        "optional": knob.optional,
        "live": knob.live,
        "fork": knob.fork,
        "value": value,
    }
