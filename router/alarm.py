"""A time limit for the current task, as `asyncio.timeout` is, at a third of its price: every request has one."""

from __future__ import annotations

import asyncio


class Alarm:
    """While entered: after `seconds` the task is cancelled, and leaving raises TimeoutError. At once where they are not
    over 0."""

    __slots__ = ("_before", "_handle", "_rang", "_task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._rang = task, False
        self._before = task.cancelling()
        self._handle = task.get_loop().call_later(max(seconds, 0.0), self._ring)

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()

    def __enter__(self) -> Alarm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._handle.cancel()
        if self._rang and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
