"""The demo's servers, through the clients people use."""

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.demo import embedding_server
from router.demo.processes import Processes, free_port

openai = pytest.importorskip("openai")

KEY = "a-key-for-the-tests"


@dataclass(frozen=True)
class Servers:
    llm: str
    embedding: str


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    llm, embedding = free_port(), free_port()
    with Processes() as processes:
        arguments = ("--port", llm, "--alias", "chat", "--threads", 1, "--slots", 2)
        processes.start("llm", "router.demo.llm_server", *arguments, env={"POINTSMAN_DEMO_KEY": KEY})
        processes.start("embedding", "router.demo.embedding_server", "--port", embedding, "--alias", "embed")
        processes.wait_ready("llm", f"http://127.0.0.1:{llm}/health")
        processes.wait_ready("embedding", f"http://127.0.0.1:{embedding}/health")
        yield Servers(f"http://127.0.0.1:{llm}/v1", f"http://127.0.0.1:{embedding}/v1")
        assert set(processes.running()) == {"llm", "embedding"}


def _client(url: str, key: str = KEY) -> Any:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)


QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.mark.models
def test_the_llm_answers(servers: Servers) -> None:
    answer = _client(servers.llm).chat.completions.create(model="chat", messages=QUESTION, max_tokens=24, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0
    assert answer.model == "chat"


@pytest.mark.models
def test_the_llm_streams(servers: Servers) -> None:
    stream = _client(servers.llm).chat.completions.create(
        model="chat",
        messages=QUESTION,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    events = list(stream)
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert "Paris" in text
    assert len(events) > 3
    assert events[-1].usage.completion_tokens > 0


@pytest.mark.models
def test_the_llm_refuses_a_wrong_key(servers: Servers) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        _client(servers.llm, "not-the-key").chat.completions.create(model="chat", messages=QUESTION)
    assert refused.value.status_code == 401
    assert KEY not in str(refused.value)


@pytest.mark.models
def test_likeness_of_meaning(servers: Servers) -> None:
    sentences = ["A cat sat on the mat.", "The kitten was sitting on a rug.", "Share prices fell sharply today."]
    # No encoding_format: this client then asks for base64 and decodes it.
    answer = _client(servers.embedding).embeddings.create(model="embed", input=sentences)
    vectors = np.array([entry.embedding for entry in answer.data], dtype=np.float32)
    assert vectors.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens


@pytest.mark.models
def test_both_encodings_hold_the_same_vector(servers: Servers) -> None:
    embeddings = _client(servers.embedding).embeddings
    by_default = embeddings.create(model="embed", input="hello world")
    as_floats = embeddings.create(model="embed", input="hello world", encoding_format="float")
    np.testing.assert_allclose(by_default.data[0].embedding, as_floats.data[0].embedding, atol=1e-7)
    assert by_default.usage.prompt_tokens == as_floats.usage.prompt_tokens == 2


@pytest.mark.models
def test_padding_changes_neither_vector_nor_usage(servers: Servers) -> None:
    embeddings = _client(servers.embedding).embeddings
    alone = embeddings.create(model="embed", input=["hello"])
    beside = embeddings.create(model="embed", input=["hello", "a much longer sentence than that one"])
    longer = embeddings.create(model="embed", input=["a much longer sentence than that one"])
    np.testing.assert_allclose(alone.data[0].embedding, beside.data[0].embedding, atol=1e-6)
    assert beside.usage.prompt_tokens == alone.usage.prompt_tokens + longer.usage.prompt_tokens


@pytest.mark.models
def test_fewer_dimensions_are_a_cut_of_the_full_vector(servers: Servers) -> None:
    embeddings = _client(servers.embedding).embeddings
    full = np.array(embeddings.create(model="embed", input="hello").data[0].embedding)
    short = np.array(embeddings.create(model="embed", input="hello", dimensions=64).data[0].embedding)
    np.testing.assert_allclose(short, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)


@pytest.mark.models
def test_the_embedding_server_lists_its_model(servers: Servers) -> None:
    assert [model.id for model in _client(servers.embedding).models.list()] == ["embed"]


@pytest.mark.models
@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        (b"not json", 400, None, "the body is not JSON"),
        (b"[]", 400, None, "the body must be a JSON object"),
        (b'{"input": "x"}', 400, "model", "model must be a string"),
        (b'{"model": "other", "input": "x"}', 404, "model", "no model 'other' here, only 'embed'"),
        (b'{"model": "embed"}', 400, "input", "input must be a string or a list of strings"),
        (b'{"model": "embed", "input": []}', 400, "input", "input must be a string or a list of strings"),
        (b'{"model": "embed", "input": [1, 2]}', 400, "input", "input must be a string or a list of strings"),
        (b'{"model": "embed", "input": ["a", ""]}', 400, "input", "input 1 has 0 tokens"),
        (b'{"model": "embed", "input": "a", "dimensions": 7}', 400, "dimensions", "must be one of 64, 128"),
        (b'{"model": "embed", "input": "a", "encoding_format": "x"}', 400, "encoding_format", "'float' or"),
        (json.dumps({"model": "embed", "input": "a " * 9000}).encode(), 400, "input", "input 0 has 9"),
        (json.dumps({"model": "embed", "input": ["a"] * 2049}).encode(), 400, "input", "more than 2048"),
        (b" " * (embedding_server.MAX_BODY + 1), 413, None, "the body is larger than"),
    ],
)
def test_a_bad_request_is_refused_in_openai_shape(
    servers: Servers, body: bytes, status: int, param: str | None, message: str
) -> None:
    request = urllib.request.Request(f"{servers.embedding}/embeddings", body)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    error = json.loads(refused.value.read())["error"]
    assert refused.value.code == status
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


@pytest.mark.models
@pytest.mark.parametrize(
    ("module", "more"), [("router.demo.llm_server", ("--alias", "x")), ("router.demo.embedding_server", ())]
)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_cleanly_on_a_signal(module: str, more: tuple[str, ...], ending: signal.Signals) -> None:
    port = free_port()
    with Processes() as processes:
        pid = processes.start("s", module, "--port", port, *more, ready_url=f"http://127.0.0.1:{port}/health")
        os.kill(pid, ending)
        assert processes._children["s"].process.wait(5) == 0
        assert "Traceback" not in processes.tail("s")


@pytest.mark.models
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_of_the_chat_server_can_be_killed_by_the_signal_that_ends_it() -> None:
    """A signal may come after the server's first answer and before the main thread waits for it."""
    port = free_port()
    with Processes() as processes:
        url = f"http://127.0.0.1:{port}/health"
        pid = processes.start("s", "router.demo.llm_server", "--port", port, "--alias", "x", ready_url=url)
        others = [task for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid]
        blocked = [int(re.findall(r"^SigBlk:\s*(\w+)", (t / "status").read_text(), re.M)[0], 16) for t in others]
    assert len(blocked) > 2
    for ending in (signal.SIGTERM, signal.SIGINT):
        assert all(mask >> (ending - 1) & 1 for mask in blocked)
