"""How the backends are: latency, health, room, and what is done when they fail."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from dashboards.board import BACKENDS, COSTS, board
from dashboards.panels import (
    COUNT,
    PER_SECOND,
    RATIO,
    SECONDS,
    Column,
    Query,
    bars,
    heat,
    jump,
    lines,
    rows,
    states,
)
from dashboards.queries import among, grown, of, or_none, quantile, rate, share, total

_BACKEND, _TIER, _MODEL = among("backend"), among("tier"), among("model")
_PLACED = (_BACKEND, _TIER)
_FAILED = 'outcome!~"ok|cancelled|rejected"'


def dashboard() -> models.Dashboard:
    return board(
        BACKENDS,
        "Pointsman: backends",
        "Which backends are in, how long do they take, how full are they, and what happens when they fail?",
        [("Which are in, and do they answer?", _HEALTH), ("How long do they take?", _LATENCY),
         ("How full are they?", _ROOM), ("What happens when they fail or are slow?", _SECOND)],
        ("tier", "backend", "model"),
    )  # fmt: skip


_HEALTH = [
    states(
        "Which backends were out, and when?",
        "As the router that sees it worst does.",
        {"0": ("out", "red"), "1": ("in", "green")},
        Query(f"min by (backend) ({of('pointsman_backend_available', *_PLACED)})", "{{backend}}"),
    ),
    rows(
        "What state are they in?",
        "held: it asked to be left alone. on_trial: it was kept out and gets one request at a time. slow_start: it "
        "gets more and more. ejected: it failed. unreachable: probes fail.",
        Column("routers", f"count by (backend, state) ({of('pointsman_backend_state', _BACKEND)} == 1)"),
        links=[jump(COSTS, "What it costs")],
    ),
    lines(
        "How much goes to each?",
        "Calls, with retries, hedges and copies.",
        PER_SECOND,
        Query(total(rate("pointsman_attempts_total", *_PLACED), "backend"), "{{backend}}"),
        stacked=True,
        span=8,
        links=[jump(COSTS, "What it costs", backend="backend")],
    ),
    lines(
        "Which calls fail?",
        "By backend and by what went wrong. A call that was given up is no failure. One whose stream broke off later "
        "had answered, and is not counted among the failed ones of other panels.",
        PER_SECOND,
        Query(total(rate("pointsman_attempts_total", _FAILED, *_PLACED), "backend", "outcome"),
              "{{backend}} {{outcome}}"),
        Query(total(rate("pointsman_streams_broken_total", *_PLACED), "backend"), "{{backend}} stream broken"),
        span=8,
    ),
    bars(
        "How many of its calls fail?",
        "Of all calls to a backend over the time shown.",
        RATIO,
        Query(share(total(grown("pointsman_attempts_total", _FAILED, *_PLACED), "backend"),
                    total(grown("pointsman_attempts_total", *_PLACED), "backend")), "{{backend}}"),
        steps=((None, "green"), (0.01, "orange"), (0.1, "red")),
        most=1,
    ),
]  # fmt: skip

_LATENCY = [
    lines(
        "How long do callers wait, by backend?",
        "From a request's arrival to the end of its answer, of good answers: queue and earlier attempts included. Dots "
        "are traces, where they are sampled.",
        SECONDS,
        *(Query(quantile(q, "pointsman_request_seconds", *_PLACED, _MODEL, by=("backend",)),
                f"{{{{backend}}}} p{100 * q:g}", exemplars=True) for q in (0.5, 0.95, 0.99)),
    ),
    lines(
        "How long do backends take?",
        "Until the answer, or the first piece of a stream, is there; of good calls alone.",
        SECONDS,
        *(Query(quantile(q, "pointsman_attempt_seconds", *_PLACED, by=("backend",)),
                f"{{{{backend}}}} p{100 * q:g}", exemplars=True) for q in (0.5, 0.95, 0.99)),
    ),
    lines(
        "When does a stream begin?",
        "From a request's arrival to the first piece of its answer (p95).",
        SECONDS,
        Query(quantile(0.95, "pointsman_time_to_first_token_seconds", *_PLACED, _MODEL, by=("backend", "model")),
              "{{backend}} {{model}}", exemplars=True),
        span=8,
    ),
    lines(
        "How fast do tokens come?",
        "Time between two tokens of a stream, on average of a stream (p95 of streams).",
        SECONDS,
        Query(quantile(0.95, "pointsman_time_per_output_token_seconds", *_PLACED, _MODEL, by=("backend", "model")),
              "{{backend}} {{model}}", exemplars=True),
        span=8,
    ),
    heat(
        "How are answer times spread?",
        "Good answers by the time they took. Two bands: two kinds of requests, or of backends.",
        SECONDS,
        Query(total(f"increase({of('pointsman_request_seconds_bucket', *_PLACED, _MODEL)}[$__rate_interval])", "le"),
              "{{le}}", exemplars=True),
        span=8,
    ),
    lines(
        "What latency do decisions go by?",
        "The peak-sensitive average of each model at each backend, where it was measured.",
        SECONDS,
        Query(f"max by (backend, model) ({of('pointsman_latency_estimate_seconds', _BACKEND, _MODEL)})",
              "{{backend}} {{model}}"),
    ),
    lines(
        "How old is that latency?",
        "Since it was last measured. Old while requests go there: something is wrong.",
        SECONDS,
        Query(f"min by (backend, model) ({of('pointsman_latency_estimate_age_seconds', _BACKEND, _MODEL)})",
              "{{backend}} {{model}}"),
        steps=((None, "green"), (600, "orange")),
    ),
]  # fmt: skip

_ROOM = [
    lines(
        "How many requests is each at, and how many may it have?",
        "Served or queued, and how many it is given at once.",
        COUNT,
        Query(f"sum by (backend) ({of('pointsman_in_flight', _BACKEND)})", "{{backend}}"),
        Query(f"sum by (backend) ({of('pointsman_concurrency_limit', _BACKEND)})", "{{backend}}, at once"),
    ),
    lines(
        "How full are the queues?",
        "Requests that wait for a place, of those that may. 1: the next goes elsewhere or is refused.",
        RATIO,
        Query(share(f"sum by (backend) ({of('pointsman_queued', _BACKEND)})",
                    f"sum by (backend) ({of('pointsman_queue_limit', _BACKEND)})"), "{{backend}}"),
        steps=((None, "green"), (0.8, "red")),
    ),
    lines(
        "How long do requests wait for a place?",
        "Of those that waited (p95); 0 where none did.",
        SECONDS,
        Query(f"{quantile(0.95, 'pointsman_queue_seconds', _BACKEND, by=('backend',))} or "
              f"0 * sum by (backend) ({of('pointsman_queue_limit', _BACKEND)})", "{{backend}}"),
        span=8,
    ),
    lines(
        "Who helps out when another is full?",
        "Requests that went to a backend before a better one that was full (spill).",
        PER_SECOND,
        Query(total(rate("pointsman_spills_total", _BACKEND), "backend"), "{{backend}}"),
        span=8,
    ),
    lines(
        "How many requests does a model run at once?",
        "Requests in a batch, on average, of models in the router's process; 0 where there are none.",
        COUNT,
        Query(or_none(f"{total(rate('pointsman_batch_size_sum', _BACKEND), 'backend')} / "
                      f"({total(rate('pointsman_batch_size_count', _BACKEND), 'backend')} > 0)", "backend"),
              "{{backend}}"),
        span=8,
    ),
]  # fmt: skip

_SECOND = [
    lines(
        "How many second chances are there?",
        "Calls after the first: to another backend (fallback), to the same again (retry), beside a slow one (hedge), "
        "to a better one (escalation of a cascade).",
        PER_SECOND,
        Query(total(rate("pointsman_attempts_total", 'kind!="first"', *_PLACED), "kind"), "{{kind}}"),
        stacked=True,
        span=8,
    ),
    lines(
        "Do hedges pay?",
        "Second calls made because the first was slow: won where they answered first.",
        PER_SECOND,
        Query(total(rate("pointsman_hedges_total"), "outcome"), "{{outcome}}"),
        span=8,
    ),
    lines(
        "Which backends are kept out for failing?",
        "Ejections, as each replica counted.",
        COUNT,
        Query(total(f"increase({of('pointsman_ejections_total', _BACKEND)}[$__rate_interval])", "backend"),
              "{{backend}}"),
        span=8,
    ),
]  # fmt: skip
