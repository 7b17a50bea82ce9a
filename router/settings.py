"""How the service itself runs. What it decides is the policy's business, not a setting's."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from router.decisionlog.writer import LogSettings


@dataclass(frozen=True, slots=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8000
    admin_host: str = "127.0.0.1"
    admin_port: int = 8001
    admin_tokens: tuple[bytes, ...] = field(default=(), repr=False)  # SHA-256 digests; none: the admin port is open
    max_body_bytes: int = 32 * 1024 * 1024
    max_bodies_bytes: int = 1024 * 1024 * 1024  # of all requests in progress together
    default_deadline_s: float = 60.0  # for requests that give none; until the first byte of a stream
    body_s: float = 120.0  # for a request's body to come in
    client_idle_s: float = 60.0  # for a client to read what it is sent
    probe_interval_s: float = 5.0
    drain_delay_s: float = 0.0  # told to stop, it takes requests for so long: until nobody sends it any more
    drain_s: float = 10.0  # for requests in progress to end, after that
    seed: int = 0  # of the draws that break ties
    replicas: int = 1  # router processes (ray engine only)
    watch_interval_s: float = 1.0  # how often to look whether the configuration's files have changed; 0: never
    decision_log: LogSettings | None = None
    ledger: str | None = field(default=None, repr=False)  # that keeps budgets: a file, or Redis's URL (with a password)
    otlp_endpoint: str | None = field(default=None, repr=False)  # the collector of traces; none: there are no traces
    trace_share: float = 1.0  # of the requests whose caller has not decided whether they are sampled
    log_format: str = "text"
    log_level: str = "warning"
    candidate_sample: float = 0.1  # share of the decisions that a candidate policy makes otherwise, to be logged


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
