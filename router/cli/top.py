"""`pointsman top`: a running router, live."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
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
from router.top.view import View

_WINDOW_S = 15.0
_TIMEOUT_S = 5.0  # for the next bytes
_WHOLE_S = 15.0  # for all of them
_MOST_BYTES = 256 * 1024 * 1024
_HINTS = {
    401: "; name its token by --token-env or --token-file",
    404: "; give the URL of its admin port (8001, unless told)",
}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for the router, and for nobody whom an answer names."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


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
            found = _status(url, Between(readings[0], _read(url, token)))
            if arguments.json:
                print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=2))
            else:
                console().print(View(found), highlight=False)
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
                live.update(View(_latest(url, token, readings)), refresh=True)
            except Unreadable as error:
                live.update(Text(f"{error}\ntrying again every {interval_s:g} s", style="red"), refresh=True)
            time.sleep(interval_s)
    return 0


def _latest(url: str, token: str | None, readings: deque[Reading]) -> Status:
    """Rates over the last seconds: of fewer they would jump about, of more they would lag."""
    readings.append(_read(url, token))
    while len(readings) > 2 and readings[-1].at - readings[1].at > _WINDOW_S:
        readings.popleft()
    return _status(url, Between(readings[0], readings[-1]))


def _status(url: str, between: Between) -> Status:
    try:
        return status(between)
    except (LookupError, ValueError, OverflowError):
        raise Unreadable(f"{url}/metrics has metrics, but not as a router tells them") from None


def _read(url: str, token: str | None) -> Reading:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        asked = urllib.request.Request(f"{url}/metrics", headers=headers)
        with _OPENER.open(asked, timeout=_TIMEOUT_S) as response:
            reading = Reading.of(_whole(response).decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        hint = _HINTS.get(error.code, "")
        raise Unreadable(f"{url}/metrics answered {error.code}{hint}") from None
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        hint = "is the router running, and is this its admin port?"
        raise Unreadable(f"{url}/metrics cannot be read ({reason}): {hint}") from None
    if not reading.samples.get("pointsman_build_info"):
        raise Unreadable(f"{url}/metrics is not a router's: is this its admin port?")
    return reading


def _whole(response: http.client.HTTPResponse) -> bytes:
    """Raises ValueError for more than metrics can be, or slower than they come."""
    until, parts, size = time.monotonic() + _WHOLE_S, [], 0
    while part := response.read1(1024 * 1024):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES or time.monotonic() > until:
            raise ValueError("it does not come to an end")
    if response.length:
        raise ValueError("it broke off")
    return b"".join(parts)
