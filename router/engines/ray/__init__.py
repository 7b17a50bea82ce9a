"""Ray Serve: router replicas that own their listeners, and a deployment for each backend that is too big for them.

The only package that imports Ray. Ray's own HTTP proxy is off: it costs more than everything the router does.
"""

from __future__ import annotations

import os

# Read by Ray when it is imported or started: before any module here imports it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

APPLICATION = "pointsman"
"""Of `pointsman serve`: the application's name, and the namespace of the actors that its replicas share."""
ROUTER = "router"
"""The deployment of the router replicas."""
