"""Write what is derived from the code: the JSON Schema that is shipped, the references. Run by `make docs`."""

from __future__ import annotations

from pathlib import Path

from docs import metrics_reference
from policies import jsonschema, reference

ROOT = Path(__file__).resolve().parents[1]

GENERATED = {
    ROOT / "policies" / jsonschema.SHIPPED: jsonschema.text,
    ROOT / "docs" / "policy-reference.md": reference.text,
    ROOT / "docs" / "metrics.md": metrics_reference.text,
}
"""Every generated file, and what gives its text."""

if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text(), encoding="utf-8")
