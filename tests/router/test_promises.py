"""The five promises, held against a reference model of a few lines: random fleets, policies, tenants, failures,
detectors that crash and reloads that are bad, in any order."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import yaml
from conftest import egress_blocked
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policies.sensitivity.scanner import Scanner
from router.app import DataApp
from router.decisionlog.chain import Verification
from router.decisionlog.files import chains, lines
from router.decisionlog.writer import LogSettings
from router.http import HttpServer
from router.http.connection import ServerConnection
from router.loading import ConfigurationLoader
from router.service import Service
from router.settings import Settings

LEVELS = ["public", "internal", "confidential", "restricted"]
TENANTS = {"t0": "key-zero", "t1": "key-one"}
WORD, MAIL, CRASH = "極秘カナリア", "canary.person@example.co.jp", "crash the detectors"


# --- the reference model ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """A configuration, as the model needs it."""

    clearances: tuple[int, ...]  # of b0, b1, …; 0 where none is stated
    default: int
    word_label: int
    mail_label: int
    floors: tuple[int, ...]  # of t0, t1
    masks: bool

    def label(self, tenant: int, header: int | None, word: bool, mail: bool, crash: bool) -> int:
        raised = [self.default, self.floors[tenant], header or 0]
        raised += [self.word_label] * word + [self.mail_label] * mail + [len(LEVELS) - 1] * crash
        return max(raised)

    def sent(self, tenant: int, header: int | None, word: bool, mail: bool, crash: bool) -> int:
        """Masking takes addresses away, and nothing else."""
        removes = self.masks and (word or mail) and not crash
        return self.label(tenant, header, word, mail and not removes, crash)

    def allowed(self, label: int) -> set[str]:
        return {f"b{i}" for i, clearance in enumerate(self.clearances) if label <= clearance}


# --- the router ---------------------------------------------------------------------------------------------------

levels = st.integers(0, 3)
setups = st.builds(
    Setup,
    st.lists(levels, min_size=1, max_size=4).map(tuple),
    levels, levels, levels, st.tuples(levels, levels), st.booleans(),
)  # fmt: skip
fails = st.lists(st.sampled_from([None, None, "status_500", "timeout", "connect", "rubbish", "overloaded"]), max_size=4)


def documents(setup: Setup, scripts, spoilt: bool):
    served = {"tier": "cloud", "region": "us", "protocol": "fake", "models": {"chat": {"task": "chat"}}}
    backends = []
    for i, clearance in enumerate(setup.clearances):
        backend = {"name": f"b{i}", **served} | ({"clearance": LEVELS[clearance]} if clearance else {})
        script = [{"fail": fail} if fail else {} for fail in (scripts[i % len(scripts)] if scripts else [])]
        backends.append(backend | ({"script": script} if script else {}))
    rule = {"name": "r", "fallback": {"attempts": 5}} | ({"transform": "pseudonymise"} if setup.masks else {})
    detectors = [
        {"use": "keywords", "words": [WORD], "label": LEVELS[setup.word_label]},
        {"use": "pii", "entities": ["EMAIL_ADDRESS"], "label": LEVELS[setup.mail_label]},
    ]
    sensitivity = {"default": LEVELS[setup.default], "detectors": detectors}
    tenants = [
        {
            "name": name,
            "keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()}],
            "label_floor": LEVELS[setup.floors[i]],
        }
        for i, (name, key) in enumerate(TENANTS.items())
    ]
    head = {"apiVersion": "pointsman/v1"}
    return [
        head | {"kind": "Fleet", "backends": backends},
        head | {"kind": "Policy", "sensitivity": sensitivity, "rules": [rule], **({"rulez": []} if spoilt else {})},
        head | {"kind": "Tenants", "tenants": tenants},
    ]


class Transport(asyncio.Transport):
    """A client's end without a socket: what is written to it is kept."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def close(self):
        pass


async def ask(app, body, headers):
    """One request through the data API: (status, headers, body)."""
    transport, ended = Transport(), asyncio.Event()

    async def handler(request):
        try:
            await app(request)
        finally:
            ended.set()

    raw = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(raw)), "connection": "close", **headers}
    connection = ServerConnection(HttpServer(handler, None))
    connection.connection_made(transport)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.data_received(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode() + raw)
    await ended.wait()
    response = http.client.HTTPResponse(Answer(transport.written))
    response.begin()
    return response.status, dict(response.getheaders()), response.read()


class Answer:
    """Bytes as http.client wants to be given them."""

    def __init__(self, data):
        self._data = data

    def makefile(self, mode):
        return io.BytesIO(self._data)


real_look = Scanner._look


def crashing(self, data, *arguments):
    if CRASH.encode() in data:
        raise RuntimeError("a detector crashed")
    return real_look(self, data, *arguments)


