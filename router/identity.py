"""Who a request comes from: its credential, and the tenant that it proves. No message, log line or metric holds one."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from policies.compile import CompiledPolicy
from policies.tenants import ANYONE, Tenant
from policies.types import RefusalCode
from router.credentials import MAX_KEY_BYTES, Credentials, digest
from router.errors import ApiError, bad_request

if TYPE_CHECKING:
    from router.jwt import Verifier

RawHeaders = Iterable[tuple[bytes, bytes]]
REASONS = ("missing", "unknown", "token", "malformed", "unavailable")
"""Why a credential was refused, as the metric tells it."""
_HOW = "send `Authorization: Bearer <key>` or `x-api-key: <key>`"


class Unauthenticated(ApiError):
    """401 with the header that says how to do it; `reason` is one of REASONS."""

    def __init__(self, reason: str, message: str, hint: str = _HOW) -> None:
        super().__init__(RefusalCode.UNAUTHORIZED, message, hint, headers=(("www-authenticate", "Bearer"),))
        self.reason = reason


class Identity:
    """Of one live configuration. Without a Tenants document everybody is `anonymous`, whatever they send."""

    def __init__(
        self, credentials: Credentials | None, policy: CompiledPolicy, previous: Identity | None = None
    ) -> None:
        """Keys and verified tokens of `previous` go on where the issuer is the same."""
        self._tenants: Mapping[str, Tenant] | None = policy.tenants
        self._keys = {} if credentials is None else credentials.keys
        self.verifier: Verifier | None = _verifier(credentials, previous.verifier if previous is not None else None)

    async def tenant(self, headers: RawHeaders) -> Tenant:
        """Raises ApiError 400 for two that differ, 401 for none or a wrong one, 503 where it cannot be told."""
        if self._tenants is None:
            return ANYONE
        credential = credential_of(headers)
        if credential is None:
            raise Unauthenticated("missing", "there is no key in the request")
        if len(credential) > MAX_KEY_BYTES:
            raise Unauthenticated("unknown", "the key is not valid")
        hashed = digest(credential)
        # Looked up by digest: how long that takes can tell something of the digests we hold, and nobody can make a
        # key from a digest or choose the digest of a guess. The key itself is compared with nothing.
        name = self._keys.get(hashed)
        if name is None and self.verifier is not None and credential.count(b".") == 2:
            name = await self._by_token(self.verifier, credential, hashed)
        tenant = self._tenants.get(name) if name is not None else None
        if tenant is None:
            raise Unauthenticated("unknown", "the key is not valid")
        return tenant

    async def _by_token(self, verifier: Verifier, token: bytes, hashed: bytes) -> str:
        from router.jwt import Refused, Unavailable

        try:
            return await verifier.tenant(token, hashed)
        except Refused as error:
            raise Unauthenticated("token", f"the token {error}", "get another from its issuer") from None
        except Unavailable:
            raise ApiError(
                "identity_unavailable",
                "the token cannot be verified now: the issuer's public keys cannot be had",
                "try again later",
                headers=(("retry-after", "10"),),
            ) from None


def _verifier(credentials: Credentials | None, previous: Verifier | None) -> Verifier | None:
    if credentials is None or credentials.jwt is None:
        return None
    from router.jwt import Verifier

    same = previous is not None and previous.settings == credentials.jwt
    if same and previous is not None and (credentials.jwt.jwks.url is not None or previous.jwks == credentials.jwks):
        return previous
    return Verifier(credentials.jwt, credentials.jwks)


def credential_of(headers: RawHeaders) -> bytes | None:
    """The one credential of a request, from `authorization` or `x-api-key`; None where there is none.

    Raises ApiError 400 where a header stands twice or the two differ: what one reader takes from the first and
    another from the last must not be able to mean two things."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            if name in found:
                raise bad_request(f"the header {name.decode()} stands twice", "send it once")
            found[name] = value.strip()
    key, authorization = found.get(b"x-api-key"), found.get(b"authorization")
    bearer: bytes | None = None
    if authorization is not None:
        scheme, _, rest = authorization.partition(b" ")
        if scheme.lower() != b"bearer" and key is None:
            raise Unauthenticated("missing", "the authorization header is not of the form Bearer <key>")
        bearer = rest.strip() if scheme.lower() == b"bearer" else authorization
    if key is not None and bearer is not None and not hmac.compare_digest(key, bearer):
        raise bad_request("authorization and x-api-key are two different credentials", "send one of them")
    return (bearer if bearer is not None else key) or None


class Guardian:
    """Holds the admin port's tokens, as digests. Several while one replaces another."""

    def __init__(self, tokens: tuple[bytes, ...]) -> None:
        self._tokens = tokens

    def check(self, headers: RawHeaders) -> None:
        """Raises ApiError 401 (or 400) where there are tokens and the request has none of them."""
        if not self._tokens:
            return
        credential = credential_of(headers)
        if credential is None:
            raise Unauthenticated("missing", "this path needs the admin token", "send `Authorization: Bearer <token>`")
        hashed = digest(credential[:MAX_KEY_BYTES])
        # All are compared, and in constant time: which of them it was, or nearly was, must not show.
        matches = [hmac.compare_digest(hashed, token) for token in self._tokens]
        if not any(matches):
            raise Unauthenticated("unknown", "the admin token is not valid", "ask who runs the router")
