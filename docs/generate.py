"""Write what is derived from the code: the JSON Schema that is shipped, the references. Run by `make docs`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs import chart_reference, chart_schema, metrics_reference
from policies import jsonschema, reference

ROOT = Path(__file__).resolve().parents[1]

GENERATED: dict[Path, Callable[[], str]] = {
    ROOT / "policies" / jsonschema.SHIPPED: jsonschema.text,
    ROOT / "docs" / "policy-reference.md": reference.text,
    ROOT / "docs" / "metrics.md": metrics_reference.text,
    chart_schema.CHART / "values.schema.json": chart_schema.text,
    chart_schema.CHART / "README.md": chart_reference.text,
    **{to: source.read_text for to, source in chart_reference.copies().items()},
}
"""Every generated file, and what gives its text."""

if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text(), encoding="utf-8")
