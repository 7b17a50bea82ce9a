"""Builds the image without a container engine, and starts what it holds (`make image-proof`).

Every COPY and RUN of the Dockerfile is carried out as it stands, in its order and at its paths: in a mount namespace,
where /src, /opt, /tmp and /etc are fresh folders and /usr/local is the Python that --python names. Then the router is
started as the image would start it: as its user, with its environment, where it can write to /tmp alone. What this
cannot show is the base image itself. Needs Linux, root (for the mounts), and a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: one, tier: edge, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}}}
"""
HIDDEN = ("/src", "/opt", "/tmp", "/etc")
BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": "/root"}


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def context(into: Path) -> None:
    """What .dockerignore lets through: the last pattern that matches decides."""
    patterns = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            glob = re.escape(line.lstrip("!").rstrip("/")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            patterns.append((re.compile(rf"{glob}(/.*)?"), not line.startswith("!")))
    for path in sorted(ROOT.rglob("*")):
        name = str(path.relative_to(ROOT))
        if name.startswith((".git", ".venv")) or not path.is_file():
            continue
        ignored = False
        for pattern, ignores in patterns:
            if pattern.fullmatch(name):
                ignored = ignores
        if not ignored:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into / name)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


class Build:
    def __init__(self, work: Path, python: Path, given: dict[str, str]) -> None:
        self.work, self.given = work, given
        self.arguments: dict[str, str] = {}  # before the first stage
        self.environment: dict[str, str] = {}
        self.folder, self.user, self.health, self.entrypoint = "/", "0:0", [""], [""]
        self.stages = 0
        mount("--bind", python, "/usr/local")
        for path in ("/src", "/opt"):
            Path(path).mkdir(exist_ok=True)

    def stage(self) -> None:
        """Fresh folders; what an earlier stage left is at `work/stageN`."""
        self.stages += 1
        for path in HIDDEN:
            fresh = self.work / f"stage{self.stages}" / path[1:]
            if path == "/etc":
                shutil.copytree("/etc", fresh, symlinks=True)
            else:
                fresh.mkdir(parents=True)
            fresh.chmod(0o1777 if path == "/tmp" else 0o755)
            mount("--bind", fresh, path)
        subprocess.run(["ldconfig"], check=True)  # the Python of the base has its library in /usr/local, too
        self.environment, self.folder, self.user = dict(BASE), "/", "0:0"

    def carry_out(self, word: str, rest: str) -> None:
        if word not in ("RUN", "HEALTHCHECK", "ENTRYPOINT", "CMD", "SHELL"):
            known = {**self.arguments, **self.environment}
            rest = re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), rest)
        match word:
            case "ARG":
                name, _, default = rest.partition("=")
                before = self.arguments.get(name, default)
                self.arguments[name] = self.given.get(name, default or before)
            case "FROM":
                self.stage()
            case "ENV":
                self.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
            case "WORKDIR":
                self.folder = rest
                Path(rest).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(rest.split())
            case "RUN":
                print(f"== RUN {rest[:100]} …", flush=True)
                subprocess.run(
                    ["bash", "-o", "pipefail", "-c", rest],
                    cwd=self.folder,
                    env=self.arguments | self.environment,
                    check=True,
                )
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                self.health = json.loads(rest[rest.index("CMD ") + 4 :])
            case "LABEL" | "EXPOSE" | "CMD" | "SHELL":
                pass
            case other:
                raise SystemExit(f"{other} is not known here")

    def _copy(self, words: list[str]) -> None:
        stage = next((word for word in words if word.startswith("--from=")), None)
        root = self.work / "stage1" if stage else self.work / "context"
        *sources, target = [word for word in words if not word.startswith("--")]
        into = Path(self.folder, target)
        for source in sources:
            found = root / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True)
            else:
                to = into / found.name if target.endswith("/") else into
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, to)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def kib(pid: int, field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def start(build: Build, engine: str) -> None:
    """The router answers, as the image's user, where nothing but /tmp can be written."""
    conf = Path("/tmp/conf")
    conf.mkdir(exist_ok=True)
    (conf / "fleet.yaml").write_text(FLEET)
    uid, gid = map(int, build.user.split(":"))
    port = free_port()
    options = ["serve", str(conf), "--engine", engine, "--port", str(port), "--decision-log", "/tmp/decisions"]
    process = subprocess.Popen(
        [*build.entrypoint, *options], cwd=build.folder, env=build.environment, user=uid, group=gid, extra_groups=()
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, "it ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/servez", timeout=2) as reply:
                    assert reply.status == 200
                break
            except OSError:
                assert time.monotonic() < deadline, "it does not serve"
                time.sleep(0.2)
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=10) as reply:
            assert reply.headers["x-pointsman-backend"] == "one"
        subprocess.run(build.health, env=build.environment, user=uid, group=gid, check=True)
        print(f"engine {engine}: answers as {uid}:{gid}, and its HEALTHCHECK passes; "
              f"{kib(process.pid, 'VmRSS') // 1024} MiB resident in its first process")  # fmt: skip
    finally:
        process.terminate()
        status = process.wait(60)
    assert status == 0, status


