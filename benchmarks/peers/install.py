"""Other routers, each in a folder of its own under `.bench/`, from its package registry."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".bench"
TIMEOUT_S = 600


class NotHere(Exception):
    """The message says why."""


def program(name: str) -> str:
    """A program of the system. Raises NotHere."""
    found = shutil.which(name)
    if found is None:
        raise NotHere(f"there is no {name} here (apt-get install {name})")
    return found


def from_pip(requirement: str, executable: str) -> Path:
    """A program of a Python package. Raises NotHere."""
    folder = FOLDER / requirement.partition("==")[0].partition("[")[0]
    found = folder / "bin" / executable
    if not found.exists():
        _run([sys.executable, "-m", "venv", str(folder)], requirement)
        _run([str(folder / "bin" / "pip"), "install", "-q", "--no-compile", requirement], requirement)
    if not found.exists():
        raise NotHere(f"{requirement} installs no {executable}")
    return found


def from_npm(package: str, version: str) -> Path:
    """The folder of a Node package. Raises NotHere."""
    folder = FOLDER / package.rpartition("/")[2]
    found = folder / "node_modules" / package
    if not found.exists():
        npm = program("npm")
        folder.mkdir(parents=True, exist_ok=True)
        _run([npm, "install", "--silent", "--prefix", str(folder), f"{package}@{version}"], package)
    return found


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"{what} does not install: {type(error).__name__}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotHere(f"{what} does not install: {said[-1][:200]}")
