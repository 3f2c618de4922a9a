"""Small words and numbers that every face of a result shares: escaping, units, plurals.

Everything that reaches a page passes :func:`escape`, everything that reaches a terminal :func:`plain`.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f]")
NONE = "–"


def escape(text: object) -> str:
    """Text as it may stand in HTML or XML, in an element or in a quoted attribute.

    Characters that XML cannot hold become U+FFFD.

    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(_NOT_XML.sub("\ufffd", str(text)), quote=True)


def plain(text: object) -> str:
    r"""Text as it may stand in a terminal: control characters are shown, never obeyed.

    >>> plain("red: \x1b[31m")
    'red: ␛[31m'
    """
    return _BIDI.sub("\ufffd", _NOT_XML.sub(_picture, str(text).replace("\r\n", "\n").replace("\r", "␍")))


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters on one line; the cut is shown by an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def ms(value: float | None) -> str:
    """A duration in milliseconds with about three digits; in seconds from one second on."""
    return NONE if _absent(value) else f"{number(value / 1e3)} s" if abs(value) >= 1e3 else f"{number(value)} ms"  # type: ignore[operator,arg-type]


def seconds(value: float | None) -> str:
    """A duration given in seconds, in the unit that suits its size."""
    return NONE if value is None else ms(value * 1e3)


def number(value: float | None, digits: int = 3) -> str:
    """About ``digits`` significant digits, never in exponent form, thousands grouped.

    >>> number(0.04567), number(4.567), number(456.7), number(45678)
    ('0.046', '4.57', '457', '45,678')
    """
    if _absent(value):
        return NONE
    size = math.floor(math.log10(abs(value))) if value else 0
    places = max(digits - 1 - max(size, -1), 0)
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float | None) -> str:
    """A share of one as whole per cent; tenths below ten."""
    if _absent(share):
        return NONE
    return f"{number(share * 100, 2)} %" if share < 0.0995 else f"{share * 100:.0f} %"  # type: ignore[operator]


def plural(count: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}es" if noun.endswith("s") else f"{count:,} {noun}s"


def token_ids(ids: Sequence[int]) -> str:
    """Bare token ids in a line, the first dozen of them."""
    return f"[{plural(len(ids), 'token id')}] " + " ".join(map(str, ids[:12])) + (" …" if len(ids) > 12 else "")


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 32 else "\ufffd"
