"""The results as a file, as a table, and as the ratios that count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
README = ROOT / "benchmarks" / "README.md"
_BEGIN, _END = "<!-- peers: written by `make bench WRITE=1` -->", "<!-- end of peers -->"


def save(results: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def ratios(peers: dict[str, Any]) -> dict[str, float]:
    """Of one run. `cpu`: microseconds for each request at 64 clients, ours over theirs; `rps`: requests a second, ours
    over theirs; `p50` at 1 client, `p99` at 64, ours over theirs."""
    found: dict[str, float] = {}

    def ratio(name: str, ours: str, theirs: str, clients: str, figure: str, turned: bool = False) -> None:
        if ours in peers and theirs in peers and peers[ours][clients][figure] and peers[theirs][clients][figure]:
            value = peers[ours][clients][figure] / peers[theirs][clients][figure]
            found[name] = round(1 / value if turned else value, 3)

    ratio("cpu_local_over_vllm", "pointsman-local", "vllm-router", "c64", "cpu_us")
    ratio("rps_local_over_vllm", "pointsman-local", "vllm-router", "c64", "rps")
    ratio("cpu_local_over_nginx", "pointsman-local", "nginx", "c64", "cpu_us")
    ratio("p50_c1_local_over_vllm", "pointsman-local", "vllm-router", "c1", "p50_us")
    ratio("p99_c64_local_over_vllm", "pointsman-local", "vllm-router", "c64", "p99_us")
    ratio("cpu_local_over_sglang", "pointsman-local", "sglang-router", "c64", "cpu_us")
    ratio("cpu_ray_over_local", "pointsman-ray", "pointsman-local", "c64", "cpu_us")
    ratio("rps_ray_over_ray_serve_forwarding", "pointsman-ray", "ray-serve-forwarding", "c64", "rps")
    ratio("rps_ray_over_ray_serve_noop", "pointsman-ray", "ray-serve-noop", "c64", "rps")
    ratio("cpu_litellm_over_local", "pointsman-local", "litellm", "c64", "cpu_us", turned=True)
    ratio("cpu_portkey_over_local", "pointsman-local", "portkey", "c64", "cpu_us", turned=True)
    return found


def table(results: dict[str, Any]) -> str:
    rows = ["| peer | req/s, c=64 | CPU µs/req, c=64 | p50, p99 ms, c=64 | c=16 req/s | p50 µs, c=1 | MiB at rest |",
            "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, one in sorted(results["peers"].items(), key=lambda item: item[1]["c64"]["cpu_us"]):
        most, some, single = one["c64"], one["c16"], one["c1"]
        shown = f"**{name}**" if name.startswith("pointsman") else name
        rows.append(
            f"| {shown} | {most['rps']:,.0f} | {most['cpu_us']:,.1f} | {most['p50_us'] / 1000:.1f}, "
            f"{most['p99_us'] / 1000:.1f} | {some['rps']:,.0f} | {single['p50_us']:,.0f} | {one['rest_mib']:,.0f} |"
        )
    rows += [f"| {name} | skipped: {why} | | | | | |" for name, why in results["skipped"].items()]
    rows += ["", "| ratio | |", "|---|---:|"]
    rows += [f"| `{name}` | {value:,.2f} |" for name, value in results["ratios"].items()]
    for name in ("streaming", "connections", "tensors", "growth", "decide", "scan", "startup", "onnx"):
        if results.get(name):
            rows += ["", f"**{name}**", "", "```json", _compact(results[name]), "```"]
    return "\n".join(rows)


def _compact(value: dict[str, Any]) -> str:
    """One line for each entry."""
    lines = [f" {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in value.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def write(results: dict[str, Any]) -> None:
    text = README.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    README.write_text(f"{before}{_BEGIN}\n\n{table(results)}\n\n{_END}{after}")
