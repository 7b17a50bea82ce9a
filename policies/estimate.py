"""What a request will take at a target: tokens, time, money, energy, carbon. Estimates, and named as such."""

from __future__ import annotations

from collections.abc import Sequence

from policies.types import Estimate, Request, Snapshot, Target

BYTES_PER_TOKEN = 3.6
"""UTF-8 bytes per token. English runs near 4.2 bytes, code near 3.2 and Japanese near 3 (one character, roughly
one token); 3.6 keeps the error under a quarter for all of them."""
DEFAULT_TOKENS_OUT = 256
"""Assumed length of an answer when the caller sets no limit."""
_J_PER_KWH = 3.6e6


def tokens(text_bytes: int) -> int:
    """Estimated tokens in so many bytes of UTF-8 text."""
    return -int(-text_bytes // BYTES_PER_TOKEN)


def size(request: Request) -> float:
    """What the time of an answer grows with: the most tokens that it may have, or the KiB of tensors."""
    return request.body_bytes / 1024 if request.protocol == "oip" else float(request.tokens_out)


def latency_ms(target: Target, request: Request, snapshot: Snapshot) -> float:
    """Expected time to the whole answer: measured or prior, corrected for its size as far as that is known, and
    stretched by how full the backend is. A limit on tokens over the usual says nothing: most answers stay below."""
    measured = snapshot.latency_ms[target.index]
    base = target.prior_ms if measured is None else measured
    growth = snapshot.growth[target.index] if snapshot.growth else None
    if growth is not None and measured is not None:
        usual, slope = growth
        wanted = size(request) if request.protocol == "oip" else min(size(request), usual)
        base = max(base + slope * (wanted - usual), 0.05 * base)
    return base * (1 + snapshot.in_flight[target.backend_index] / target.max_in_flight)


def ttft_ms(target: Target, snapshot: Snapshot) -> float:
    """Expected time to the first token of a stream, likewise."""
    measured = snapshot.ttft_ms[target.index] if snapshot.ttft_ms else None
    base = target.prior_ttft_ms if measured is None else measured
    return base * (1 + snapshot.in_flight[target.backend_index] / target.max_in_flight)


def cost_usd(target: Target, tokens_in: int, tokens_out: int, seconds: float | None = None) -> float:
    """Price of one request that is served for so long (None: as long as the fleet expects). Reserved hardware counts
    with its amortised price at full capacity."""
    usd = target.usd_per_request + tokens_in * target.usd_per_token_in + tokens_out * target.usd_per_token_out
    if target.usd_per_second:
        usd += target.usd_per_second * (target.prior_ms / 1000 if seconds is None else seconds)
    return usd


def energy_j(target: Target, seconds: float) -> float:
    """Joules that serving one request for so long takes: its share of the power with all places taken."""
    return target.active_w * seconds / target.max_in_flight


def carbon_g(joules: float, g_per_kwh: float) -> float:
    """Grams of CO2 equivalent."""
    return joules / _J_PER_KWH * g_per_kwh


def estimates(targets: Sequence[Target], request: Request, snapshot: Snapshot) -> list[Estimate]:
    """Of each target: what `latency_ms`, `ttft_ms`, `cost_usd`, `energy_j` and `carbon_g` say, written out once more
    because it is done for every candidate of every request (a test holds them together)."""
    latencies, firsts, growths, in_flight = snapshot.latency_ms, snapshot.ttft_ms, snapshot.growth, snapshot.in_flight
    tokens_in, tokens_out, stream = request.tokens_in, request.tokens_out, request.stream
    now_g_per_kwh = snapshot.g_per_kwh
    found: list[Estimate] = []
    for target in targets:
        index, places = target.index, target.max_in_flight
        crowding = 1 + in_flight[target.backend_index] / places
        measured = latencies[index]
        if measured is None:
            expected = target.prior_ms * crowding
        elif growths and growths[index] is not None:
            expected = latency_ms(target, request, snapshot)
        else:
            expected = measured * crowding
        first = expected
        if stream:
            measured = firsts[index] if firsts else None
            first = (target.prior_ttft_ms if measured is None else measured) * crowding
        usd = target.usd_per_request + tokens_in * target.usd_per_token_in + tokens_out * target.usd_per_token_out
        if target.usd_per_second:
            usd += target.usd_per_second * expected / 1000
        joules = carbon = 0.0
        if target.active_w:
            joules = target.active_w * expected / 1000 / places
            emits = now_g_per_kwh[target.backend_index] if now_g_per_kwh else target.g_per_kwh
            carbon = joules / _J_PER_KWH * emits
        found.append(Estimate(expected, first, usd, joules, carbon))
    return found
