"""The names of the methods of speculative decoding, and the proposers of those that look only at tokens.

A method is written as a name and, after a colon, what it needs: ``ngram``, ``ngram:2-4``, ``synthetic:0.7``.  What follows the name of a
method that runs a model (``eagle``, ``draft``) is read where models are loaded.
"""

from __future__ import annotations

import re

from workbench._knobs import unknown_name
from workbench.errors import ConfigError
from workbench.speculative.ngram import NgramProposer
from workbench.speculative.proposer import Proposer
from workbench.speculative.suffix import SuffixProposer

FORMS = {
    "ngram": "ngram, ngram:N or ngram:MIN-MAX (tokens looked up), such as ngram:2-4",
    "suffix": "suffix",
    "synthetic": "synthetic:RATE (acceptance rate, 0 to 1), such as synthetic:0.7",
    "eagle": "eagle or eagle:PATH",
    "draft": "draft:int8, draft:int4, draft:skip:N or draft:MODEL",
}
"""Every method, and how it is written."""

TOKEN_METHODS = ("ngram", "suffix")
"""The methods that need nothing but tokens."""


def method_name(method: str) -> str:
    """The name in a method string: ``ngram`` of ``ngram:2-4``.  Raises :class:`ConfigError` when there is no such method."""
    name = method.partition(":")[0]
    if name not in FORMS:
        raise ConfigError(unknown_name("speculative method", name, FORMS))
    return name


def make_proposer(method: str) -> Proposer:
    """The proposer that ``method`` describes, one of :data:`TOKEN_METHODS`.

    Raises :class:`ConfigError` for another method, and for one that is not written as it should be.

    >>> make_proposer("ngram:2-4").propose([])
    []
    """
    name = method_name(method)
    if name == "ngram":
        return _ngram(method)
    if name == "suffix":
        _nothing_after(name, method)
        return SuffixProposer()
    raise ConfigError(f"speculative method {method!r} needs a model; from tokens alone: {', '.join(TOKEN_METHODS)}")


def synthetic_rate(method: str) -> float:
    """The acceptance rate that a ``synthetic:RATE`` method asks for.  Raises :class:`ConfigError` when it asks for none in 0 … 1.

    >>> synthetic_rate("synthetic:0.7")
    0.7
    """
    name, _, rate = method.partition(":")
    if name != "synthetic" or not re.fullmatch(r"[0-9]+|[0-9]*\.[0-9]+", rate) or not 0 <= float(rate) <= 1:
        raise _badly_written(method, "synthetic")
    return float(rate)


def _ngram(method: str) -> NgramProposer:
    """As in vLLM, one length alone is the smallest and the largest."""
    if method == "ngram":
        return NgramProposer()
    written = re.fullmatch(r"ngram:([0-9]{1,9})(?:-([0-9]{1,9}))?", method)
    if written is None:
        raise _badly_written(method, "ngram")
    low, high = written[1], written[2] or written[1]
    return NgramProposer(min_n=int(low), max_n=int(high))


def _nothing_after(name: str, method: str) -> None:
    if method != name:
        raise _badly_written(method, name)


def _badly_written(method: str, name: str) -> ConfigError:
    return ConfigError(f"speculative method {method!r} is not one: write {FORMS[name]}")