def check(build: Build) -> None:
    installed = Path("/opt/pointsman")
    (packages,) = installed.glob("lib/python*/site-packages")
    (router,) = (packages / "router",)
    assert (packages / "policies" / "schemas" / "pointsman-v1.schema.json").is_file(), "package data"
    assert list((router / "report").glob("*.jinja")), "package data"
    assert not (router / "demo").exists()
    assert not (packages / "pip").exists()
    assert not Path("/src").joinpath("router").exists(), "no source tree"
    uid, gid = map(int, build.user.split(":"))
    assert uid != 0
    run = {"env": build.environment, "cwd": "/tmp", "user": uid, "group": gid, "check": True}
    imported = "import policies, router; print(policies.__file__, router.__file__)"
    subprocess.run(["python", "-c", imported], **run)  # type: ignore[call-overload]
    subprocess.run([*build.entrypoint, "schema"], stdout=subprocess.DEVNULL, **run)  # type: ignore[call-overload]
    refused = subprocess.run(["touch", "/opt/pointsman/x"], user=uid, group=gid, capture_output=True, check=False)
    assert refused.returncode != 0
    size = sum(file.lstat().st_size for file in installed.rglob("*") if not file.is_symlink())
    print(f"/opt/pointsman: {size / 1e6:.0f} MB")


def keep(folder: Path, python: Path) -> None:
    """What the image holds, with a Python that is there outside as well: cyclonedx-py asks it."""
    shutil.copytree("/opt/pointsman", folder, symlinks=True, dirs_exist_ok=True)
    for link in folder.glob("bin/python*"):
        link.unlink()
    (folder / "bin" / "python").symlink_to(python / "bin" / "python3")
    settings = folder / "pyvenv.cfg"
    settings.write_text(re.sub(r"(?m)^home = .*$", f"home = {python / 'bin'}", settings.read_text()))


def inside(work: Path, python: Path, given: dict[str, str], engines: list[str], sbom: Path | None) -> None:
    build = Build(work, python, given)
    for word, rest in instructions((work / "Dockerfile").read_text()):
        build.carry_out(word, rest)
    mount("--bind", "/opt/pointsman", "/opt/pointsman")
    mount("-o", "remount,bind,ro", "/opt/pointsman")
    check(build)
    for engine in engines:
        start(build, engine)
    if sbom is not None:
        keep(sbom, python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(sys.base_prefix), help="prefix of the Python to use")
    parser.add_argument("--engine", action="append", choices=("local", "ray"), help="what to start (both)")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="a build argument")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy what the image holds there, for an SBOM")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        given = dict(one.split("=", 1) for one in arguments.arg)
        inside(arguments.work, arguments.python, given, arguments.engine or ["local", "ray"], arguments.keep)
        return
    if os.geteuid() != 0:
        sys.exit("needs root: it mounts folders of its own over /src, /opt, /tmp and /etc, for itself alone")
    work = Path(tempfile.mkdtemp(prefix="pointsman-image-", dir="/var/tmp"))
    work.chmod(0o755)
    try:
        (work / "context").mkdir()
        context(work / "context")
        shutil.copy(ROOT / "Dockerfile", work)
        again = [sys.executable, "-m", "tests.image.prove", *sys.argv[1:], "--work", str(work)]
        ended = subprocess.run(["unshare", "--mount", "--propagation", "private", *again], cwd=ROOT, check=False)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
