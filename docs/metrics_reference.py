"""docs/metrics.md, from the instruments themselves."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics import MetricWrapperBase

from policies.outcomes import SERVICE_FAULTS
from router.exchange import OUTCOMES
from router.health import STATES
from router.telemetry.metrics import Metrics
from router.telemetry.tallies import Distribution, Tally

_HEAD = """<!-- Made by `make docs` from router/telemetry/metrics.py: edit that, not this. -->

# Metrics

`GET /metrics` on the admin port: the Prometheus text format, or OpenMetrics where the scraper asks for it (Prometheus
does with `--enable-feature=exemplar-storage`), which also carries exemplars: the trace id of the latest sampled
request in each bucket. Base units. Every label takes its values from the configuration or from a list that is closed,
so the number of series is bounded by what you configure, whatever callers send. Histograms also have `_bucket`,
`_sum` and `_count`. For native histograms let Prometheus 3 make them when it scrapes
(`convert_classic_histograms_to_nhcb: true`).

Dashboards for Grafana are in [configs/grafana/](../configs/grafana/README.md), recording rules and alerts for
Prometheus in [configs/prometheus/](../configs/prometheus/README.md); each alert has a page in
[runbooks/](runbooks/README.md).

**Several replicas** (`--replicas`): any of them answers for all on its node. Counters and histograms are sums; a
replica that ends, or is killed, has counted every request that it answered (`pointsman_requests_total`), and
everything else up to a quarter of a second before. Gauges of a replica that is gone are gone; what becomes of the
values of several is said with each. Exemplars are those of the replica that answers.

| metric | labels | meaning |
|---|---|---|
"""

_TAIL = """
`route` is the path of the API, of tensors `/v2/models/{{model}}/infer`; `model` is `?` where no backend serves it.

`outcome` of a request: {outcomes}. Of an attempt: `ok`, `unreachable`, `timeout`, `overloaded`, `bad_answer`,
`failed`, `rejected`, `cancelled`, `internal`. `kind` of an attempt: `first`, `fallback`, `retry`, `hedge`,
`escalation`.

`state` of a backend: {states}. `held`: it asked to be left alone. `on_trial`: it was kept out, and gets one request
at a time.

`purpose` of a cost: `answer`, `unused` (hedges that lost, answers that a cascade replaced, calls given up), `broken`
(answers that ended early), `copy` (to a backend on trial). Cost, by the fleet's prices: tokens, requests, seconds of
service. What is paid by the hour (`reserved_per_hour`) counts in `pointsman_cost_usd_total` with a request's share at
full capacity, and not at all in `pointsman_marginal_cost_usd_total`. What it really costs is the latter plus
`pointsman_reserved_usd_per_hour` for every hour: `job:pointsman_spend_usd_per_hour:rate5m` among
the [recording rules](../configs/prometheus/README.md).

`reason` of an unauthorized request: `missing`, `unknown`, `token` (a token that is not good), `malformed` (two
credentials), `unavailable` (no keys to verify a token with).

Quotas are budgets and limits; `unit` is `usd`, `tokens` or `requests`. What is used elsewhere is as the ledger last
said.

`pointsman_slo_requests_total`: a request is met where it was answered within the `slo` of its rule (or at all, where
the rule has none), and missed where the service failed it: {faults}. What the caller did wrong, what the policy
refuses, and what a budget or limit stops, is neither. """


def text() -> str:
    rows = ""
    for one in vars(Metrics()).values():
        metric = one.metric if isinstance(one, Tally | Distribution) else one
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            labels = ", ".join(f"`{name}`" for name in metric._labelnames)
            rows += f"| `{metric._name}{suffix}` | {labels} | {metric._documentation} |\n"
    outcomes = dict.fromkeys(["ok", "client_error", *OUTCOMES.values(), "stream_broken", "cancelled"])
    return (
        _HEAD
        + rows
        + _TAIL.format(outcomes=_list(outcomes), states=_list(STATES), faults=_list(sorted(SERVICE_FAULTS)))
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
