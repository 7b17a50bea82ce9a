"""Tenants, compiled: what each is held to. Who a request comes from is found out elsewhere; here a name is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from policies.checks import check_duplicates, check_level, web_url
from policies.errors import Problem
from policies.match import ValueTest, text_test
from policies.schema import Fleet, Policy
from policies.schema.tenants import Jwt, Key, Tenants
from policies.schema.tenants import Tenant as TenantSpec
from policies.source import Document, Path
from policies.types import RefusalCode, Request

ANONYMOUS = "anonymous"
"""The tenant of every caller where there is no Tenants document. With one, nobody is it."""


class Barred(NamedTuple):
    """Why a tenant may not make a request at all, whichever backend would answer."""

    code: RefusalCode
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one tenant is held to. `None` where nothing is asked."""

    name: str
    floor: int = 0  # the least label of its requests
    models: ValueTest | None = field(default=None, repr=False)
    usages: ValueTest | None = field(default=None, repr=False)
    usage_default: str = ""
    may_declassify: bool = False
    may_debug: bool = False
    known: bool = True

    def may_use(self, model: str) -> bool:
        return self.known and (self.models is None or self.models(model))

    def barred(self, request: Request) -> Barred | None:
        if not self.known:
            return Barred(
                RefusalCode.UNAUTHORIZED,
                "the request comes from no tenant of the Tenants document",
                "send a tenant's key; in `explain` and tests name a tenant",
            )
        if self.models is not None and not self.models(request.model):
            return Barred(
                RefusalCode.MODEL_NOT_ALLOWED,
                f"tenant {self.name} may not use this model",
                "use a model that GET /v1/models lists, or ask who keeps the tenants",
            )
        if self.usages is not None and request.usage and not self.usages(request.usage):
            return Barred(
                RefusalCode.USAGE_NOT_ALLOWED,
                f"tenant {self.name} may not state this usage",
                "send another x-usage or none, or ask who keeps the tenants",
            )
        return None


ANYONE = Tenant(ANONYMOUS)
"""Every caller, where there is no Tenants document."""
NOBODY = Tenant("", known=False)
"""Whoever is not in the Tenants document, where there is one."""


def compile_tenants(document: Tenants, ranks: Mapping[str, int]) -> dict[str, Tenant]:
    """By name. Every level named in the document must be in `ranks`."""
    return {
        one.name: Tenant(
            one.name,
            ranks[one.label_floor] if one.label_floor is not None else 0,
            None if one.models is None else text_test(one.models),
            None if one.usage.allow is None else text_test(one.usage.allow),
            one.usage.default or "",
            one.may_declassify,
            one.may_debug,
        )
        for one in document.tenants
    }


def deciding(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Tenants document's data, what a decision can depend on. How a tenant proves who it is, is left out: a new
    key is no new policy, and a digest of a policy must not tell of keys."""
    tenants = [{name: value for name, value in one.items() if name != "keys"} for one in data.get("tenants", ())]
    return {name: value for name, value in data.items() if name != "jwt"} | {"tenants": tenants}


# --- checks -------------------------------------------------------------------------------------------------------


def check_tenants(tenants: Tenants, document: Document) -> Iterator[Problem]:
    yield from check_duplicates(document, "tenant", "tenants", [tenant.name for tenant in tenants.tenants])
    digests: dict[str, str] = {}
    for i, tenant in enumerate(tenants.tenants):
        path: Path = ("tenants", i)
        if tenant.name == ANONYMOUS:
            yield document.problem(
                (*path, "name"), f"'{ANONYMOUS}' is the name of callers without a key", "give the tenant another name"
            )
        if not tenant.keys and tenants.jwt is None:
            yield document.problem(
                path,
                f"nobody can be tenant '{tenant.name}': it has no keys, and there is no 'jwt'",
                f"add one: `pointsman key new --tenant {tenant.name}`",
                severity="warning",
            )
        for j, key in enumerate(tenant.keys):
            yield from _check_key(key, document, (*path, "keys", j))
            if key.sha256 is not None and key.sha256 in digests:
                yield document.problem((*path, "keys", j), same_key(digests[key.sha256], tenant.name), SAME_KEY_HINT)
            elif key.sha256 is not None:
                digests[key.sha256] = tenant.name
        yield from _check_usage(tenant, document, (*path, "usage", "default"))
    if tenants.jwt is not None:
        yield from _check_jwt(tenants.jwt, document, ("jwt", "jwks"))


SAME_KEY_HINT = "give each tenant keys of its own: `pointsman key new`"


def same_key(first: str, second: str) -> str:
    return f"tenant '{first}' has this key already" if first != second else "this key stands twice"


def _check_key(key: Key, document: Document, path: Path) -> Iterator[Problem]:
    if sum(one is not None for one in (key.sha256, key.env, key.file)) != 1:
        yield document.problem(path, "a key takes exactly one of 'sha256', 'env' and 'file'")


def _check_usage(tenant: TenantSpec, document: Document, path: Path) -> Iterator[Problem]:
    allow, default = tenant.usage.allow, tenant.usage.default
    if allow is not None and default is not None and not text_test(allow)(default):
        yield document.problem(path, "the default usage is not one that 'allow' lets the tenant state")


def _check_jwt(jwt: Jwt, document: Document, path: Path) -> Iterator[Problem]:
    if (jwt.jwks.file is None) == (jwt.jwks.url is None):
        yield document.problem(path, "'jwks' takes exactly one of 'file' and 'url'")
    if jwt.jwks.url is None:
        return
    parts = web_url(jwt.jwks.url)
    # The URL may hold a secret (user:password@), so no message repeats it.
    if parts is None:
        yield document.problem((*path, "url"), "not a URL of the form https://host[:port]/path")
    elif parts.username is not None or parts.password is not None:
        yield document.problem((*path, "url"), "a URL must not carry a user or password", "remove them")
    elif parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield document.problem((*path, "url"), "keys that come over plain http can be replaced on the way", "use https")


def check_floors(tenants: Tenants, document: Document, policy: Policy) -> Iterator[Problem]:
    levels = policy.sensitivity.levels
    for i, tenant in enumerate(tenants.tenants):
        if tenant.label_floor is not None:
            yield from check_level(document, ("tenants", i, "label_floor"), tenant.label_floor, levels)


def check_models(tenants: Tenants, document: Document, fleet: Fleet) -> Iterator[Problem]:
    """A warning where a tenant may use nothing that the fleet serves."""
    served = sorted({name for backend in fleet.backends for name in backend.models})
    for i, tenant in enumerate(tenants.tenants):
        if tenant.models is not None and not any(map(text_test(tenant.models), served)):
            yield document.problem(
                ("tenants", i, "models"),
                f"the fleet serves none of the models that tenant '{tenant.name}' may use",
                f"models here: {_few(served)}",
                severity="warning",
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
