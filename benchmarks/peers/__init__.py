"""Pointsman beside other routers: one upstream, one body, each alone in turn. `python -m benchmarks.peers`."""
