"""A real Prometheus on loopback, and what it answers. Started and ended by its pid; its data is in a folder of the
caller's."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import yaml

from router.demo.processes import free_port
from tests.processes import end
from tests.prometheus.expressions import ALERTS, RECORDING, RULES

MISSING = next((f"{name} is not installed" for name in ("prometheus", "promtool") if not shutil.which(name)), "")
"""Why the tests that need it are skipped; empty where they run."""
Series = list[tuple[dict[str, str], list[float]]]
"""Of an answer: labels, and values over time."""


class Prometheus:
    """Scrapes one router every second, by the configuration that we ship, and evaluates its rules as often."""

    def __init__(self, folder: Path, admin_port: int) -> None:
        self.port, self.target = free_port(), f"127.0.0.1:{admin_port}"
        self._folder, self._log = folder, folder / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RECORDING), str(ALERTS)]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [self.target]}]
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_ready(30)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, 10)

    def _wait_ready(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, self._log.read_text()[-2000:]
            try:
                if self._call("/-/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"Prometheus was not ready within {within_s:g} s\n{self._log.read_text()[-2000:]}")

    def _call(self, path: str, **parameters: object) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                "POST" if parameters else "GET",
                path,
                urlencode(parameters),
                {"content-type": _FORM} if parameters else {},
            )
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def api(self, path: str, **parameters: object) -> Any:
        status, body = self._call(f"/api/v1/{path}", **parameters)
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", f"{path} {parameters}: {answer.get('error')}"
        return answer["data"]

    def now(self, expr: str) -> Series:
        found = self.api("query", query=expr)
        if found["resultType"] == "scalar":
            return [({}, [float(found["result"][1])])]
        return [(one["metric"], [float(one["value"][1])]) for one in found["result"]]

    def over(self, expr: str, seconds: float, step_s: float = 1.0) -> Series:
        """The latest `seconds`."""
        end = time.time()
        found = self.api("query_range", query=expr, start=end - seconds, end=end, step=step_s)
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found["result"]]

    def label_values(self, query: str) -> list[str]:
        """Of Grafana's `label_values(selector, label)`, what it asks Prometheus then."""
        selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
        _, body = self._call(f"/api/v1/label/{label}/values?{urlencode({'match[]': selector})}")
        return [str(one) for one in json.loads(body)["data"]]

    def rules(self) -> list[dict[str, Any]]:
        _, body = self._call("/api/v1/rules")
        return [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]


_FORM = "application/x-www-form-urlencoded"
