"""Who may ask, on real sockets: keys, floors, models, usages, declassification, traces; and of a key, nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import tritonclient.http as triton
from conftest import Router
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.registry import BUILDERS
from router.decisionlog.files import chains, lines
from router.decisionlog.writer import LogSettings
from router.loading import ConfigurationLoader
from router.settings import Settings

ACME, LAB, BOSS = "pm-canary-acme-4711-0001", "pm-canary-lab-4711-00002", "pm-canary-boss-4711-0003"
NEXT = "pm-canary-next-4711-0004"
REASON = "canary-reason-4711"


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


CONFIG = """
kind: Fleet
backends:
  - {name: edge, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {prior_ms: 900},
     models: {chat: {task: [chat, completion]}, vec: {task: embedding}}}
  - {name: cloud, tier: cloud, region: us, clearance: internal, protocol: fake, latency: {prior_ms: 5},
     models: {chat: {task: chat, quality: 0.9}}}
---
kind: Policy
sensitivity:
  default: public
  floors: [{match: {model: vec}, label: internal}]
  detectors: [{use: keywords, words: [社外秘], label: confidential}]
rules:
  - {name: of-acme, match: {tenant: acme}, objective: {latency: {weight: 1}}}
  - {name: of-others, objective: {quality: {weight: 1}}}
"""
TENANTS = f"""
---
kind: Tenants
tenants:
  - {{name: acme, keys: [{{sha256: {sha256(ACME)}}}], label_floor: confidential, may_declassify: true}}
  - {{name: lab, keys: [{{env: LAB_KEYS}}], models: [vec, other], usage: {{allow: research, default: research}}}}
  - {{name: boss, keys: [{{sha256: {sha256(BOSS)}}}], may_declassify: true, may_debug: true}}
