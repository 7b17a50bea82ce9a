"""Output for people."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH_IN_A_PIPE = 160


def console() -> Console:
    """As wide as the terminal; in a pipe wide enough that tables are not folded. Names stay as they are:
    `llama[instruct]` is no style."""
    width = None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE
    return Console(width=width, soft_wrap=False, markup=False, emoji=False)
