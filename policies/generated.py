"""Functions made from source text: for what is asked so often that a call within a call takes most of its time.

The one place where that happens. Its text is written in this library: nothing of a document stands in it, neither names
nor numbers; those are variables of the function.
"""

from __future__ import annotations

from typing import Any


def function(name: str, parameters: str, body: str, known: dict[str, Any]) -> Any:
    """`def NAME(PARAMETERS): BODY`, in which the names in `known` mean what stands there."""
    own = "".join(f", {one}={one}" for one in known)  # as defaults: local variables are found fastest
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    namespace = dict(known)
    exec(compile(f"def {name}({parameters}{own}):\n{lines}\n", f"<{name}>", "exec"), namespace)
    return namespace[name]
