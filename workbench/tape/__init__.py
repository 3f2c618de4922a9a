"""A trace packed as columns: what the screen knows, and all that it knows.

A :class:`Packer` follows a growing trace and hands out parts, each a JSON header and one binary buffer; :func:`meta` describes the run
before its first step, and :func:`snapshot` makes one frame of a whole trace.  The browser only looks up, adds and draws.
"""

from __future__ import annotations

from workbench.tape.frame import snapshot
from workbench.tape.meta import meta
from workbench.tape.packer import Packer, Part

__all__ = ["Packer", "Part", "meta", "snapshot"]
