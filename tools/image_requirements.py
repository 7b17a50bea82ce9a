"""What goes into the image, for the Dockerfile: the part of the lock that the router needs, with its hashes.

The lock (`requirements/requirements.lock`) also holds what tests and the demo need. Starting from the dependencies that
`pyproject.toml` names, this follows the metadata of what each of them requires. Nothing is resolved here: a version
comes from the lock, or the build fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "requirements.lock"
CLOSURE = ROOT / "requirements" / "image.txt"
"""Names that each set of dependencies comes to, written by `--closure` where everything is installed."""
BUILD = ("setuptools",)
STRIPPED = ("router/demo", "ray/jars", "ray/rllib", "pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")
"""Of site-packages: what an image that is never installed into needs no more. torch wants setuptools, and keeps it."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks() -> dict[str, str]:
    """The lock's entries, each with its hashes, by name."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text()):
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", block):
            found[canonical(match[1])] = found.get(canonical(match[1]), "") + block.rstrip() + "\n"
    return found


def wanted(variant: str, extras: list[str]) -> Iterator[str]:
    """The names of a variant with its extras, as `requirements/image.txt` has them."""
    sections: dict[str, list[str]] = {}
    for line in CLOSURE.read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            current.append(line)
    for section in ["router", *extras, *(["torch"] if variant == "cuda" else [])]:
        if section not in sections:
            sys.exit(f"no extra {section!r}: there are {', '.join(sorted({*sections} - {'router', 'torch'}))}")
        yield from sections[section]


def closure() -> str:
    """Followed through the metadata of what is installed here, the extras that each requirement asks for included."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    locked = blocks()

    def follow(texts: list[str], seen: set[tuple[str, str]]) -> None:
        for text in texts:
            requirement = Requirement(text)
            for extra in ("", *sorted(requirement.extras)):
                key = (canonical(requirement.name), extra)
                if key in seen:
                    continue
                seen.add(key)
                try:
                    below = requires(requirement.name) or []
                except PackageNotFoundError:
                    continue  # for another Python or system: the lock's markers decide at the install
                parsed = [Requirement(one) for one in below]
                # Markers of systems and versions are left to the lock; those of extras are decided here.
                follow([str(one) for one in parsed if _applies(one, extra)], seen)

    def names(texts: list[str]) -> set[str]:
        seen: set[tuple[str, str]] = set()
        follow(texts, seen)
        return {name for name, _ in seen if name in locked}

    router = names(project["dependencies"])
    told = [
        "# Made by `python tools/image_requirements.py --closure`: what of the lock goes into an image.",
        "[router]",
    ]
    told += sorted(router)
    for extra in ("redis", "report", "torch", "tracing"):
        told += [f"[{extra}]", *sorted(names(optional[extra]) - router)]
    return "\n".join(told) + "\n"


def _applies(requirement: object, extra: str) -> bool:
    marker = getattr(requirement, "marker", None)
    return marker is None or bool(marker.evaluate({"extra": extra}))


def strip(root: Path, torch: bool) -> None:
    (packages,) = root.glob("lib/python*/site-packages")
    for name in STRIPPED:
        if torch and name in ("setuptools", "pkg_resources", "_distutils_hack"):
            continue
        shutil.rmtree(packages / name, ignore_errors=True)
        if "/" not in name:
            for info in packages.glob(f"{name}-*.dist-info"):
                shutil.rmtree(info)
        if name == "_distutils_hack":  # it would be looked for, and missed aloud, at every start
            (packages / "distutils-precedence.pth").unlink(missing_ok=True)
    for tests in [*packages.glob("*/tests"), *packages.glob("*/test")]:
        if tests.parent.name not in ("torch", "ray"):  # these import theirs
            shutil.rmtree(tests)
    for unused in ("pip", "pip3", *(f"pip3.{minor}" for minor in range(11, 14))):
        (root / "bin" / unused).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--extras", default="", help="separated by commas")
    parser.add_argument("--build", action="store_true", help="what builds the wheel")
    parser.add_argument("--closure", action="store_true", help="write requirements/image.txt")
    parser.add_argument("--strip", type=Path, metavar="VENV", help="take out what a router never runs")
    arguments = parser.parse_args()
    if arguments.closure:
        CLOSURE.write_text(closure())
    elif arguments.strip is not None:
        strip(arguments.strip, any(arguments.strip.glob("lib/python*/site-packages/torch")))
    else:
        locked = blocks()
        extras = [extra for extra in arguments.extras.split(",") if extra]
        names = BUILD if arguments.build else sorted(set(wanted(arguments.variant, extras)))
        sys.stdout.write("".join(locked[name] for name in names))


if __name__ == "__main__":
    main()
