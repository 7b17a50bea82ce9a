"""Hot reload: whole or not at all, under load, with nothing lost; and a candidate policy beside the live one."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Router

from backends.registry import BUILDERS
from router.decisionlog.files import chains, lines
from router.decisionlog.writer import LogSettings
from router.live import Live
from router.loading import ConfigurationLoader
from router.settings import Settings
from router.watch import tell, watch

FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: a, tier: edge, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: PRIOR_A}}
  - {name: b, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: 100}, script: [{latency_ms: SLOW_B, chunk_delay_ms: SLOW_B}]}
"""
POLICY = """apiVersion: pointsman/v1
kind: Policy
rules:
  - {name: RULE, objective: {quality: {weight: 1}}, split: {weights: {FIRST: 1}}}
"""


ONNX = "  - {name: c, tier: edge, region: jp, protocol: onnx, models: {m: {task: t, artifact: no.onnx}}}\n"


class Folder:
    """A configuration on disk that a test rewrites."""

    def __init__(self, path):
        self.path = path
        self.fleet()
        self.policy()

    def fleet(self, prior_a=50, slow_b=0, more=""):
        text = FLEET.replace("PRIOR_A", str(prior_a)).replace("SLOW_B", str(slow_b)) + more
        (self.path / "fleet.yaml").write_text(text)

    def policy(self, first="a", rule="r1", more=""):
        (self.path / "policy.yaml").write_text(POLICY.replace("FIRST", first).replace("RULE", rule) + more)

    def test(self, backend):
        (self.path / "policy_test.yaml").write_text(
            "apiVersion: pointsman/v1\nkind: PolicyTest\ntests:\n"
            f"  - {{name: goes home, request: {{model: chat}}, expect: {{backend: {backend}}}}}\n"
        )


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "config"
    path.mkdir()
    return Folder(path)


@pytest.fixture
def start(folder):
    routers = []

    def start(candidate=None, **settings):
        loader = ConfigurationLoader((folder.path,), {}, candidate=candidate)
        router = Router(loader(), Settings(**settings), BUILDERS, loader).start()
        routers.append(router)
        return router

    yield start
    for router in routers:
        router.stop()
    router.join()


def reload(router):
    return router.call("POST", "/reload", admin=True)


def outcome(router):
    reply = reload(router)
    return reply.json()["outcome"]


# --- one reload -----------------------------------------------------------------------------------------------------


def test_a_changed_policy_is_swapped_in(folder, start):
    router = start()
    before = router.service.policy.digest
    assert router.chat().backend == "a"
    folder.policy("b", "r2")
    reply = reload(router)
    assert (reply.status, reply.json()["outcome"]) == (200, "swapped")
    answer = router.chat()
    assert (answer.backend, answer.headers["x-pointsman-rule"]) == ("b", "r2")
    decision = router.call("GET", f"/decisions/{answer.headers['x-pointsman-decision']}", admin=True).json()
    assert decision["policy"] == router.service.policy.digest == reply.json()["policy"] != before
    assert router.count("pointsman_reloads_total", outcome="swapped") == 1
    assert router.count("pointsman_policy_info", digest=before) == 0
    assert router.count("pointsman_policy_info", digest=decision["policy"]) == 1


