"""What must hold of any run, whatever broke: looked at from the clients, from the backends' records, and from /proc."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from router.errors import STATUS
from tests.chaos.load import Outcome
from tests.chaos.server import PIECES
from tests.chaos.world import IDLE_S, SECRET, World
from tests.processes import soon

SLACK_S = 0.25
"""Over the deadline. Beside it we forgive twice what our own loop was late meanwhile (`Outcome.lag_s`): on a machine
with too few cores the router waits for its turn as we do."""
SUCCESS = 0.999
UPSTREAM_STATUSES = frozenset((200, 429, 502, 503, 504))
"""What faults of backends may lead to. A 500 would be a defect, a 403 a wrong expectation of these tests."""


def over_deadline_s(outcome: Outcome) -> float:
    """How long after its deadline the answer began, or ended where it is no stream; lag and slack are not yet taken
    off. Negative where it was in time."""
    began = outcome.head_at if outcome.asked.stream and outcome.head_at else outcome.ended_at
    return began - outcome.sent_at - outcome.asked.deadline_s


def problems(outcome: Outcome) -> list[str]:
    """What is wrong with one answer."""
    if outcome.code == "left":
        return []
    found = []
    forgiven = SLACK_S + 2 * outcome.lag_s
    if over_deadline_s(outcome) > forgiven:
        found.append(f"{over_deadline_s(outcome):.3f} s after its deadline")
    if outcome.asked.stream and outcome.longest_pause_s > IDLE_S + forgiven:
        found.append(f"paused for {outcome.longest_pause_s:.3f} s")
    if outcome.broken:
        found.append(f"the connection broke: {outcome.broken}")
    if outcome.answers != 1:
        found.append(f"{outcome.answers} whole answers")
    if outcome.status not in UPSTREAM_STATUSES:
        found.append(f"status {outcome.status}")
    if b"Traceback" in outcome.body:
        found.append("a traceback")
    if outcome.headers.get("x-request-id") != outcome.asked.id:
        found.append("the answer of another request")
    if outcome.status == 200:
        found += _streamed(outcome) if outcome.asked.stream else _whole(outcome)
    elif outcome.status:
        found += _error(outcome.body, outcome.status)
    if outcome.backend and outcome.asked.model == "chat" and outcome.backend not in outcome.asked.allowed:
        found.append(f"answered by {outcome.backend}")
    return found


def _whole(outcome: Outcome) -> list[str]:
    try:
        content = json.loads(outcome.body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ["a 200 whose body is no answer"]
    expected = f"{outcome.backend}|{outcome.asked.id}"
    return [] if content == expected else ["it holds another's answer"]


def _streamed(outcome: Outcome) -> list[str]:
    """Every event from the one backend that the head names, for this request, in order, and a proper end."""
    *events, last = outcome.events or [b""]
    found = []
    for i, event in enumerate(events):
        try:
            content = json.loads(event)["choices"][0]["delta"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return [f"event {i} cannot be read"]
        if content != f"{outcome.backend}|{outcome.asked.id}|{i}":
            found.append(f"event {i} is not its own")
    if last == b"[DONE]":
        return found if len(events) == PIECES else [*found, f"{len(events)} events, and yet it says that it is done"]
    if outcome.code != "stream_broken":
        return [*found, "a stream that ends in the middle without saying so"]
    return found + _error(last, None)


def _error(body: bytes, status: int | None) -> list[str]:
    try:
        error = json.loads(body)["error"]
        shape = {"message", "type", "param", "code"} <= error.keys() and bool(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ["an error that is not of the API's shape"]
    if not shape:
        return ["an error that lacks a field"]
    if status is not None and STATUS.get(error["code"]) != status:
        return [f"code {error['code']} with status {status}"]
    return []


def of_answers(outcomes: Iterable[Outcome]) -> list[str]:
    return [f"{one.asked.id} ({one.status} {one.code}): {what}" for one in outcomes for what in problems(one)]


def of_backends(world: World, outcomes: Iterable[Outcome], since: float) -> list[str]:
    """Whether the backends were asked only what policy lets them be asked, and for every answer there was one."""
    asked = {one.asked.id: one.asked for one in outcomes}
    found = []
    sent: set[tuple[str, str]] = set()
    for backend in world.backends.values():
        for record in backend.records(since):
            request = asked.get(record["id"])
            if record["event"] != "asked":
                continue
            sent.add((backend.name, record["id"]))
            if backend.name == "cloud" and SECRET in record["body"]:
                found.append(f"{record['id']} went to the cloud")
            if request is not None and request.model == "chat" and backend.name not in request.allowed:
                found.append(f"{record['id']}, {request.level}, was sent to {backend.name}")
    for one in outcomes:
        if one.good and one.backend in world.backends and (one.backend, one.asked.id) not in sent:
            found.append(f"{one.asked.id} has an answer of {one.backend}, which was never asked")
    return found


def of_router(world: World) -> list[str]:
    """Whether everything has come to rest: nothing in flight, no client's connection, no half-closed one, and no log
    line of an error inside."""
    found = []
    if not world.lives():
        return ["the router is dead"]
    if not world.calm():
        flight, clients = world.sum("pointsman_in_flight"), world.clients()
        found.append(f"{flight:.0f} in flight and {clients} connections of clients that are gone")
    if not soon(lambda: world.sockets("08") == 0):
        found.append(f"{world.sockets('08')} sockets that the other side has closed are still held")
    if world.sum("pointsman_egress_blocked_total"):
        found.append("the last check had to stop a call")
    said = world.errors()
    found += [f"its log has {word!r}" for word in ("Traceback", "internal error", "never retrieved") if word in said]
    return found


def of_run(world: World, outcomes: list[Outcome], since: float) -> list[str]:
    """All of the above."""
    at_rest = of_router(world)  # first: it waits
    return of_answers(outcomes) + of_backends(world, outcomes, since) + at_rest


def success(outcomes: Iterable[Outcome]) -> tuple[int, int]:
    """(answered well, those that could be) of the requests that policy lets fall back. A stream that had begun when its
    backend died does not count, for nothing may be appended to it; nor does a deadline that this machine would have
    missed with nothing broken."""
    able = [
        one
        for one in outcomes
        if len(one.asked.allowed) > 1
        and one.code not in ("stream_broken", "left")
        and not (one.code == "deadline_exceeded" and 2 * one.lag_s > one.asked.deadline_s)
    ]
    return sum(one.good for one in able), len(able)


def leaks(world: World, before: dict[str, Any]) -> list[str]:
    """What the router holds more of than before, once its backends are new ones, so that no idle connection counts."""
    now = holdings(world)
    # A probe may be on its way, with a task, a connection, and a look at its name.
    within = {"descriptors": 2 * len(world.backends) + 4, "tasks": 8}
    return [
        f"{now[what]} {what}, {before[what]} before"
        for what, more in within.items()
        if not soon(lambda what=what, more=more: holdings(world)[what] <= before[what] + more, 8.0)
    ]


def holdings(world: World) -> dict[str, int]:
    return {"descriptors": world.descriptors(), "tasks": sum(world.tasks().values())}
