"""`pointsman top`: a running router, live."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import time
import urllib.error
import urllib.request
from collections import deque

from rich.live import Live
from rich.text import Text

from router.cli.adminapi import Unreadable, token_of
from router.cli.output import console
from router.top.readings import Between, Reading
from router.top.status import Status, status
from router.top.view import view

_WINDOW_S = 15.0
_TIMEOUT_S = 5.0


def run(arguments: argparse.Namespace) -> int:
    url = arguments.url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        print(
            f"pointsman top: {arguments.url} is no URL of an admin port, such as http://127.0.0.1:8001", file=sys.stderr
        )
        return 2
    try:
        token = token_of(arguments)
        readings = deque([_read(url, token)])
        if arguments.once or arguments.json:
            time.sleep(arguments.interval)
            found = status(Between(readings[0], _read(url, token)))
            if arguments.json:
                print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=2))
            else:
                console().print(view(found), highlight=False)
            return 0
        return _watch(url, token, readings, arguments.interval)
    except Unreadable as error:
        print(f"pointsman top: {error}", file=sys.stderr)
        return 1


def _watch(url: str, token: str | None, readings: deque[Reading], interval_s: float) -> int:
    """Until Ctrl-C, over restarts of the router."""
    with contextlib.suppress(KeyboardInterrupt), Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                live.update(view(_latest(url, token, readings)), refresh=True)
            except Unreadable as error:
                live.update(Text(f"{error}\ntrying again every {interval_s:g} s", style="red"), refresh=True)
            time.sleep(interval_s)
    return 0


def _latest(url: str, token: str | None, readings: deque[Reading]) -> Status:
    """Rates over the last seconds: of fewer they would jump about, of more they would lag."""
    readings.append(_read(url, token))
    while len(readings) > 2 and readings[-1].at - readings[1].at > _WINDOW_S:
        readings.popleft()
    return status(Between(readings[0], readings[-1]))


def _read(url: str, token: str | None) -> Reading:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    asked = urllib.request.Request(f"{url}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as response:
            return Reading.of(response.read().decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        hint = "; name its token by --token-env or --token-file" if error.code == 401 else ""
        raise Unreadable(f"{url}/metrics answered {error.code}{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        hint = "is the router running, and is this its admin port?"
        raise Unreadable(f"{url}/metrics cannot be read ({reason}): {hint}") from None
