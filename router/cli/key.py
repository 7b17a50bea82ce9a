"""`pointsman key`: a fresh key for a tenant, and what goes into the Tenants document in its place."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys

from router.credentials import digest

_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


def run(arguments: argparse.Namespace) -> int:
    tenant = arguments.tenant
    if tenant is not None and not _NAME.match(tenant):
        print("pointsman key: that is no name of a tenant: use letters, digits, '.', '_' and '-'", file=sys.stderr)
        return 2
    key = f"pm-{secrets.token_urlsafe(_BYTES)}"
    sha256 = digest(key.encode()).hex()
    if arguments.json:
        print(json.dumps({"key": key, "sha256": sha256} | ({"tenant": tenant} if tenant else {})))
        return 0
    print(key)
    print(
        "The key is shown this once. Give it to whoever will use it; the Tenants document gets this:", file=sys.stderr
    )
    if tenant:
        print(f"  - name: {tenant}\n    keys:\n      - {{sha256: {sha256}}}")
    else:
        print(f"      - {{sha256: {sha256}}}")
    return 0
