"""How the interpreter is set up in a process that serves."""

from __future__ import annotations

import gc
import sys

_YOUNG = 20_000
"""Objects made and not freed yet, before the collector looks for cycles among the young ones. Requests make few."""
_SWITCH_S = 1e-5
"""How long a thread waits for the interpreter before it demands it. With the usual 5 ms one that wants it is woken
whenever the event loop's thread lets go of it for a moment (any system call, any scan), never gets it, and goes on
waiting: each time that costs the event loop 10 µs, several times in every request, for as long as it takes."""


def settle() -> None:
    """Once everything is loaded: what is there stays to the end, and need not be looked through for garbage again and
    again. With the usual settings that takes a tenth of the time, and every request waits for it now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
    sys.setswitchinterval(_SWITCH_S)
