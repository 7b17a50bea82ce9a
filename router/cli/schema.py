"""`pointsman schema`: the YAML as JSON Schema, for editors and other tools."""

from __future__ import annotations

import argparse

from policies import jsonschema


def run(arguments: argparse.Namespace) -> int:
    print(jsonschema.text(arguments.kind), end="")
    return 0
