"""What can go wrong at a backend.

    BackendError         the attempt failed; another backend may do better
     ├─ Unreachable      no connection: refused, DNS, TLS
     ├─ TimedOut         no answer, or no more of it, in time
     ├─ Overloaded       it said so (429, 503); may say when to come back
     ├─ BadAnswer        it answered something that is not an answer
     ├─ Failed           it said that it failed (5xx), or refused our credentials
     └─ Unsuited         it could make nothing of this request; that says nothing of its health
    RequestRejected      the request itself is wrong: no other backend would take it either

No message carries any part of a payload.
"""

from __future__ import annotations


class BackendError(Exception):
    outcome = "failed"  # the attempt's outcome in metrics and records

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(BackendError):
    outcome = "unreachable"


class TimedOut(BackendError):
    outcome = "timeout"


class Overloaded(BackendError):
    outcome = "overloaded"


class BadAnswer(BackendError):
    outcome = "bad_answer"


class Failed(BackendError):
    outcome = "failed"


class Unsuited(BackendError):
    outcome = "failed"


class RequestRejected(Exception):
    """`body` is the backend's own error answer where it gave a readable one; it goes to the caller only."""

    outcome = "rejected"

    def __init__(self, message: str, *, status: int = 400, body: bytes | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
