"""A central ledger in Redis, for several machines or clusters that share budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from policies.quotas import ROUNDING
from router.ledgers.central import LedgerLost
from router.ledgers.leases import GRACE_S, SPREAD, Grant, Report

PREFIX = "pointsman:ledger:"

# The arithmetic of router/ledgers/leases.py, where it is atomic. %.17g keeps every bit of a double.
SCRIPT = """
local replica, seq, last, expires = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local cap, said, held = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local wanted, least, enough = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local spread, slack = tonumber(ARGV[11]), cap * tonumber(ARGV[12])
local before_granted, before_used, before_seq = 0, 0, 0
local gone, others_used, others, count = 0, 0, 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == 'gone' then
    gone = tonumber(all[i + 1])
  else
    local granted, used, its_seq = string.match(all[i + 1], '(%S+) (%S+) (%S+)')
    granted, used = tonumber(granted), tonumber(used)
    if all[i] == 'r:' .. replica then
      before_granted, before_used, before_seq = granted, used, tonumber(its_seq)
    else
      count, others_used, others = count + 1, others_used + used, others + math.max(granted, used)
    end
  end
end
others_used, others = others_used + gone, others + gone
local function answer(granted, used, left)
  return {string.format('%.17g', granted), string.format('%.17g', used), string.format('%.17g', math.max(0, left))}
end
if tonumber(redis.call('TIME')[1]) >= expires then
  return answer(said + math.min(held, wanted), others_used + before_used, 0)
end
if seq <= before_seq then
  return answer(before_granted, others_used + before_used, cap - others - math.max(before_granted, before_used))
end
local used = math.max(before_used, said)
local granted = math.max(before_granted, said + held, used)
local target = used + wanted
if target <= granted then
  granted = target
else
  local left = math.max(0, cap - others - granted)
  local floor, holds = 0, granted - used
  if enough - holds <= left + slack then
    floor = enough - holds
  elseif least - holds <= left + slack then
    floor = least - holds
  end
  granted = granted + math.min(target - granted, left, math.max(left / (spread * (count + 1)), floor))
end
if last then
  redis.call('HDEL', KEYS[1], 'r:' .. replica)
  redis.call('HSET', KEYS[1], 'gone', string.format('%.17g', gone + granted))
else
  redis.call('HSET', KEYS[1], 'r:' .. replica, string.format('%.17g %.17g %d', granted, used, seq))
end
redis.call('EXPIREAT', KEYS[1], math.ceil(expires))
return answer(granted, others_used + (last and granted or used), cap - others - math.max(granted, used))
"""


class RedisLedger:
    """One hash for each account and period, which expires with its period. What survives a crash of Redis is what its
    own persistence keeps (`appendonly yes`); after that, processes that live say what they have used and hold."""

    def __init__(self, url: str) -> None:
        """Connects when first used. No message repeats the URL: it may hold a password."""
        try:
            self._redis = redis.asyncio.Redis.from_url(
                url, socket_connect_timeout=1, socket_timeout=1, retry=Retry(NoBackoff(), 1)
            )
        except ValueError:
            raise OSError("the ledger's URL is not one of Redis: redis://HOST:PORT/NUMBER") from None
        self._script = self._redis.register_script(SCRIPT)

    async def sync(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        task = asyncio.current_task()
        assert task is not None, "whoever awaits this is a task"
        cancelled = task.cancelling()
        try:
            try:
                answers = await self._run(replica, seq, reports)
            except NoScriptError:  # a Redis that has just begun
                await self._redis.script_load(SCRIPT)
                answers = await self._run(replica, seq, reports)
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            raise LedgerLost(f"Redis does not answer ({type(error).__name__})") from None
        finally:
            if task.cancelling() > cancelled:
                # The client sends by `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes just
                # when it is done. Whoever cancelled us waits for our end.
                raise asyncio.CancelledError
        return [Grant(*(float(number) for number in answer)) for answer in answers]

    async def _run(self, replica: str, seq: int, reports: Sequence[Report]) -> list[list[bytes]]:
        """One script for each account, on one connection. If the script is unknown, none of them has run."""
        pipeline = self._redis.pipeline(transaction=False)
        for report in reports:
            numbers = (report.cap, report.used, report.held, report.wanted, report.least, report.enough)
            arguments: tuple[str | int | float, ...] = (
                replica,
                seq,
                int(report.last),
                report.end + GRACE_S,
                *map(repr, numbers),
                SPREAD,
                repr(ROUNDING),
            )
            key = f"{PREFIX}{report.account}@{report.end:.0f}"
            pipeline.evalsha(self._script.sha, 1, key, *arguments)
        found: list[list[bytes]] = await pipeline.execute() if reports else []
        if not reports and not await self._redis.ping():
            raise RedisError("no answer to a ping")
        return found

    async def aclose(self) -> None:
        await self._redis.aclose()
