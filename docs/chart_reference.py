"""The chart's README.md, made from values.yaml and its comments."""

from __future__ import annotations

import json
from pathlib import Path

from docs.chart_schema import CHART, Value, values

INTRODUCTION = """\
# The chart `pointsman`

Installs the router on Kubernetes 1.30 or later, with Helm 3.14 or later, or Helm 4. How to work with it (install,
upgrade, roll back, scale, several sites, keys, disasters) is in [docs/kubernetes.md](../../docs/kubernetes.md), and
what it protects from whom in [docs/security.md](../../docs/security.md).

```bash
kubectl create namespace inference
kubectl -n inference create secret generic pointsman-admin --from-literal=token="$(openssl rand -hex 32)"
helm install router helm/pointsman -n inference -f helm/pointsman/ci/laptop-values.yaml
helm test router -n inference
```

| | engine | what it makes |
|---|---|---|
| a site | `local` | a Deployment: processes without Ray, HPA |
| many replicas, models with processes of their own | `ray` | a KubeRay RayService |
| devices | `local`, `role: edge` | a DaemonSet: one router on each node |

Each file in [ci/](ci/) is the values of one real deployment, with a fleet, a policy and its tests; all of them are
rendered, validated and checked by `tests/helm`.

## Values

Made from [values.yaml](values.yaml) by `make docs`. Any other name is refused, and so is a value that looks like a key.

"""


def text() -> str:
    """The whole of README.md."""
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for value in values((CHART / "values.yaml").read_text()):
        lines += [_row(leaf) for leaf in value.leaves()]
    return INTRODUCTION + "\n".join(lines) + "\n"


def _row(value: Value) -> str:
    default = "" if value.default in ("", {}, []) else f"`{_shown(value.default)}`"
    among = value.told.get("enum")
    said = value.description + (f" One of {', '.join(f'`{one}`' for one in among if one)}." if among else "")
    return f"| `{'.'.join(value.path)}` | {default} | {said.replace('|', chr(92) + '|')} |"


def _shown(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)


def copies() -> dict[Path, Path]:
    """Files of the repository that the chart carries, by where they go: Helm reads none outside its folder. Copies, for
    links are refused by Argo CD and do not survive every checkout."""
    configs = CHART.parents[1] / "configs"
    found = [*(configs / "grafana").glob("*.json")]
    found += [path for name in ("recording", "alerts") if (path := configs / "prometheus" / f"{name}.yaml").exists()]
    return {CHART / "files" / path.relative_to(configs): path for path in sorted(found)}
