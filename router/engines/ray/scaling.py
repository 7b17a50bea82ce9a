"""How many router replicas there should be. Ray Serve does not see their requests, so they tell it."""

from __future__ import annotations

import math
from typing import Any

IN_PROGRESS = "in_progress"
"""What a replica tells: its requests in progress, and those of them that have not all come in yet."""


def by_requests(context: Any) -> tuple[int, dict[str, Any]]:
    """An autoscaling policy (`policy: {policy_function: router.engines.ray.scaling:by_requests}`): as many replicas as
    keep each at `target_ongoing_requests`. Ray Serve holds it to the bounds and delays of `autoscaling_config`."""
    told = (context.aggregated_metrics or {}).get(IN_PROGRESS) or {}
    if not told:
        return context.target_num_replicas, {}
    target = context.config.get_target_ongoing_requests()
    # The mean of those that have told something, for all of them: one that has just started has told nothing yet.
    each = sum(told.values()) / len(told)
    wanted = math.ceil(each * context.current_num_replicas / target)
    low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(max(wanted, low, 1), high), {}
