"""The YAML that people write, version `pointsman/v1`: Fleet (the backends), Policy (who goes where), Tenants (who may
ask), PolicyTest.

These models are the single source: validation, the JSON Schema and the reference are derived from them. They are
frozen; the router and the backends read their settings from them directly. Units stand in the names: `_ms`, `_s`,
`_usd`, `_w`, `_g`.
"""

from policies.schema.base import API_VERSION, Model
from policies.schema.conditions import (
    AttributeCondition,
    AttributeTest,
    EntityCondition,
    LabelRange,
    Match,
    NotText,
    Range,
    TextCondition,
    TimeWindow,
)
from policies.schema.fleet import (
    Backend,
    BackendModel,
    Batching,
    Carbon,
    Ejection,
    Fleet,
    Licence,
    ScriptStep,
    SecretReference,
    Tls,
)
from policies.schema.policy import (
    Budget,
    CarbonTerm,
    Cascade,
    Constraint,
    CostTerm,
    Fallback,
    Hedge,
    LatencyTerm,
    Objective,
    Policy,
    RateLimit,
    Rule,
    Shadow,
    Slo,
    Split,
    Strategy,
)
from policies.schema.policytest import Case, Expect, Given, PolicyTest
from policies.schema.requests import HttpRequest, RequestFacts
from policies.schema.sensitivity import (
    DetectorSettings,
    Floor,
    Keywords,
    Ner,
    Patterns,
    Pii,
    Secrets,
    Sensitivity,
)
from policies.schema.tenants import Jwt, Key, Tenant, Tenants

DOCUMENTS: dict[str, type[Model]] = {
    "Fleet": Fleet,
    "Policy": Policy,
    "Tenants": Tenants,
    "PolicyTest": PolicyTest,
}
"""Every kind of document, by the value of its `kind`."""

__all__ = [
    "API_VERSION",
    "DOCUMENTS",
    "AttributeCondition",
    "AttributeTest",
    "Backend",
    "BackendModel",
    "Batching",
    "Budget",
    "Carbon",
    "CarbonTerm",
    "Cascade",
    "Case",
    "Constraint",
    "CostTerm",
    "DetectorSettings",
    "Ejection",
    "EntityCondition",
    "Expect",
    "Fallback",
    "Fleet",
    "Floor",
    "Given",
    "Hedge",
    "HttpRequest",
    "Jwt",
    "Key",
    "Keywords",
    "LabelRange",
    "LatencyTerm",
    "Licence",
    "Match",
    "Model",
    "Ner",
    "NotText",
    "Objective",
    "Patterns",
    "Pii",
    "Policy",
    "PolicyTest",
    "Range",
    "RateLimit",
    "RequestFacts",
    "Rule",
    "ScriptStep",
    "SecretReference",
    "Secrets",
    "Sensitivity",
    "Shadow",
    "Slo",
    "Split",
    "Strategy",
    "Tenant",
    "Tenants",
    "TextCondition",
    "TimeWindow",
    "Tls",
]