def test_nothing_changed_is_nothing_done(folder, start):
    router = start()
    live = router.service.live
    (folder.path / "policy.yaml").write_text("# a comment\n" + (folder.path / "policy.yaml").read_text())
    assert outcome(router) == "unchanged"
    assert router.service.live is live


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.policy("nobody"), "the fleet has no backend 'nobody'"),
        (lambda f: f.policy(more="rulez: []\n"), "unknown field 'rulez'"),
        (lambda f: (f.path / "policy.yaml").write_text("{"), "not valid YAML"),
        (lambda f: (f.path / "fleet.yaml").unlink(), "no document of kind Fleet"),
        (lambda f: f.policy("b") or f.test("a"), "the test 'goes home' fails: backend: expected a, got b"),
        (lambda f: (f.path / "policy_test.yaml").write_text("{"), "not valid YAML"),
        (lambda f: f.fleet(more=ONNX), "no file no.onnx"),
    ],
)
def test_a_bad_configuration_is_refused_and_the_old_one_stays(folder, start, caplog, spoil, says):
    folder.test("a")
    router = start()
    digest = router.service.policy.digest
    spoil(folder)
    reply = reload(router)
    assert (reply.status, reply.json()["outcome"], reply.json()["policy"]) == (409, "refused", digest)
    assert says in " ".join(reply.json()["problems"])
    assert says in caplog.text
    assert f"policy {digest} stays" in caplog.text
    assert router.chat().backend == "a"
    assert router.count("pointsman_reloads_total", outcome="refused") == 1
    assert router.count("pointsman_configuration_stale") == 1
    folder.fleet()
    folder.policy("b")
    folder.test("b")
    assert outcome(router) == "swapped", "and what is good again is taken"


def test_a_model_that_does_not_load_is_refused(folder, start):
    router = start()
    (folder.path / "no.onnx").write_bytes(b"not a model")
    folder.fleet(more=ONNX)
    reply = reload(router)
    assert reply.json()["outcome"] == "refused"
    assert "c: cannot load" in reply.json()["problems"][0]
    assert router.chat().status == 200


def test_what_did_not_change_goes_on_as_it_was(folder, start):
    router = start()
    router.chat()
    kept, changed = router.backend("a"), router.backend("b")
    latency = router.service.state._whole[0].average_ms
    assert latency is not None
    folder.fleet(slow_b=1)
    assert outcome(router) == "swapped"
    assert router.backend("a") is kept
    assert router.backend("b") is not changed
    assert router.service.state._whole[0].average_ms == latency
    folder.fleet(prior_a=51, slow_b=1)
    assert outcome(router) == "swapped"
    assert router.backend("a") is not kept, "another setting is another backend"


def test_requests_under_the_old_policy_end_under_it(folder, start):
    folder.fleet(slow_b=300)
    folder.policy("b", "old")
    router = start()
    old: Live = router.service.live
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(router.chat)
        while not old.state.backends[1].in_flight:
            time.sleep(0.005)
        folder.policy("a", "new")
        folder.fleet(slow_b=0)
        assert outcome(router) == "swapped"
        assert router.chat().headers["x-pointsman-rule"] == "new"
        answer = pending.result()
    assert (answer.status, answer.backend, answer.headers["x-pointsman-rule"]) == (200, "b", "old")


def test_streams_survive_a_reload(folder, start):
    folder.fleet(slow_b=50)
    folder.policy("b")
    router = start()
    with ThreadPoolExecutor(4) as pool:
        pending = [pool.submit(router.chat, stream=True) for _ in range(4)]
        time.sleep(0.08)
        folder.fleet(slow_b=0)
        folder.policy("a")
        assert outcome(router) == "swapped"
        assert all(one.result().body.endswith(b"data: [DONE]\n\n") for one in pending)


def test_in_flight_counts_go_on_over_a_reload(folder, start):
    folder.fleet(slow_b=200)
    folder.policy("b")
    router = start()
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(router.chat) for _ in range(3)]
        while router.service.state.backends[1].in_flight < 3:
            time.sleep(0.005)
        folder.policy("b", "other")
        assert outcome(router) == "swapped"
        assert router.service.state.backends[1].in_flight == 3
        assert all(one.result().status == 200 for one in pending)
    assert router.service.state.backends[1].in_flight == 0


def test_budgets_go_on_counting_over_a_reload(folder, start):
    limit = "limits: [{name: few, requests: 3, per: hour}]\n"
    folder.policy(more=limit)
    router = start()
    assert [router.chat().status for _ in range(2)] == [200, 200]
    folder.policy("b", more=limit)
    assert outcome(router) == "swapped"
    assert [router.chat().status for _ in range(3)] == [200, 429, 429]


# --- under load -----------------------------------------------------------------------------------------------------


