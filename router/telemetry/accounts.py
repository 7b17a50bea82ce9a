"""What ended requests add to the metrics: gathered under one key while requests are served, told apart into the
instruments when somebody looks, or a moment later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from policies.accounts import Charge
from router.decisionlog.record import Outcome
from router.telemetry.energy import MeasuredEnergy
from router.telemetry.metrics import Metrics
from router.telemetry.tallies import Labels

OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
}
"""Tasks as OpenTelemetry names them. Those that are not here (tensors) are no generative AI."""


Spending = tuple[str, str, str, str, bool]
"""Backend, tier, model, purpose, and whether the tokens are estimated."""


class EndedKey(NamedTuple):
    """What ended requests have in common. Every part is a name of the configuration, or empty."""

    route: str
    task: str
    model: str
    tenant: str
    rule: str
    backend: str
    tier: str
    outcome: str

    @property
    def series(self) -> Labels:
        """The labels that most instruments have."""
        return self.task, self.model, self.backend, self.tier


class Spent(NamedTuple):
    """What answers have cost. The parts are named as those of a `Charge`, of which they are sums."""

    usd: float
    marginal_usd: float
    energy_j: float
    carbon_g: float
    seconds: float
    tokens_in: int
    tokens_out: int


_SPENDING = attrgetter("backend", "tier", "model", "purpose", "estimated")
_SPENT = attrgetter(*Spent._fields)


class Added(NamedTuple):
    """What one request adds. Times in seconds; None: there is none."""

    outcome: Outcome
    overhead_s: float | None  # what the router took
    per_token_s: float | None  # what a token of a stream did


@dataclass(slots=True)
class Account:
    """Of requests that ended alike. Requests that are counted and not over yet hold it, so it stays."""

    key: EndedKey
    counted: int = 0  # since the metrics were last told
    over: list[Added] = field(default_factory=list)  # likewise


class Accounts:
    """Belongs to one thread."""

    def __init__(self, metrics: Metrics, energy: MeasuredEnergy | None = None) -> None:
        """`energy` is told of what is measured rather than modelled."""
        self._metrics = metrics
        self._energy = energy or MeasuredEnergy(metrics)
        self._accounts: dict[tuple[str, ...], Account] = {}  # no more than the metrics have series
        self._copies: list[Charge] = []
        metrics.fold_first(self)

    def count(self, key: tuple[str, ...]) -> Account:
        """A request's answer is about to leave; where to add what it took once it is over. `key` holds the parts of an
        `EndedKey`."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(EndedKey(*key))
        if self._metrics.shared:
            self._metrics.requests.add(_requests_labels(account.key))
        else:
            account.counted += 1
        return account

    def ended(self, account: Account, over: Added, trace_id: str | None = None) -> None:
        """A request is over that was counted there."""
        account.over.append(over)
        if trace_id is not None and account.key.outcome == "ok":
            at, ttft_ms = account.key.series, over.outcome.ttft_ms
            self._metrics.request_seconds.exemplify(at, over.outcome.ms / 1000, trace_id)
            if ttft_ms is not None:
                self._metrics.ttft_seconds.exemplify(at, ttft_ms / 1000, trace_id)

    def copied(self, charges: Sequence[Charge]) -> None:
        """A copy of a request has cost that."""
        self._copies += charges

    def fold(self) -> None:
        for account in self._accounts.values():
            counted, over = account.counted, account.over
            if counted:
                account.counted = 0
                self._metrics.requests.add(_requests_labels(account.key), counted)
            if over:
                account.over = []
                self._tell(account.key, over)
        copies, self._copies = self._copies, []
        self._tell_spent(_added_up(copies))
        self._energy.fold()

    def _tell_spent(self, found: Mapping[Spending, Spent]) -> None:
        metrics = self._metrics
        for (backend, tier, model, purpose, estimated), spent in found.items():
            at = backend, tier, model, purpose
            metrics.cost_usd.add(at, spent.usd)
            metrics.marginal_usd.add(at, spent.marginal_usd)
            if self._energy.measures(backend):
                self._energy.served(backend, tier, spent.seconds)
            else:
                metrics.energy_joules.add((backend, tier, "modelled"), spent.energy_j)
                metrics.carbon_grams.add((backend, tier), spent.carbon_g)
            source = "estimated" if estimated else "told"
            metrics.tokens.add((backend, model, "in", source), spent.tokens_in)
            metrics.tokens.add((backend, model, "out", source), spent.tokens_out)

    def _tell(self, key: EndedKey, over: Sequence[Added]) -> None:
        metrics, ok, at = self._metrics, key.outcome == "ok", key.series
        outcomes = [one.outcome for one in over]
        seconds = [outcome.ms / 1000 for outcome in outcomes]
        first = [outcome.ttft_ms / 1000 for outcome in outcomes if outcome.ttft_ms is not None]
        per_token = [one.per_token_s for one in over if one.per_token_s is not None]
        metrics.tenant_requests.add((key.tenant, key.outcome), len(over))
        if ok:
            metrics.request_seconds.observe_all(at, seconds)
            metrics.tenant_seconds.observe_all((key.tenant,), seconds)
            overhead = [one.overhead_s for one in over if one.overhead_s is not None]
            metrics.overhead_seconds.observe_all((key.task,), overhead)
            baseline_usd = sum(outcome.baseline for outcome in outcomes)
            metrics.baseline_usd.add((key.backend, key.tier, key.model), baseline_usd)
            metrics.tenant_baseline_usd.add((key.tenant,), baseline_usd)
        if first:
            metrics.ttft_seconds.observe_all(at, first)
        if per_token:
            metrics.tpot_seconds.observe_all(at, per_token)
        met = [outcome.slo_met for outcome in outcomes]
        for said in (True, False):
            if said in met:
                metrics.slo.add((key.rule, str(said).lower()), met.count(said))
        found = _added_up([charge for outcome in outcomes for charge in outcome.charges or ()])
        self._tell_spent(found)
        for spent in found.values():
            metrics.tenant_cost_usd.add((key.tenant,), spent.usd)
            metrics.tenant_tokens.add((key.tenant, "in"), spent.tokens_in)
            metrics.tenant_tokens.add((key.tenant, "out"), spent.tokens_out)
        operation = OPERATIONS.get(key.task)
        if operation is not None:
            gen_ai = operation, key.backend, key.model
            metrics.gen_ai_duration.observe_all((*gen_ai, "" if ok else key.outcome), seconds)
            metrics.gen_ai_first.observe_all(gen_ai, first)
            metrics.gen_ai_token.observe_all(gen_ai, per_token)


def _added_up(charges: Sequence[Charge]) -> dict[Spending, Spent]:
    alike: defaultdict[Spending, list[Charge]] = defaultdict(list)
    for charge in charges:
        alike[_SPENDING(charge)].append(charge)
    return {at: Spent._make(map(sum, zip(*map(_SPENT, some), strict=True))) for at, some in alike.items()}


def _requests_labels(key: EndedKey) -> Labels:
    return key.route, key.task, key.model, key.rule, key.backend, key.tier, key.outcome
