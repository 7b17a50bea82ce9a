"""Signed tokens (JWT): which tenant one names, if it is good. What is doubtful is refused.

Only asymmetric algorithms, only those that the configuration lists, and only with a key that is made for them: a
token never chooses how it is verified. Its headers `jku`, `jwk` and `x5u` are not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt
import msgspec

from policies.schema import Jwt

log = logging.getLogger("pointsman")

LEEWAY_S = 30
"""How far the issuer's clock may be from ours."""
MAX_CACHED = 4096
REFRESH_S = 300.0
"""Age at which keys from a URL are fetched again."""
STALE_S = 3600.0
"""Age at which keys from a URL are no longer good, where they cannot be fetched again."""
RETRY_S = 10.0
"""Least time between two fetches: tokens that name unknown keys must not make us knock on the issuer without end."""
FETCH_S = 4.0
_MAX_BYTES = 1024 * 1024
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The type of key (`kty`) that an algorithm takes, by the algorithm's first letters."""
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""(kid, algorithm) -> key."""
Fetch = Callable[[str], bytes]
"""What a URL holds. Called in a thread; raises OSError."""


class NoKeys(ValueError):
    """A key set that cannot be used. The message says why and holds nothing of it."""


class Refused(Exception):
    """A token that is not good. The message says why and holds nothing of it."""


class Unavailable(Exception):
    """The issuer's keys cannot be had, so no token can be verified."""


def key_set(text: bytes, algorithms: Sequence[str]) -> Keys:
    """The keys of a JSON Web Key Set that are public, have a `kid` and fit one of the algorithms. Raises NoKeys."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoKeys("is not JSON") from None
    listed = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise NoKeys("is no JSON Web Key Set: it has no list 'keys'")
    found: dict[tuple[str, str], jwt.PyJWK] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or not isinstance(one.get("kid"), str):
            continue
        if "d" in one or one.get("kty") == "oct":
            raise NoKeys("holds a private or shared key; it must hold public ones only")
        for algorithm in algorithms:
            if not _fits(one, algorithm):
                continue
            if (one["kid"], algorithm) in found:
                raise NoKeys("holds two keys with one 'kid'")
            try:
                found[one["kid"], algorithm] = jwt.PyJWK(one, algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):  # their messages can hold the key
                raise NoKeys("holds a key that is not well-formed") from None
    if not found:
        raise NoKeys(f"has no public key with a 'kid' for {', '.join(algorithms)}")
    return found


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    return (
        key.get("kty") == _KINDS[algorithm[:2]]
        and key.get("alg", algorithm) == algorithm
        and key.get("crv") == _CURVES.get(algorithm)
    )


class Verifier:
    """Verifies the tokens of one issuer. Belongs to one event loop."""

    def __init__(self, settings: Jwt, jwks: bytes, fetch: Fetch | None = None) -> None:
        self.settings, self.jwks = settings, jwks
        self._fetch = fetch or _download
        self._keys: Keys = key_set(jwks, settings.algorithms) if settings.jwks.url is None else {}
        self._fetched = -STALE_S  # when the keys came, and when they were last asked for; on the monotonic clock
        self._tried = -RETRY_S
        self._fetching: asyncio.Task[None] | None = None
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # token's digest -> tenant, end (wall clock)

    async def tenant(self, token: bytes, token_digest: bytes) -> str:
        """The tenant that a good token names. Raises Refused, Unavailable."""
        await self._refresh()
        known = self._known.get(token_digest)
        if known is not None and time.time() < known[1]:
            return known[0]
        key = await self._key(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(_REASONS.get(type(error), "is not valid")) from None
        except Exception:  # whatever a malformed token does to a library, the answer is the same
            raise Refused("is not valid") from None
        tenant = claims.get(self.settings.tenant_claim)
        if not isinstance(tenant, str):
            raise Refused(f"has no claim {self.settings.tenant_claim} that names a tenant")
        self._known[token_digest] = (tenant, float(claims["exp"]))
        if len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return tenant

    async def _key(self, token: bytes) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except Exception:
            raise Refused("is not a signed token") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in self.settings.algorithms:
            raise Refused("is signed by an algorithm that is not accepted")
        if not isinstance(kid, str):
            raise Refused("names no key ('kid')")
        if "crit" in header:
            raise Refused("asks for extensions that are not supported")
        key = self._keys.get((kid, str(algorithm)))
        if key is None and await self._again():
            key = self._keys.get((kid, str(algorithm)))
        if key is None:
            raise Refused("names a key that the issuer does not have")
        return key

    # --- keys from a URL --------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Keys that may be used; where they are merely old, new ones are fetched beside the requests."""
        if self.settings.jwks.url is None:
            return
        age = time.monotonic() - self._fetched
        if age > REFRESH_S:
            fetching = self._begin()
            if age > STALE_S:
                if fetching is not None:
                    await asyncio.shield(fetching)
                if time.monotonic() - self._fetched > STALE_S:
                    raise Unavailable

    async def _again(self) -> bool:
        """Fetch the keys for a token that names an unknown one: the issuer may have a new key."""
        fetching = self._begin() if self.settings.jwks.url is not None else None
        if fetching is None:
            return False
        await asyncio.shield(fetching)
        return True

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch that is under way, or a new one; None where the last one is too fresh."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried < RETRY_S:
                return None
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._load())
        return self._fetching

    async def _load(self) -> None:
        url = self.settings.jwks.url or ""
        try:
            async with asyncio.timeout(FETCH_S * 2):
                text = await asyncio.to_thread(self._fetch, url)
            if text != self.jwks:
                self._keys = key_set(text, self.settings.algorithms)
                self._known.clear()  # a token must not outlive the key that it was signed with
            self.jwks, self._fetched = text, time.monotonic()
        except Exception as error:  # whatever an issuer answers, the keys that we have stay until they are stale
            why = str(error) if isinstance(error, NoKeys) else type(error).__name__
            log.warning("the tokens' public keys (jwt.jwks.url) cannot be had: %s", why)


_REASONS: dict[type, str] = {
    jwt.ExpiredSignatureError: "has expired",
    jwt.ImmatureSignatureError: "is not valid yet",
    jwt.InvalidIssuedAtError: "is not valid",
    jwt.InvalidAudienceError: "is for another audience",
    jwt.InvalidIssuerError: "is of another issuer",
    jwt.MissingRequiredClaimError: "lacks one of the claims exp, iss and aud",
    jwt.InvalidSignatureError: "has a wrong signature",
}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The configuration says where the keys are; nobody else does."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _download(url: str) -> bytes:
    context = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(context, _NoRedirects)
    end = time.monotonic() + FETCH_S
    with opener.open(url, timeout=FETCH_S) as answer:
        parts: list[bytes] = []
        size = 0
        while part := answer.read1(65536):
            parts.append(part)
            size += len(part)
            if size > _MAX_BYTES or time.monotonic() > end:
                raise OSError("too large or too slow")
    return b"".join(parts)
