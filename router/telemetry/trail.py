"""What is known of the request that a task works for: for its log lines, and for the spans of its trace.

It stands in a context variable, so that the tasks which a request starts (hedges, copies) have it too. Connections that
a request opens keep it as long as they live: it holds names and ids, never the request.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.calls import Usage
from router.decisionlog.record import Decided
from router.settings import Settings

if TYPE_CHECKING:  # OpenTelemetry is imported where traces are wanted, and nowhere else
    from router.telemetry.tracing import RequestSpan, Tracing


class Trail:
    """Of one request, filled in as it becomes known. `span` is there where the router traces."""

    __slots__ = ("copied", "decision", "request_id", "span")

    def __init__(self) -> None:
        self.request_id = ""
        self.decision = ""
        self.span: RequestSpan | None = None
        self.copied = False  # what is done is done for a copy of the request

    @property
    def trace_id(self) -> str | None:
        """Of the trace that will be exported: 32 hexadecimal digits. None where the request is not sampled, or nothing
        is traced."""
        return None if self.span is None else self.span.trace_id

    def of_copy(self) -> Trail:
        trail = Trail()
        trail.request_id, trail.decision, trail.span, trail.copied = self.request_id, self.decision, self.span, True
        return trail


CURRENT: ContextVar[Trail | None] = ContextVar("pointsman-trail", default=None)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended, as its span and its log line tell it. Names from the configuration, and numbers."""

    outcome: str
    status: int  # of the answer; 0 where none was begun
    decided: Decided | None
    backend: str
    tier: str
    attempts: int
    seconds: float
    ttft_s: float | None
    usage: Usage | None
    cost_usd: float | None


def open_tracing(settings: Settings, instance: str) -> Tracing | None:
    """None where the settings name no collector, and then nothing of it is imported."""
    if settings.otlp_endpoint is None:
        return None
    from router.telemetry.tracing import Tracing

    return Tracing(settings.otlp_endpoint, settings.trace_share, instance)
