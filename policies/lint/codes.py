"""The codes of lints and what they mean. A code never changes its meaning and is never used again."""

from __future__ import annotations

from collections.abc import Mapping

CODES: Mapping[str, str] = {
    "PM101": """A rule is shadowed by an earlier one.

The first rule that matches speaks. Every request that this rule matches is matched by an earlier rule as well, so
this one never speaks. Move it up, or narrow the earlier rule.""",
    "PM102": """A constraint leaves no backend.

For some requests the backends that clearance and capability leave are all removed by constraints, so these requests
are always refused. Where that is meant, say so in a test (`expect: {refusal: policy_no_backend}`); otherwise relax
the constraint, or add a backend that meets it.""",
    "PM103": """No request can reach a backend.

Over every request that the policy tells apart, this backend never passes the filters. Its clearance may be too low
for the policy's default level, or a constraint may always remove it.""",
    "PM104": """A clearance is looser than its tier's norm.

A cloud backend is somebody else's machine. This one may receive the highest level of all, or a higher level than one
of the backends on the organisation's own premises. Where a contract covers that, keep it, and constrain it by name.""",
    "PM105": """A detector is not used.

What it finds raises the label no higher than it is anyway, and no match asks for the entities it finds. It costs time
and changes nothing. Give it a higher label, or remove it.""",
    "PM106": """A term of an objective has no weight.

A term with weight 0 does not count. Remove it, or give it a weight.""",
    "PM107": """No backend can meet an objective of latency.

By the latencies that the fleet expects (`latency.prior_ms`), every backend that the rule's requests may go to misses
the objective. With `on_miss: reject` all of them are refused until measurements say otherwise.""",
    "PM108": """A fallback can never fire.

No other backend that serves the models of this rule is in the fallback's scope, or it allows one attempt only. Say
`scope: none` where that is meant.""",
    "PM109": """A budget or limit is without a match.

It has no match, and no `each` or `backend` either, so all requests of everybody share one cap; or its match fits no
request that this fleet serves.""",
    "PM110": """A match names something that no backend serves.

No backend serves a model or a task of this name, so the match fits nothing. Mind the spelling.""",
    "PM111": """A split is out of reach.

No backend with a weight serves the models of this rule, so the split does nothing.""",
    "PM112": """A cascade leads nowhere.

A cascade goes on to a backend of higher `quality`, and no model of this rule has one: state the quality of each in the
fleet, or take the cascade out.""",
}
"""By code: a title, and what to do."""


def title(code: str) -> str:
    return CODES[code].partition("\n")[0]
