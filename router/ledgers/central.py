"""What every central ledger does, and which one a setting names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from router.ledgers.leases import Grant, Report

REDIS = ("redis://", "rediss://", "unix://")


class LedgerLost(Exception):
    """The central ledger did not answer, or could not keep what it was told."""


class CentralLedger(Protocol):
    """Safe to share between tasks. What it grants it has first put where a kill -9 of it does not reach."""

    async def sync(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        """Take reports and answer each, in order. Raises LedgerLost; whether the reports counted is then unknown, and
        does not matter: the next ones say everything again."""
        ...

    async def aclose(self) -> None: ...


def open_central(where: str) -> CentralLedger:
    """Redis for a URL, else a file. Raises OSError where the file cannot be used, or the redis package is missing."""
    if where.startswith(REDIS):
        try:
            from router.ledgers.redis import RedisLedger
        except ImportError:
            raise OSError("a ledger in Redis needs the package `redis`: pip install 'pointsman[redis]'") from None
        return RedisLedger(where)
    from router.ledgers.file import FileLedger

    return FileLedger(Path(where))
