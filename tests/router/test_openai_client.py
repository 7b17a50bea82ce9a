"""The real `openai` client, unchanged, against a router."""

from __future__ import annotations

import openai
import pytest

CONFIG = """
kind: Fleet
backends:
  - name: onprem
    tier: onprem
    region: jp
    clearance: confidential
    protocol: fake
    script: [{text: "こんにちは from the server room", chunks: 5}]
    models: {chat: {task: [chat, completion]}, embed: {task: embedding}}
  - name: cloud
    tier: cloud
    region: us
    clearance: internal
    protocol: fake
    script: [{text: "hello from the cloud"}]
    models: {chat: {task: chat}}
    latency: {prior_ms: 5}
    price: {input_per_mtok: 1, output_per_mtok: 2}
"""


@pytest.fixture
def client(start_router):
    router = start_router(CONFIG)
    client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="any", max_retries=0)
    client.router = router
    yield client
    client.close()


def test_chat(client):
    answer = client.chat.completions.with_raw_response.create(
        model="chat", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-request-id": "my-id"}
    )
    completion = answer.parse()
    # The client's own priors say cloud; the cost term says on-prem, which has no price.
    assert completion.choices[0].message.content in ("hello from the cloud", "こんにちは from the server room")
    assert completion.usage is not None and completion.usage.prompt_tokens == 10
    headers = answer.headers
    assert headers["x-request-id"] == "my-id"
    assert headers["x-pointsman-schema"] == "1"
    assert headers["x-pointsman-rule"] == "default"
    assert headers["x-pointsman-label"] == "internal"
    assert headers["x-pointsman-attempts"] == "1"
    assert headers["x-pointsman-tier"] in ("onprem", "cloud")
    assert float(headers["x-pointsman-cost-usd"]) >= 0


def test_streamed_chat_arrives_in_pieces(client):
    stream = client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        extra_headers={"x-data-sensitivity": "confidential"},
    )
    pieces = [chunk.choices[0].delta.content for chunk in stream]
    assert len(pieces) == 5
    assert "".join(pieces) == "こんにちは from the server room"
    assert stream.response.headers["x-pointsman-backend"] == "onprem"


def test_completions(client):
    assert client.completions.create(model="chat", prompt="hi").choices[0].text == "こんにちは from the server room"


def test_embeddings(client):
    answer = client.embeddings.create(model="embed", input=["a", "b"], encoding_format="float")
    assert answer.data[0].embedding == [0.25, -0.5]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["chat", "embed"]
    assert client.models.retrieve("chat").owned_by == "pointsman"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_errors_are_the_clients_own(client):
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="chta", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="chat", messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(
            model="chat", messages=messages, extra_headers={"x-data-sensitivity": "restricted"}
        )
    assert refused.value.code == "policy_no_backend"
    assert "clearance" in refused.value.message


def test_metrics_show_where_requests_went_and_how_long_deciding_took(client):
    router = client.router
    client.embeddings.create(model="embed", input="a", encoding_format="float")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="chat", messages=[])
    ok = {"backend": "onprem", "tier": "onprem", "rule": "default", "outcome": "ok", "task": "embedding"}
    assert router.count("pointsman_requests_total", **ok) == 1
    assert router.count("pointsman_requests_total", outcome="client_error", backend="") == 1
    assert router.count("pointsman_decision_seconds_count") == 1
    assert 0 < router.count("pointsman_decision_seconds_sum") < 1
    assert router.count("pointsman_in_flight") == 0
