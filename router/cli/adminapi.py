"""What commands that ask a running router's admin port share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class Unreadable(Exception):
    """Why there is no answer."""


def token_of(arguments: argparse.Namespace) -> str | None:
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env, "")
        if not token:
            raise Unreadable(f"the environment variable {arguments.token_env} is not set")
        return token.split()[0]
    if arguments.token_file is not None:
        try:
            return Path(arguments.token_file).read_text().split()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            raise Unreadable(f"no token can be read from {arguments.token_file}") from None
    return None