def test_twenty_reloads_a_third_of_them_bad_during_two_thousand_requests(folder, start):
    folder.fleet(slow_b=20)
    router = start()
    valid = {router.service.policy.digest}
    answers, errors = [], []
    remaining = itertools.count()

    def client():
        while next(remaining) < 2000:
            try:
                answers.append(router.chat())
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    outcomes = []
    for i in range(20):
        if i % 3 == 2:
            folder.policy("nobody", f"bad{i}")
        else:
            folder.policy("ab"[i % 2], f"good{i}")
        found = reload(router).json()
        outcomes.append(found["outcome"])
        valid.add(found["policy"])
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert outcomes == ["swapped", "swapped", "refused"] * 6 + ["swapped", "swapped"]
    assert errors == []
    assert len(answers) == 2000
    assert {answer.status for answer in answers} == {200}
    rules = {answer.headers["x-pointsman-rule"] for answer in answers}
    assert not any(rule.startswith("bad") for rule in rules)
    assert len(rules) > 5
    assert len(valid) == 15
    for decided, _ in router.service.recent.latest():
        assert decided.decision.policy in valid
        assert decided.decision.rule in {rule.name for rule in decided.policy.rules}
    assert all(state.in_flight == 0 for state in router.service.state.backends)


# --- watching -------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_taken_up_by_itself_also_an_included_one(folder, start):
    (folder.path / "words.txt").write_text("秘密\n")
    more = "sensitivity: {detectors: [{use: keywords, words: {include: words.txt}, label: restricted}]}\n"
    folder.policy(more=more)
    router = start()
    loader = router.service._loader
    task = asyncio.run_coroutine_threadsafe(watch(router.service, loader, 0.05), router.loop)

    def until(condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    assert router.chat("極秘").headers["x-pointsman-label"] == "internal"
    (folder.path / "words.txt").write_text("秘密\n極秘\n")
    until(lambda: router.chat("極秘").headers["x-pointsman-label"] == "restricted")
    folder.policy("b", more=more)
    until(lambda: router.chat().backend == "b")
    folder.policy("nobody")
    until(lambda: router.count("pointsman_reloads_total", outcome="refused"))
    time.sleep(0.3)
    assert router.count("pointsman_reloads_total", outcome="refused") == 1, "not tried again until something changes"
    task.cancel()


def test_a_terminal_that_serves_nothing_itself_is_told_of_changes(folder):
    loader = ConfigurationLoader((folder.path,), {})
    said, stop = [], threading.Event()
    thread = threading.Thread(target=tell, args=(loader, loader(), 0.02, stop, said.append))
    thread.start()

    def until(count):
        deadline = time.monotonic() + 10
        while len(said) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    folder.policy("nobody")
    until(1)
    folder.policy("b")
    until(2)
    stop.set()
    thread.join()
    assert "reload refused" in said[0] and "the fleet has no backend 'nobody'" in said[0]
    assert "is good, and goes live" in said[1]


def test_tests_of_other_configurations_are_left_out(folder, start):
    other = folder.path / "other"
    other.mkdir()
    (other / "fleet.yaml").write_text((folder.path / "fleet.yaml").read_text())
    (folder.path / "other_test.yaml").write_text(
        "apiVersion: pointsman/v1\nkind: PolicyTest\nconfiguration: [other/fleet.yaml]\ntests:\n"
        "  - {name: not here, request: {model: chat}, expect: {backend: b}}\n"
    )
    assert start().chat().status == 200


# --- a candidate ----------------------------------------------------------------------------------------------------


def test_a_candidate_decides_beside_and_sends_nothing(folder, start, tmp_path):
    candidate = tmp_path / "next.yaml"
    candidate.write_text(POLICY.replace("FIRST", "b").replace("RULE", "next"))
    router = start(candidate, decision_log=LogSettings(tmp_path / "log"), candidate_sample=1.0)
    replies = [router.chat() for _ in range(5)]
    assert {reply.backend for reply in replies} == {"a"}
    shown = router.call("GET", "/decisions", admin=True).json()["decisions"]
    assert [one["outcome"]["outcome"] for one in shown] == ["ok"] * 5
    assert router.count("pointsman_candidate_decisions_total", live_backend="a", candidate_backend="b") == 5
    assert len(router.backend("b").calls) == 0
    candidate.write_text(POLICY.replace("FIRST", "a").replace("RULE", "agrees"))
    assert outcome(router) == "swapped"
    router.chat()
    assert router.count("pointsman_candidate_decisions_total", live_backend="a", candidate_backend="a") == 1
    router.stop()
    router.join()
    (files,) = chains([tmp_path / "log"]).values()
    records = [json.loads(line) for line in lines(files)]
    differing = [record["candidate"] for record in records if "candidate" in record]
    assert len(differing) == 5
    assert differing[0]["decision"]["rule"] == "next"


def test_a_decision_whose_candidate_takes_long_is_shown_and_is_written_when_the_router_stops(
    folder, start, tmp_path, monkeypatch
):
    candidate = tmp_path / "next.yaml"
    candidate.write_text(POLICY.replace("FIRST", "b"))
    go_on = threading.Event()
    monkeypatch.setattr("router.candidate.compare", lambda *_: go_on.wait(10) and None)
    router = start(candidate, decision_log=LogSettings(tmp_path / "log"))
    # One more than there are threads: it is not even begun.
    asked = [router.chat("word " * 30_000).headers["x-pointsman-decision"] for _ in range(5)]

    shown = router.call("GET", "/decisions", admin=True).json()["decisions"]
    assert [(one["id"], one["outcome"]["outcome"]) for one in shown] == [(id, "ok") for id in reversed(asked)]
    threading.Timer(0.3, go_on.set).start()
    router.stop()
    router.join()
    (files,) = chains([tmp_path / "log"]).values()
    assert sorted(json.loads(line).get("id", "") for line in lines(files)) == ["", "", *sorted(asked)]


def test_a_candidate_reads_the_headers_by_its_own_levels_and_its_own_list(folder, start, tmp_path):
    candidate = tmp_path / "next.yaml"
    candidate.write_text(
        "apiVersion: pointsman/v1\nkind: Policy\nheaders: [x-team]\n"
        "sensitivity: {levels: [public, minor, internal, confidential, restricted], default: public}\n"
        "rules:\n"
        "  - {name: vision, match: {headers: {x-team: vision}}, split: {weights: {b: 1}}}\n"
        "  - {name: high, match: {label: [confidential]}, split: {weights: {b: 1}}}\n"
        "  - {name: rest, split: {weights: {a: 1}}}\n"
    )
    router = start(candidate)

    def compared(**labels):
        return router.count("pointsman_candidate_decisions_total", live_backend="a", **labels)

    router.chat(headers={"x-data-sensitivity": "internal"})
    assert (compared(candidate_backend="a"), compared(candidate_backend="b")) == (1, 0)
    router.chat(headers={"x-data-sensitivity": "confidential"})
    router.chat(headers={"x-team": "vision"})
    assert (compared(candidate_backend="a"), compared(candidate_backend="b")) == (1, 2)
    candidate.write_text(
        "apiVersion: pointsman/v1\nkind: Policy\n"
        "sensitivity: {levels: [public, internal, restricted], default: public}\n"
        "rules: [{name: rest, split: {weights: {a: 1}}}]\n"
    )
    assert outcome(router) == "swapped"
    router.chat(headers={"x-data-sensitivity": "confidential"})
    assert compared(candidate_backend="refused") == 1, "it knows no such level"


def test_a_bad_candidate_does_not_start_and_is_not_swapped_in(folder, start, tmp_path):
    from policies.errors import ConfigurationError

    candidate = tmp_path / "next.yaml"
    candidate.write_text(POLICY.replace("FIRST", "nobody").replace("RULE", "next"))
    with pytest.raises(ConfigurationError, match="the fleet has no backend 'nobody'"):
        start(candidate)
    candidate.write_text(POLICY.replace("FIRST", "b").replace("RULE", "next"))
    router = start(candidate)
    candidate.write_text("{")
    assert outcome(router) == "refused"
    router.chat()
    assert router.count("pointsman_candidate_decisions_total", candidate_backend="b") == 1
