"""A trace packed as columns: what the screen knows, and all that it knows.

A :class:`Packer` follows a growing trace and hands out parts, each a JSON header and one binary buffer; :func:`meta` describes the run
before its first step, :func:`snapshot` makes one frame of a whole trace, and :func:`why_payload` explains a step.  What it means is worked
out here; the browser looks up, adds and draws.
"""

from __future__ import annotations

from workbench.tape.frame import snapshot
from workbench.tape.meta import meta
from workbench.tape.packer import Packer, Part
from workbench.tape.why import why_payload, whys

__all__ = ["Packer", "Part", "meta", "snapshot", "why_payload", "whys"]
