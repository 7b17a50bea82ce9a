"""The Serve application of a configuration: the router, and a deployment for each backend that needs its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from router.configuration import Configuration
from router.engines.ray import ROUTER
from router.engines.ray.hosts import OWN_DEPLOYMENT, BackendHost
from router.engines.ray.replica import Blueprint, RouterReplica
from router.settings import Settings

MAX_ONGOING = 1000
"""Ray's default of 5 would queue everything; the fleet's own limits are what holds."""
LAST_S = 5.0
"""For a replica to close what it has, after its requests have had their time."""
LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


def application(configuration: Configuration, settings: Settings, plan: Callable[[], Blueprint]) -> serve.Application:
    """The names of its deployments are `router` and `backend-NAME`."""
    # A fraction of a core each: these numbers only place actors, and a laptop must have room for all of them.
    actor: dict[str, Any] = {"num_cpus": 0.1}
    common: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING,
        # What keeps a first replica from starting is in the configuration: trying again only hides it for a minute.
        # Replicas that have once started are restarted without end.
        "max_constructor_retry_count": 1,
        "health_check_period_s": 5,
        "ray_actor_options": actor,
        "logging_config": LOGGING,
    }
    hosts = {
        spec.name: serve.deployment(name=f"backend-{spec.name}", **common)(BackendHost).bind(
            spec, str(configuration.folder)
        )
        for spec in configuration.policy.fleet.backends
        if spec.protocol in OWN_DEPLOYMENT
    }
    router = serve.deployment(
        name=ROUTER,
        num_replicas=settings.replicas,
        graceful_shutdown_timeout_s=settings.drain_delay_s + settings.drain_s + LAST_S,
        **common,
    )
    return router(RouterReplica).bind(plan, hosts)
