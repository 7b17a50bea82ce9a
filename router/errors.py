"""What the service tells a client when it cannot answer. Wires render it in their protocol's shape."""

from __future__ import annotations

import logging
import math
import traceback

from backends.errors import BackendError, RequestRejected
from policies.facts import UnknownLevel
from policies.types import Refusal, RefusalCode

log = logging.getLogger("pointsman")

STATUS: dict[str, int] = {
    RefusalCode.MODEL_NOT_FOUND: 404,
    RefusalCode.POLICY_NO_BACKEND: 403,
    RefusalCode.OVERLOADED: 429,
    RefusalCode.RATE_LIMITED: 429,
    RefusalCode.BUDGET_EXHAUSTED: 429,
    RefusalCode.BACKENDS_UNAVAILABLE: 503,
    RefusalCode.DEADLINE_EXCEEDED: 504,
    RefusalCode.UNAUTHORIZED: 401,
    RefusalCode.MODEL_NOT_ALLOWED: 403,
    RefusalCode.USAGE_NOT_ALLOWED: 403,
    "not_permitted": 403,
    "identity_unavailable": 503,
    "shutting_down": 503,
    "bad_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "upstream_error": 502,
    "internal_error": 500,
}
"""HTTP status by error code."""


class ApiError(Exception):
    """One answer that is an error. `message` says what and why, `hint` what to do; neither holds any payload."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        param: str | None = None,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.hint = hint
        self.param = param
        self.status = STATUS[code] if status is None else status
        self.headers = headers
        self.body = body  # a backend's own answer, where it said why it rejects the request

    @classmethod
    def from_refusal(cls, refusal: Refusal, notices: tuple[str, ...] = (), raised_by: tuple[str, ...] = ()) -> ApiError:
        """`raised_by`: what gave the request its label, told where the policy is what refuses."""
        wait = refusal.retry_after_s
        headers = (("retry-after", str(math.ceil(wait))),) if wait is not None else ()
        label = (
            f"; the label comes from {', '.join(raised_by)}" if refusal.code == RefusalCode.POLICY_NO_BACKEND else ""
        )
        message = " ".join((*notices, refusal.message)) + (label if raised_by else "")
        return cls(refusal.code, message, refusal.hint, headers=headers)

    @property
    def text(self) -> str:
        return f"{self.message} — {self.hint}" if self.hint else self.message


def bad_request(message: str, hint: str = "", *, param: str | None = None) -> ApiError:
    return ApiError("bad_request", message, hint, param=param)


def not_allowed(method: str) -> ApiError:
    return ApiError("method_not_allowed", f"this path takes {method}", headers=(("allow", method),))


def as_api_error(error: Exception) -> ApiError:
    """What the client is told of `error`. One that nobody expected is logged here."""
    match error:
        case ApiError():
            return error
        case RequestRejected():
            return ApiError("bad_request", str(error), status=error.status, body=error.body)
        case UnknownLevel():
            return bad_request(str(error))
        case BackendError():
            return ApiError("upstream_error", str(error))
        case _:
            # Where it happened, without the error's message: that can hold what was being worked on.
            trace = "".join(traceback.format_tb(error.__traceback__, limit=20))
            name = type(error).__name__
            log.error("internal error: %s\n%s", name, trace, extra={"facts": {"error": name}})
            return ApiError("internal_error", "the router failed on this request", "see the router's log")