class Promises(RuleBasedStateMachine):
    @initialize(setup=setups, scripts=st.lists(fails, max_size=3))
    def start(self, setup, scripts):
        self.folder = Path(tempfile.mkdtemp(prefix="promises-"))
        self.runner = asyncio.Runner()
        self.patched = mock.patch.object(Scanner, "_look", crashing)
        self.patched.start()
        # The prefilter would spare texts without hits the look, and so the crash.
        self.always = mock.patch.object(Scanner, "_each", lambda s, texts, failed: [
            s._look(t.encode(), s.plain.hits(t.encode()), failed) for t in texts
        ])  # fmt: skip
        self.always.start()
        self.setup, self.answers = setup, b""
        self.write(documents(setup, scripts, False))
        loader = ConfigurationLoader((self.folder / "config.yaml",), {})
        options = Settings(decision_log=LogSettings(self.folder / "log"), default_deadline_s=5, probe_interval_s=1000)
        self.service = Service(loader(), options, loader=loader)
        self.runner.run(self.service.start())
        self.app = DataApp(self.service)

    def write(self, found):
        (self.folder / "config.yaml").write_text(yaml.safe_dump_all(found, allow_unicode=True))

    @rule(setup=setups, scripts=st.lists(fails, max_size=3), spoilt=st.booleans())
    def reload(self, setup, scripts, spoilt):
        """5: a bad policy never goes live."""
        before = self.service.policy.digest
        self.write(documents(setup, scripts, spoilt))
        result = self.runner.run(self.service.reload())
        assert (result.outcome == "refused") is spoilt
        if spoilt:
            assert self.service.policy.digest == before
        else:
            self.setup = setup

    @rule(
        tenant=st.integers(0, 1), header=st.none() | levels, word=st.booleans(), mail=st.booleans(),
        crash=st.booleans(), stream=st.booleans(), declassify=st.none() | levels,
    )  # fmt: skip
    def request(self, tenant, header, word, mail, crash, stream, declassify):
        text = f"hello {WORD if word else ''} {MAIL if mail else ''} {CRASH if crash else ''}"
        headers = {"authorization": f"Bearer {list(TENANTS.values())[tenant]}"}
        if header is not None:
            headers["x-data-sensitivity"] = LEVELS[header]
        if declassify is not None:
            headers |= {"x-declassify": LEVELS[declassify], "x-declassify-reason": "because"}
        calls = {name: len(backend._backend.calls) for name, backend in self.service.backends.items()}
        body = {"model": "chat", "stream": stream, "messages": [{"role": "user", "content": text}]}
        status, found, answer = self.runner.run(ask(self.app, body, headers))
        self.answers += answer if status != 200 else b""
        reached = {n for n, b in self.service.backends.items() if len(b._backend.calls) > calls[n]}
        if declassify is not None:
            assert (status, reached) == (403, set()), "nobody here may declassify"
            return
        label = self.setup.label(tenant, header, word, mail, crash)
        sent = self.setup.sent(tenant, header, word, mail, crash)
        # 1 and 3: the label is the highest of everything known, and doubt is the top.
        assert found["x-pointsman-label"] == LEVELS[label]
        # 2: nothing is sent above clearance, whatever fails on the way.
        assert reached <= self.setup.allowed(sent)
        assert (status == 403) is (not self.setup.allowed(sent))
        for name in reached:
            payload = self.service.backends[name]._backend.calls[-1].body.decode()
            cleared = name in self.setup.allowed(label)
            assert cleared or MAIL not in json.loads(payload)["messages"][0]["content"]

    @rule(key=st.sampled_from(["", "key-two", "KEY-ZERO", "key-zero "[:-1] + "x"]))
    def stranger(self, key):
        status, _, _ = self.runner.run(ask(self.app, {"model": "chat"}, {"authorization": f"Bearer {key}"}))
        assert status == 401

    @invariant()
    def nothing_is_told(self):
        """4: payloads and keys stay out of errors, metrics and the decision log."""
        if not hasattr(self, "service"):
            return
        told = self.answers + self.service.exposition()[0]
        for secret in (WORD, MAIL, *TENANTS.values()):
            assert secret not in told.decode()
        assert egress_blocked(self.service) == 0, "the guard never had to help"

    def teardown(self):
        if not hasattr(self, "service"):
            return
        self.runner.run(self.service.aclose())
        self.runner.close()
        self.patched.stop()
        self.always.stop()
        (files,) = chains([self.folder / "log"]).values()
        written = list(lines(files))
        verification = Verification()
        assert list(verification.walk(written)) == []
        assert not any(secret.encode() in line for line in written for secret in (WORD, MAIL, *TENANTS.values()))
        shutil.rmtree(self.folder)


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
