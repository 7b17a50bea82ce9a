"""What it costs and what it emits, against the alternative: by purpose, marginal and amortised, own hardware apart."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge
from grafana_foundation_sdk.models import dashboard as models

from dashboards.board import BACKENDS, COSTS, TENANTS, board
from dashboards.panels import (
    COUNT,
    GRAMS,
    GRAMS_PER_HOUR,
    MORE_IS_GOOD,
    RATIO,
    TOKENS_PER_SECOND,
    USD,
    USD_PER_HOUR,
    WATTS,
    Column,
    Query,
    bars,
    jump,
    lines,
    number,
    rows,
)
from dashboards.queries import among, grown, of, or_none, or_zero, rate, recorded, share, total

_BACKEND, _TIER, _MODEL = among("backend"), among("tier"), among("model")
_PLACED = (_BACKEND, _TIER)
_ALL = (*_PLACED, _MODEL)
_HOURLY = f"max by (backend, tier) ({of('pointsman_reserved_usd_per_hour', *_PLACED)})"
"""Several routers name the same backend: it is paid once."""


def _reserved(*by: str) -> str:
    return total(_HOURLY, *by)


def _paid(*by: str) -> str:
    """By the hour over the time shown, as far as there was a router in it: from before its first day nobody wants to
    see a loss. One that has just begun may lie between two steps."""
    hours = f"{total(f'sum_over_time(({_HOURLY})[$__range:$__interval])', *by)} * $__interval_ms / 3600000"
    return f"({hours} or 0 * {_reserved(*by)})"


def _hourly(name: str, *by: str) -> str:
    return f"3600 * {total(rate(name, *_ALL), *by)}"


def _quota(of_several: str, name: str) -> str:
    return or_none(f"{of_several} by (quota, unit) ({of(f'pointsman_quota_{name}')})", "quota")


LEFT = or_none(
    f"min by (quota, unit) ({of('pointsman_quota_remaining')} / ({of('pointsman_quota_cap')} > 0))", "quota", 1
)
_SPENT = f"({total(grown('pointsman_marginal_cost_usd_total', *_ALL))} + {_paid()})"
_CLOUD = total(grown("pointsman_baseline_cost_usd_total", *_ALL))
_ANSWERED = total(grown("pointsman_requests_total", 'outcome="ok"', *_ALL))
_CALLS = total(grown("pointsman_attempts_total", 'outcome="ok"', *_PLACED), "backend")
_TOKENS = (_BACKEND, _MODEL)
_USED = "job_backend_tier:pointsman_reserved_utilisation:ratio_rate5m"
_PLACE = ("backend", "tier", "model")


def _an_answer(usd: str) -> str:
    """Of each backend that is paid by the hour and was asked at all."""
    return f"{usd} / ({_CALLS} > 0) and on (backend) ({_reserved('backend')} > 0)"


def budgets_left(description: str) -> bargauge.Panel:
    """On this dashboard and on that of tenants."""
    return bars(
        "How much of each budget and limit is left?",
        description,
        RATIO,
        Query(LEFT, "{{quota}} {{unit}}"),
        steps=((None, "red"), (0.1, "orange"), (0.3, "green")),
        most=1,
    )


def dashboard() -> models.Dashboard:
    return board(
        COSTS,
        "Pointsman: cost and carbon",
        "What does it cost, against all cloud; does own hardware pay for itself; what does it draw and emit?",
        [("What does it cost, and what does it save?", _MONEY), ("Does own hardware pay for itself?", _OWN),
         ("What is it spent on?", _SPENDING), ("What does it draw and emit?", _CARBON),
         ("How much of the budgets is left?", _BUDGETS)],
        ("tier", "backend", "model"),
    )  # fmt: skip


_MONEY = [
    number(
        "What was spent?",
        "Over the time shown: what answers added, and what is paid by the hour, used or not, as long as there was a "
        "router.",
        USD,
        Query(_SPENT),
        span=6,
    ),
    number(
        "What would all cloud have cost?",
        "The same answers over the time shown, at the cheapest cloud price that the fleet names. Where the cloud has "
        "no such model, what they did cost.",
        USD,
        Query(_CLOUD),
        span=6,
    ),
    number(
        "How much was saved?",
        "The difference of the two. Below 0: own hardware had too little to do.",
        USD,
        Query(f"{_CLOUD} - {_SPENT}"),
        steps=MORE_IS_GOOD,
        span=6,
    ),
    number(
        "What does a thousand answers cost?",
        "All that was spent over the time shown, by the answers that callers got.",
        USD,
        Query(f"1000 * {_SPENT} / ({_ANSWERED} > 0)"),
        span=6,
    ),
    lines(
        "How does it compare, hour by hour?",
        "Spent: answers and reserved hardware. Answers alone: without what is paid by the hour. At full use: own "
        "hardware by its share at full capacity. All cloud: the alternative.",
        USD_PER_HOUR,
        Query(f"{_hourly('pointsman_marginal_cost_usd_total')} + {_reserved()}", "spent"),
        Query(_hourly("pointsman_marginal_cost_usd_total"), "answers alone"),
        Query(_hourly("pointsman_cost_usd_total"), "at full use"),
        Query(_hourly("pointsman_baseline_cost_usd_total"), "all cloud"),
    ),
    lines(
        "Which tiers cost what?",
        "Answers and reserved hardware by tier.",
        USD_PER_HOUR,
        Query(f"{_hourly('pointsman_marginal_cost_usd_total', 'tier')} + {_reserved('tier')}", "{{tier}}"),
        stacked=True,
        links=[jump(BACKENDS, "Backends of this tier", tier="tier")],
    ),
]

_OWN = [
    bars(
        "How well is own hardware used?",
        "Requests it answered, of those it could (capacity_rps): 1 is full. Over the last 5 minutes.",
        RATIO,
        Query(f"max by (backend) ({recorded(_USED, *_PLACED)})", "{{backend}}"),
        steps=((None, "orange"), (0.3, "green"), (0.9, "red")),
        most=1,
        links=[jump(BACKENDS, "This backend", backend="backend")],
    ),
    rows(
        "What does an answer of own hardware cost?",
        "Of backends that are paid by the hour. At full use: with a share of that as if they were always full. Really: "
        "with all of it, by the requests there were over the time shown. It pays for itself where that is below all "
        "cloud.",
        Column("at full use", _an_answer(total(grown("pointsman_cost_usd_total", *_ALL), "backend")), USD),
        Column("really", _an_answer(f"({total(grown('pointsman_marginal_cost_usd_total', *_ALL), 'backend')} + "
                                    f"{_paid('backend')})"), USD),
        Column("all cloud", _an_answer(total(grown("pointsman_baseline_cost_usd_total", *_ALL), "backend")), USD),
        span=16,
    ),
    lines(
        "What is paid by the hour, and what of it is used?",
        "Reserved by backend, and the part of it that requests took.",
        USD_PER_HOUR,
        Query(_reserved("backend"), "{{backend}}, reserved"),
        Query(f"{_hourly('pointsman_cost_usd_total', 'backend')} - "
              f"{_hourly('pointsman_marginal_cost_usd_total', 'backend')}", "{{backend}}, used"),
        span=24,
        least=None,
    ),
]  # fmt: skip

_SPENDING = [
    lines(
        "What is it spent on?",
        "answer: what callers got. unused: hedges that lost, answers that a cascade replaced. broken: answers that "
        "ended early. copy: to backends on trial.",
        USD_PER_HOUR,
        Query(_hourly("pointsman_cost_usd_total", "purpose"), "{{purpose}}"),
        stacked=True,
        span=8,
    ),
    number(
        "How much is spent on what nobody got?",
        "Of the cost over the time shown, the share of all but answers.",
        RATIO,
        Query(share(or_zero(total(grown("pointsman_cost_usd_total", 'purpose!="answer"', *_ALL))),
                    total(grown("pointsman_cost_usd_total", *_ALL)))),
        steps=((None, "green"), (0.1, "orange"), (0.3, "red")),
    ),
    lines(
        "How many tokens go in and come out?",
        "As backends counted them (told), or as we must guess (estimated).",
        TOKENS_PER_SECOND,
        Query(or_none(total(rate("pointsman_tokens_total", *_TOKENS), "direction", "source"), "source"),
              "{{direction}} {{source}}"),
        stacked=True,
        span=8,
    ),
    number(
        "How much of that is a guess?",
        "Of the tokens over the time shown, the share that no backend counted. Costs by the token are as good as that.",
        RATIO,
        Query(share(or_zero(total(grown("pointsman_tokens_total", 'source="estimated"', *_TOKENS))),
                    or_zero(total(grown("pointsman_tokens_total", *_TOKENS))))),
        steps=((None, "green"), (0.2, "orange")),
    ),
    rows(
        "Which models at which backends cost most?",
        "Over the time shown, at full use; and what the cloud would have cost.",
        Column("cost", total(grown("pointsman_cost_usd_total", *_ALL), *_PLACE), USD, gauge=True),
        Column("without the hourly", total(grown("pointsman_marginal_cost_usd_total", *_ALL), *_PLACE), USD),
        Column("all cloud", total(grown("pointsman_baseline_cost_usd_total", *_ALL), *_PLACE), USD),
        span=24,
        sort="cost",
        links=[jump(TENANTS, "By tenant")],
    ),
]  # fmt: skip

_CARBON = [
    lines(
        "How much power do answers draw? (modelled)",
        "From the watts in the fleet and service time (modelled), or measured where a model runs in the router's "
        "process and the machine tells.",
        WATTS,
        Query(total(rate("pointsman_energy_joules_total", *_PLACED), "backend", "source"), "{{backend}}, {{source}}"),
        stacked=True,
        span=8,
    ),
    lines(
        "How much do backends draw while they wait, and this machine in all?",
        "Idle watts as the fleet says; processors of the routers' machines as measured (RAPL), 0 where unreadable.",
        WATTS,
        Query(f"max by (backend) ({of('pointsman_idle_watts', *_PLACED)})", "{{backend}}, idle"),
        Query(total(rate("pointsman_host_energy_joules_total")), "processors, measured"),
        span=8,
    ),
    lines(
        "How much carbon is that? (modelled)",
        "CO2 equivalent of the energy of answers, by the intensity of each backend's zone. Modelled: an estimate.",
        GRAMS_PER_HOUR,
        Query(f"3600 * {total(rate('pointsman_carbon_grams_total', *_PLACED), 'backend')}", "{{backend}}"),
        stacked=True,
        span=8,
    ),
    number(
        "How much carbon was emitted? (modelled)",
        "Over the time shown, by the energy of answers alone.",
        GRAMS,
        Query(total(grown("pointsman_carbon_grams_total", *_PLACED))),
        span=6,
    ),
    number(
        "How much carbon for a thousand answers? (modelled)",
        "By the energy of answers alone, over the time shown, for each thousand that callers got.",
        GRAMS,
        Query(f"1000 * {total(grown('pointsman_carbon_grams_total', *_PLACED))} / ({_ANSWERED} > 0)"),
        span=6,
    ),
    lines(
        "How clean is the power now?",
        "CO2 equivalent of a kilowatt hour where each backend stands, and where that number is from.",
        "suffix: g/kWh",
        Query(f"max by (backend, source) ({of('pointsman_carbon_intensity_grams_per_kwh', _BACKEND)})",
              "{{backend}}, {{source}}"),
        span=12,
    ),
]  # fmt: skip

_BUDGETS = [
    budgets_left("Of its cap; where it has keys (tenants, models), of the one that has least."),
    rows(
        "How do the budgets stand?",
        "In this period: cap, used over all keys, left, and what processes hold of it (leased).",
        Column("cap", _quota("max", "cap")),
        Column("used", _quota("max", "used")),
        Column("left", _quota("min", "remaining")),
        Column("leased", _quota("sum", "leased")),
        span=10,
    ),
    number(
        "Did the ledger not answer?",
        "Reports to the ledger of budgets over the time shown that got no answer.",
        COUNT,
        Query(or_zero(total(grown("pointsman_ledger_errors_total")))),
        steps=((None, "green"), (1, "red")),
        span=6,
    ),
]