"""
ENV = {"LAB_KEYS": f"{LAB}\n\n  pm-another-key-of-the-lab \n"}


@pytest.fixture
def router(start_router):
    return start_router(CONFIG + TENANTS, env=ENV)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def error(reply):
    found = reply.json()["error"]
    return found if isinstance(found, str) else found["code"]


# --- keys -------------------------------------------------------------------------------------------------------


def test_a_key_names_the_tenant(router):
    reply = router.chat(headers=bearer(ACME))
    assert (reply.status, reply.backend) == (200, "edge")
    assert reply.headers["x-pointsman-rule"] == "of-acme"
    assert reply.headers["x-pointsman-label"] == "confidential"
    shown = router.call("GET", f"/decisions/{reply.headers['x-pointsman-decision']}", admin=True).json()
    assert shown["tenant"] == "acme"
    assert {"by": "tenant", "label": "confidential"} in shown["raised_by"]
    assert router.chat(headers={"x-api-key": BOSS}).headers["x-pointsman-rule"] == "of-others"
    assert router.chat(headers={"AUTHORIZATION": f"bearer  {BOSS}"}).status == 200
    assert router.chat(headers={**bearer(BOSS), "x-api-key": BOSS}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, bearer(""), bearer("wrong"), bearer(ACME + "x"), bearer(ACME[:-1]), bearer(ACME.upper()),
        bearer(sha256(ACME)), {"authorization": ACME}, {"authorization": f"Basic {ACME}"}, {"x-api-key": ""},
        {"authorization": f"Bearer {ACME}, Bearer {BOSS}"}, bearer("x" * 20_000), {"x-api-key": "é" * 40},
        bearer("a.b.c"),
    ],
)  # fmt: skip
def test_no_good_key_is_401_in_the_clients_protocol(router, headers):
    reply = router.chat(headers=headers)
    assert (reply.status, error(reply)) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "x-pointsman-backend" not in reply.headers
    reply = router.call("POST", "/v2/models/chat/infer", {"inputs": []}, headers)
    assert reply.status == 401
    assert isinstance(reply.json()["error"], str)
    assert not [name for name in ("edge", "cloud") if router.backend(name).calls]


def raw(router, head, body=b""):
    with socket.create_connection(("127.0.0.1", router.port), timeout=5) as connection:
        connection.sendall(head + body)
        said = b""
        while part := connection.recv(65536):
            said += part
        return said


def request_head(*headers, length=0):
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json", "connection: close"]
    return "\r\n".join([*lines, f"content-length: {length}", *headers, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "headers",
    [
        (f"authorization: Bearer {ACME}", f"authorization: Bearer {BOSS}"),
        (f"authorization: Bearer {ACME}", f"Authorization: Bearer {ACME}"),
        (f"x-api-key: {ACME}", f"X-Api-Key: {BOSS}"),
        (f"authorization: Bearer {ACME}", f"x-api-key: {BOSS}"),
        (f"authorization: Basic {ACME}", f"x-api-key: {BOSS}"),
    ],
)
def test_two_credentials_are_refused(router, headers):
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
    assert b" 200 " in raw(router, request_head(headers[0].replace("Basic", "Bearer"), length=len(body)), body)
    said = raw(router, request_head(*headers, length=len(body)), body)
    assert b" 400 " in said.splitlines()[0]
    assert b"stands twice" in said or b"two different credentials" in said
    assert b"4711" not in said


def test_a_strangers_body_is_not_waited_for(router):
    said = raw(router, request_head(length=1000))
    assert b" 401 " in said.splitlines()[0]


def test_what_a_key_opens_and_what_is_open(router):
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert router.call("GET", path).status == 200
    assert router.call("GET", "/readyz").json() == {"ready": True}
    for path in ("/v1/models", "/v1/models/chat", "/v2", "/v2/models/chat", "/v2/models/chat/ready"):
        reply = router.call("GET", path)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), path
    assert router.call("GET", "/v2", headers=bearer(LAB)).status == 200
    assert router.call("GET", "/v2/models/vec", headers=bearer(LAB)).status == 200
    assert router.call("GET", "/v2/models/chat", headers=bearer(LAB)).status == 404
    assert router.call("GET", "/v2/models/chat/ready", headers=bearer(LAB)).status == 404


def test_tenants_cannot_be_told_apart_by_what_a_wrong_key_gets(router):
    answers = {router.chat(headers=bearer(key)).body for key in ("nothing-like-it-at-all", ACME[:-1], LAB + "0")}
    assert len(answers) == 1


def test_refused_credentials_are_counted(router):
    router.chat()
    router.chat(headers=bearer("wrong"))
    router.chat(headers={**bearer(ACME), "x-api-key": BOSS})
    for reason in ("missing", "unknown", "malformed"):
        assert router.count("pointsman_unauthorized_total", reason=reason) == 1
    assert router.count("pointsman_requests_total", outcome="unauthorized") == 2


# --- models and usages ------------------------------------------------------------------------------------------


def test_models_are_listed_and_served_as_the_tenant_may(router):
    assert [m["id"] for m in router.call("GET", "/v1/models", headers=bearer(LAB)).json()["data"]] == ["vec"]
    assert [m["id"] for m in router.call("GET", "/v1/models", headers=bearer(BOSS)).json()["data"]] == ["chat", "vec"]
    assert router.call("GET", "/v1/models/chat", headers=bearer(LAB)).status == 404
    reply = router.chat(headers=bearer(LAB))
    assert (reply.status, error(reply)) == (403, "model_not_allowed")
    assert "GET /v1/models" in reply.json()["error"]["message"]
    assert router.count("pointsman_requests_total", outcome="refused") == 1
    assert router.call("POST", "/v1/embeddings", {"model": "vec", "input": "x"}, bearer(LAB)).status == 200
    reply = router.call("POST", "/v1/embeddings", {"model": "nope", "input": "x"}, bearer(LAB))
    assert (reply.status, error(reply)) == (404, "model_not_found")
    assert "models here: vec" in reply.json()["error"]["message"]


def test_a_usage_that_may_not_be_stated_is_refused(router):
    body = {"model": "vec", "input": "x"}
    reply = router.call("POST", "/v1/embeddings", body, {**bearer(LAB), "x-usage": "commercial"})
    assert (reply.status, error(reply)) == (403, "usage_not_allowed")
    assert router.call("POST", "/v1/embeddings", body, {**bearer(LAB), "x-usage": "research"}).status == 200
    router.call("POST", "/v1/embeddings", body, bearer(LAB))
    usages = [one.decided.request.usage for one in router.service.recent.latest()]
    assert usages == ["commercial", "research", "research"], "the last by default"


# --- labels -----------------------------------------------------------------------------------------------------

WHY = {"x-declassify-reason": REASON}


def test_an_authorised_tenant_lowers_what_detectors_found(router):
    reply = router.chat("社外秘", bearer(BOSS))
    assert (reply.backend, reply.headers["x-pointsman-label"]) == ("edge", "confidential")
    reply = router.chat("社外秘", {**bearer(BOSS), **WHY, "x-declassify": "public"})
    assert (reply.backend, reply.headers["x-pointsman-label"]) == ("cloud", "public")
    shown = router.call("GET", f"/decisions/{reply.headers['x-pointsman-decision']}", admin=True).json()
    assert shown["declassified_from"] == "confidential"
    assert shown["raised_by"][-1] == {"by": "declassified", "label": "public"}
    counted = {"tenant": "boss", "from_label": "confidential", "to_label": "public"}
    assert router.count("pointsman_declassified_total", **counted) == 1


@pytest.mark.parametrize(
    ("key", "more", "label"),
    [
        (ACME, {}, "confidential"),  # its floor
        (BOSS, {"x-data-sensitivity": "restricted"}, "restricted"),  # its own header
    ],
)
def test_declassification_stops_at_floors_and_the_callers_header(router, key, more, label):
    reply = router.chat("社外秘", {**bearer(key), **WHY, **more, "x-declassify": "public"})
    assert (reply.status, reply.headers["x-pointsman-label"]) == (200, label)


def test_who_may_not_declassify_is_refused(router):
    body = {"model": "vec", "input": "x"}
    reply = router.call("POST", "/v1/embeddings", body, {**bearer(LAB), **WHY, "x-declassify": "public"})
    assert (reply.status, error(reply)) == (403, "not_permitted")
    assert "may_declassify" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-declassify": "public"}, {"x-declassify": "public", "x-declassify-reason": ""},
        {"x-declassify": "public", "x-declassify-reason": "x" * 201}, {"x-declassify": "nope", **WHY}, WHY,
        {"x-declassify": "public", "x-declassify-reason": "\x7f"}, {"x-pointsman-trace": "maybe"},
    ],
)  # fmt: skip
def test_doubtful_headers_are_refused(router, headers):
    assert router.chat(headers={**bearer(BOSS), **headers}).status == 400


LEVELS = ["public", "internal", "confidential", "restricted"]
header_values = st.sampled_from([*LEVELS, "nope", "PUBLIC", ""])


@given(
    st.dictionaries(st.sampled_from(["x-data-sensitivity", "x-declassify", "x-usage"]), header_values, max_size=3),
    st.booleans(),
    st.sampled_from(["hello", "社外秘"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_brings_a_label_below_the_tenants_floor(router, headers, reason, text):
    reply = router.chat(text, {**bearer(ACME), **(WHY if reason else {}), **headers})
    assert reply.status in (200, 400)
    if reply.status == 200:
        assert reply.headers["x-pointsman-label"] in ("confidential", "restricted")
        assert reply.backend == "edge"
    assert not router.backend("cloud").calls


# --- traces -----------------------------------------------------------------------------------------------------


def test_a_trace_for_those_who_may(router):
    reply = router.chat(headers={**bearer(BOSS), "x-pointsman-trace": "true"})
    trace = json.loads(base64.b64decode(reply.headers["x-pointsman-trace"]))
    assert (trace["rule"], trace["attempts"][0][0]) == ("of-others", reply.backend)
    assert len(reply.headers["x-pointsman-trace"]) <= 4096
    assert "x-pointsman-trace" not in router.chat(headers=bearer(BOSS)).headers
    refused = router.chat(headers={**bearer(ACME), "x-pointsman-trace": "true"})
    assert (refused.status, error(refused)) == (403, "not_permitted")


def test_a_refusals_trace_comes_as_well(start_router):
    router = start_router(CONFIG.replace("clearance: restricted", "clearance: public") + TENANTS, env=ENV)
    reply = router.chat(headers={**bearer(BOSS), "x-pointsman-trace": "1", "x-data-sensitivity": "restricted"})
    assert reply.status == 403
    assert json.loads(base64.b64decode(reply.headers["x-pointsman-trace"]))["refusal"] == "policy_no_backend"


def test_a_trace_that_is_too_large_says_so(router, monkeypatch):
    monkeypatch.setattr("router.decisionlog.record.MAX_TRACE", 10)
    reply = router.chat(headers={**bearer(BOSS), "x-pointsman-trace": "true"})
    assert reply.headers["x-pointsman-trace"] == "too-large"


# --- real clients -----------------------------------------------------------------------------------------------


def test_the_openai_client(router):
    messages = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key=ACME, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(model="chat", messages=messages)
        assert answer.headers["x-pointsman-label"] == "confidential"
        assert [model.id for model in client.models.list()] == ["chat", "vec"]
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            client.chat.completions.create(model="chat", messages=messages)
        assert wrong.value.code == "unauthorized"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key=LAB, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="chat", messages=messages)
        assert refused.value.code == "model_not_allowed"


def test_the_triton_client(start_router, onnx_models):
    fleet = """
