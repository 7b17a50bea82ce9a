"""Ties a server's life to that of the process which started it."""

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "POINTSMAN_DEMO_PARENT"
"""Environment variable with the pid of the process to live with; unset, it is whoever is the parent now."""

_PR_SET_PDEATHSIG = 1


def live_with_parent(poll_s: float = 1.0) -> None:
    """End this process when its parent ends, however that ends: `kill -9` included.

    Call it first thing in main(), on the main thread: before slow imports, so that there is no time in
    which an orphan could be born. On Linux the kernel does it at once, with SIGKILL, since a parent that
    was killed leaves nobody to hand an orderly result to. Elsewhere, and should that fail, a thread looks
    every `poll_s` seconds.

    Linux takes the *thread* that forked for the parent: see `processes.Processes`.
    """
    parent = int(os.environ.get(PARENT, os.getppid()))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked to be told
        os._exit(1)
    threading.Thread(target=_watch, args=(parent, poll_s), name="lifeline", daemon=True).start()


def _watch(parent: int, poll_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(poll_s)
    os._exit(1)
