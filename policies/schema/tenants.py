"""The Tenants document: who may ask, what they are held to, and how their keys are known. It never holds a key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from policies.schema.base import Items, Model, Name
from policies.schema.conditions import TextCondition

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones only: with a shared secret, whoever can verify a token can also make one."""


class Key(Model):
    """How one or several keys of a tenant are known; never a key itself. Exactly one of the three."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="the SHA-256 of the key, in lower-case hex; `pointsman key new` prints it beside a new key",
        examples=["5b2d6e3a8c1f4b7d9e0a2c4f6b8d1e3f5a7c9b0d2e4f6a8c1b3d5e7f9a0c2b4d"],
    )
    env: Variable | None = Field(
        default=None, description="an environment variable that holds keys, one a line", examples=["ACME_KEYS"]
    )
    file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="a file that holds keys, one a line; a relative path starts from the folder of this file",
        examples=["/run/secrets/acme-keys"],
    )


class Usages(Model):
    """What a tenant may say that an answer is for (the header x-usage)."""

    allow: TextCondition | None = Field(
        default=None, description="the values it may state; absent: any", examples=[["research", "commercial"]]
    )
    default: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")] | None = Field(
        default=None, description="the usage of its requests that state none", examples=["commercial"]
    )


class Tenant(Model):
    """One party that sends requests."""

    name: Name = Field(
        description="unique among tenants; what `match: {tenant: …}` and budgets see", examples=["acme-dev"]
    )
    keys: list[Key] = Field(
        default=[],
        description="its keys; several while one replaces another",
        examples=[[{"env": "ACME_KEYS"}, {"file": "/run/secrets/acme-keys"}]],
    )
    label_floor: str | None = Field(
        default=None, description="the least sensitivity level of its requests", examples=["confidential"]
    )
    models: TextCondition | None = Field(
        default=None,
        description="the models it may use, by the names that clients use; absent: all",
        examples=[["chat", "embed-*"]],
    )
    usage: Usages = Field(default=Usages(), description="what its answers are for", examples=[{"allow": ["research"]}])
    may_declassify: bool = Field(
        default=False,
        description="whether its header x-declassify may lower a label that detectors have raised; floors and the "
        "caller's own x-data-sensitivity hold all the same",
        examples=[True],
    )
    may_debug: bool = Field(
        default=False,
        description="whether its header `x-pointsman-trace: true` brings the decision back in the answer's headers",
        examples=[True],
    )


class Jwks(Model):
    """Where the issuer's public keys are (a JSON Web Key Set). Exactly one of the two."""

    file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="a file; a relative path starts from the folder of this file",
        examples=["jwks.json"],
    )
    url: str | None = Field(
        default=None,
        description="an https URL; fetched when first needed, and again every few minutes or where a token names a "
        "key that is not known",
        examples=["https://login.example.com/keys"],
    )


class Jwt(Model):
    """Accept signed tokens (JWT) of one issuer beside keys. A claim of the token names the tenant."""

    issuer: Annotated[str, Field(min_length=1)] = Field(
        description="what the token's `iss` must be", examples=["https://login.example.com/"]
    )
    audience: Annotated[str, Field(min_length=1)] = Field(
        description="what the token's `aud` must be or hold", examples=["pointsman"]
    )
    jwks: Jwks = Field(
        description="where the issuer's public keys are", examples=[{"url": "https://login.example.com/keys"}]
    )
    tenant_claim: Annotated[str, Field(min_length=1)] = Field(
        default="tenant", description="the claim that holds the tenant's name", examples=["client_id"]
    )
    algorithms: Items[Algorithm] = Field(
        default=["RS256", "ES256", "EdDSA"],
        description="signature algorithms to accept; all are asymmetric",
        examples=[["ES256"]],
    )


class Tenants(Model):
    """Everybody who may ask. With this document a request without a valid key or token is refused."""

    apiVersion: Literal["pointsman/v1"] = Field(description="version of the language", examples=["pointsman/v1"])
    kind: Literal["Tenants"] = Field(description="which document this is", examples=["Tenants"])
    tenants: Items[Tenant] = Field(
        description="who may ask",
        examples=[[{"name": "acme-dev", "keys": [{"env": "ACME_KEYS"}], "label_floor": "internal"}]],
    )
    jwt: Jwt | None = Field(
        default=None,
        description="accept signed tokens as well as keys",
        examples=[
            {
                "issuer": "https://login.example.com/",
                "audience": "pointsman",
                "jwks": {"url": "https://login.example.com/keys"},
            }
        ],
    )
