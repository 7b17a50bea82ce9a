"""A Ray of several nodes on this machine, as KubeRay would start it from a RayService, with its application deployed.

    python raycluster.py CLUSTER.json    prints the application's status as a line of JSON, and ends with its stdin

CLUSTER: `nodes`, each with its Ray start parameters and the variables that only it has, and `config`, for Ray Serve.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema


def main(told: dict[str, Any]) -> None:
    cluster = Cluster()
    for node in told["nodes"]:
        cluster.add_node(**node, object_store_memory=80 * 1024 * 1024)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    serve.start(proxy_location="Disabled", http_options=HTTPOptions(location="NoServer"))
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(told["config"]))
    for _ in range(600):
        application = serve.status().applications.get("pointsman")
        if application and application.status in ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY"):
            break
        time.sleep(0.1)
    assert application is not None
    print(json.dumps({"status": str(application.status.value), "message": application.message}), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
