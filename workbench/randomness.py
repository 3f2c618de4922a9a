"""Random numbers without state: a number is a function of what it is drawn for, not of what was drawn before.

That is what makes a request's tokens the same in any batch, on any number of threads, and after a rewind.
"""

from __future__ import annotations

from hashlib import blake2b

_PERSON = b"workbench/u53"  # keeps these numbers apart from any other use of the hash


def uniform(seed: int, index: int, stream: int = 0) -> float:
    """Return the number in [0, 1) that belongs to draw ``index`` of ``stream`` under ``seed``.

    Any integers are welcome, negative and huge ones too.  The result has 53 random bits (BLAKE2b, RFC 7693, of the three
    numbers) and is the same on every machine.  Streams are for draws that happen at the same index, as drafting and verifying do.

    >>> uniform(0, 0)
    0.8866834708621406
    """
    digest = blake2b(f"{seed},{index},{stream}".encode(), digest_size=8, person=_PERSON).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
