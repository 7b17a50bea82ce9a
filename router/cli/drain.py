"""`pointsman drain`: what a preStop hook runs."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request

from router.cli.adminapi import Unreadable, token_of


def run(arguments: argparse.Namespace) -> int:
    url = arguments.url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        print(
            f"pointsman drain: {arguments.url} is no URL of an admin port, such as http://127.0.0.1:8001",
            file=sys.stderr,
        )
        return 2
    try:
        token = token_of(arguments)
    except Unreadable as error:
        print(f"pointsman drain: {error}", file=sys.stderr)
        return 1
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    asked = urllib.request.Request(f"{url}/drain", data=b"", headers=headers, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=arguments.timeout) as response:
            left = json.load(response)
    except urllib.error.HTTPError as error:
        hint = "; name its token by --token-env or --token-file" if error.code == 401 else ""
        print(f"pointsman drain: {url}/drain answered {error.code}{hint}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):  # a pod without a router replica must end as well
            print(f"no router listens at {url}: nothing to drain")
            return 0
        print(f"pointsman drain: {url}/drain does not answer ({reason}): requests may be lost", file=sys.stderr)
        return 1
    print(f"{left['replicas']} replica(s) drained, {left['in_progress']} request(s) still in progress")
    return 1 if left["in_progress"] else 0