kind: Fleet
backends:
  - {name: edge, tier: edge, region: jp, clearance: restricted, protocol: onnx,
     models: {double: {task: arithmetic, artifact: double.onnx}, echo: {task: text, artifact: echo.onnx}}}
"""
    router = start_router(fleet + TENANTS.replace("[vec, other]", "double"), env=ENV, files=onnx_models)
    client = triton.InferenceServerClient(f"127.0.0.1:{router.port}")
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
    try:
        assert client.is_server_live() and client.is_server_ready()
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer("double", [tensor])
        assert refused.value.status() == "401"
        key = {"Authorization": f"Bearer {LAB}"}
        np.testing.assert_array_equal(client.infer("double", [tensor], headers=key).as_numpy("doubled"), [[2, 4]])
        assert client.get_model_metadata("double", headers=key)["inputs"][0]["name"] == "x"
        assert client.is_model_ready("double", headers=key)
        assert not client.is_model_ready("echo", headers=key)
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer("echo", [tensor], headers={"x-api-key": LAB})
        assert refused.value.status() == "403"
    finally:
        client.close()


# --- nothing of a key anywhere ----------------------------------------------------------------------------------


def test_no_key_is_written_anywhere(start_router, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    router = start_router(CONFIG + TENANTS, env=ENV, decision_log=LogSettings(tmp_path / "log"))
    seen = []
    for key in (ACME, LAB, BOSS, "pm-canary-wrong-4711"):
        for headers in (bearer(key), {"x-api-key": key}, {**bearer(key), "x-api-key": key + "x"}):
            more = {**headers, **WHY, "x-declassify": "public", "x-pointsman-trace": "true"}
            for one in (headers, more):
                seen.append(router.chat("社外秘", one))
                seen.append(router.call("POST", "/v1/embeddings", {"model": "vec", "input": "x"}, one))
    for path in ("/decisions", "/metrics", "/policy"):
        seen.append(router.call("GET", path, admin=True))
    text = " ".join(str(reply.headers) + reply.body.decode() for reply in seen)
    live = router.service.live
    text += caplog.text + repr(live.configuration) + repr(live.identity) + repr(router.service.settings)
    text += repr(ConfigurationLoader((tmp_path,), ENV))
    router.stop()
    router.join()
    (files,) = chains([tmp_path / "log"]).values()
    records = list(lines(files))
    text += " ".join(record.decode() for record in records)
    assert len(records) > 5
    assert any(json.loads(record).get("declassified") == {"from": "confidential", "reason": True} for record in records)
    for secret in ("canary", sha256(ACME), sha256(BOSS), sha256(LAB)):
        assert secret not in text


def test_a_model_name_that_a_caller_invents_is_kept_out_of_views_and_logs(start_router, tmp_path):
    router = start_router(CONFIG, decision_log=LogSettings(tmp_path / "log"))
    invented = "canary-model-4711-" + "x" * 200
    reply = router.chat(model=invented)
    assert reply.status == 404
    assert invented[:80] in reply.json()["error"]["message"]
    assert len(reply.json()["error"]["message"]) < 250
    router.call("POST", f"/v2/models/{invented}/infer", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1],
                                                                    "data": [1]}]})  # fmt: skip
    decisions = router.call("GET", "/decisions", admin=True).body.decode()
    one = router.call("GET", f"/decisions/{reply.headers['x-pointsman-decision']}", admin=True).json()
    assert (one["model"], one["refusal"]["code"]) == ("?", "model_not_found")
    router.stop()
    router.join()
    (files,) = chains([tmp_path / "log"]).values()
    assert "canary" not in decisions + json.dumps(one) + " ".join(line.decode() for line in lines(files))


# --- reload -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "config"
    path.mkdir()

    def write(name, text):
        (path / name).write_text(text.replace("kind: ", "apiVersion: pointsman/v1\nkind: "))

    slow = CONFIG.replace("protocol: fake, latency: {prior_ms: 900}",
                          "protocol: fake, script: [{latency_ms: 30}], latency: {prior_ms: 900}")  # fmt: skip
    write("router.yaml", slow)
    (path / "acme.txt").write_text(ACME + "\n")
    (path / "boss.txt").write_text(BOSS + "\n")
    write(
        "tenants.yaml",
        "kind: Tenants\ntenants:\n"
        "  - {name: acme, keys: [{file: acme.txt}], label_floor: confidential}\n"
        "  - {name: boss, keys: [{file: boss.txt}]}\n",
    )
    return path


@pytest.fixture
def live(folder):
    loader = ConfigurationLoader((folder,), {}, reachable_at="0.0.0.0")
    router = Router(loader(), Settings(), BUILDERS, loader).start()
    yield router
    router.stop()
    router.join()


def reloaded(router):
    return router.call("POST", "/reload", admin=True).json()


def test_keys_change_without_the_policy_changing(folder, live):
    digest = live.service.policy.digest
    (folder / "acme.txt").write_text(f"{ACME}\n{NEXT}\n")
    assert reloaded(live)["outcome"] == "swapped"
    assert live.service.policy.digest == digest
    assert live.chat(headers=bearer(ACME)).status == live.chat(headers=bearer(NEXT)).status == 200
    (folder / "acme.txt").write_text(f"{NEXT}\n")
    assert reloaded(live)["outcome"] == "swapped"
    assert (live.chat(headers=bearer(ACME)).status, live.chat(headers=bearer(NEXT)).status) == (401, 200)
    assert reloaded(live)["outcome"] == "unchanged"


def test_a_key_file_is_watched(folder, live):
    loader = ConfigurationLoader((folder,), {})
    before = loader.stamps(live.service.live.configuration)
    (folder / "acme.txt").write_text(f"{NEXT}\nmore-of-them-here-now\n")
    assert loader.stamps(live.service.live.configuration) != before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "acme.txt").unlink(), "tenants.yaml:4:25: error: the file acme.txt cannot be read"),
        (lambda f: (f / "acme.txt").write_text("\n"), "the file acme.txt is empty"),
        (lambda f: (f / "acme.txt").write_text("pm canary 4711"), "a character that a header cannot carry"),
        (lambda f: (f / "acme.txt").write_text(BOSS), "tenant 'acme' has this key already"),
        (lambda f: (f / "tenants.yaml").unlink(), "no document of kind Tenants, and the router listens on 0.0.0.0"),
    ],
)
def test_bad_keys_are_refused_and_the_old_ones_stay(folder, live, spoil, says):
    spoil(folder)
    told = reloaded(live)
    assert told["outcome"] == "refused"
    assert says in " ".join(told["problems"])
    assert "4711" not in " ".join(told["problems"])
    assert live.chat(headers=bearer(ACME)).headers["x-pointsman-label"] == "confidential"
    assert live.chat().status == 401


def test_rotation_under_load_gives_nobody_anothers_name(folder, live):
    """The two tenants swap keys, again and again: what a key is answered is one tenant's or the other's, whole."""
    stop, wrong, answered = threading.Event(), [], [0]

    def ask(key):
        while not stop.is_set():
            reply = live.chat(headers=bearer(key))
            rule, label = reply.headers.get("x-pointsman-rule"), reply.headers.get("x-pointsman-label")
            answered[0] += 1
            if (reply.status, rule, label) not in {
                (200, "of-acme", "confidential"), (200, "of-others", "public"), (401, None, None)
            }:  # fmt: skip
                wrong.append((reply.status, rule, label))

    with ThreadPoolExecutor(4) as pool:
        for key in (ACME, BOSS, ACME, BOSS):
            pool.submit(ask, key)
        for turn in range(6):
            first, second = (ACME, BOSS) if turn % 2 else (BOSS, ACME)
            (folder / "acme.txt").write_text(first + " \n" * turn)
            (folder / "boss.txt").write_text(second + " \n" * turn)
            assert reloaded(live)["outcome"] in ("swapped", "unchanged")
            assert live.chat(headers=bearer(first)).headers["x-pointsman-rule"] == "of-acme"
            assert live.chat(headers=bearer(second)).headers["x-pointsman-rule"] == "of-others"
        (folder / "boss.txt").write_text(NEXT)
        assert reloaded(live)["outcome"] == "swapped"
        assert live.chat(headers=bearer(second)).status == 401, "an old key stops with the reload"
        stop.set()
    assert not wrong
    assert answered[0] > 50


def test_a_request_in_flight_ends_under_the_tenant_it_began_with(folder, live):
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(live.chat, "hello", bearer(ACME))
        first = live.backend(live.service.state.backends[0].name)
        while not first.calls:
            time.sleep(0.001)
        (folder / "acme.txt").write_text(NEXT)
        assert reloaded(live)["outcome"] == "swapped"
        assert live.chat(headers=bearer(ACME)).status == 401
        answer = pending.result()
    assert (answer.status, answer.headers["x-pointsman-rule"]) == (200, "of-acme")
