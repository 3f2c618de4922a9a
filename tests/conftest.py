"""What every test may rely on."""

from __future__ import annotations

import signal

# A shell without job control starts its background processes deaf to SIGINT; the tests of interrupts need it heard.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
