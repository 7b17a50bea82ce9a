"""Asks a model in another process, and never longer than asked to: one that hangs is ended, and started anew.

A call that gets no answer raises; whoever scans takes that for the top label. The model needs seconds to load: while
it does, calls wait for it as long as they may, and fail.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence

import msgspec

from policies.sensitivity.ner import Named
from router.ner.frames import Closed, Reply, receive, send

log = logging.getLogger("pointsman")

LOAD_S = 120.0
"""Longest that loading a model may take at a start."""


class Unavailable(Exception):
    """The model gave no answer. Says nothing of any text."""


class Recogniser:
    """One model, one process, one call at a time. Can be called in any thread. The process ends with this object."""

    def __init__(self, model: str, command: Sequence[str] = (sys.executable, "-m", "router.ner.worker")) -> None:
        self.model = model
        self._command = command
        self._turn = threading.Lock()
        self._peer: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._first = True
        self._killing: weakref.finalize[..., Recogniser] | None = None

    def load(self) -> None:
        """Raises Unavailable with the reason where the model cannot be loaded."""
        with self._turn:
            self._await_ready(time.monotonic() + LOAD_S)

    def __call__(self, texts: Sequence[str], timeout_s: float) -> list[list[Named]]:
        """The names in each text, all of them in that time; the first time the model is loaded before it begins. Raises
        Unavailable."""
        if self._first:
            self.load()
        deadline = time.monotonic() + timeout_s
        if not self._turn.acquire(timeout=timeout_s):
            raise Unavailable("other calls take all of its time")
        try:
            peer = self._await_ready(deadline)
            try:
                peer.settimeout(max(deadline - time.monotonic(), 0.001))
                send(peer, texts)
                found = msgspec.msgpack.decode(self._receive(peer, deadline), type=Reply | None)
            except Exception as error:  # a reply that comes later must not be taken for the next call's
                self._end()
                self._begin()
                log.error("the model %s gave no answer within %.1f s, and is started anew", self.model, timeout_s)
                raise Unavailable(type(error).__name__) from None
            if found is None:
                raise Unavailable("the model cannot read these texts")
            return [[Named(*one) for one in names] for names in found]
        finally:
            self._turn.release()

    def _receive(self, peer: socket.socket, deadline: float) -> bytes:
        """As `receive`, but the deadline holds for all of it, however it trickles in."""
        waker = threading.Timer(max(deadline - time.monotonic(), 0.001), peer.shutdown, (socket.SHUT_RDWR,))
        waker.daemon = True
        peer.settimeout(None)
        waker.start()
        try:
            return receive(peer)
        finally:
            waker.cancel()

    def _await_ready(self, deadline: float) -> socket.socket:
        peer = self._peer or self._begin()
        if self._ready:
            return peer
        peer.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            reason = msgspec.msgpack.decode(receive(peer), type=str)
        except TimeoutError:
            raise Unavailable(f"{self.model} is still being loaded") from None
        except (Closed, OSError, msgspec.DecodeError):
            reason = "its process ended"
        if reason:
            self._end()
            raise Unavailable(reason)
        self._ready, self._first = True, False
        return peer

    def _begin(self) -> socket.socket:
        self._peer, theirs = socket.socketpair()
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = subprocess.Popen(
                [*self._command, self.model, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._ready = False
        if self._killing is not None:
            self._killing.detach()
        self._killing = weakref.finalize(self, _kill, self._process, self._peer)
        return self._peer

    def _end(self) -> None:
        if self._process is not None and self._peer is not None:
            _kill(self._process, self._peer)
        self._peer = self._process = None
        self._ready = False


def _kill(process: subprocess.Popen[bytes], peer: socket.socket) -> None:
    peer.close()
    process.kill()
    process.wait()


_shared: weakref.WeakValueDictionary[str, Recogniser] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def recogniser(model: str) -> Recogniser:
    """The one process for a model, shared by all configurations that name it: a reload does not load it again."""
    with _sharing:
        found = _shared.get(model)
        if found is None:
            found = _shared[model] = Recogniser(model)
        return found
