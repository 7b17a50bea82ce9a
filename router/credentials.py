"""How the tenants' keys are known: read from files and the environment, kept as SHA-256 digests and never as keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.errors import Problem
from policies.schema import Jwt, Key, Tenants
from policies.source import Document
from policies.tenants import SAME_KEY_HINT, same_key
from router.stamps import Seen

MAX_KEY_BYTES = 16 * 1024
"""Most bytes of a key or token. No header of an honest client is longer."""
_SHORT = 16
"""Characters below which a key can be guessed, or found from its SHA-256."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves that a request comes from a tenant."""

    keys: Mapping[bytes, str] = field(repr=False)  # SHA-256 digest of a key -> tenant
    jwt: Jwt | None = None
    jwks: bytes = field(default=b"", repr=False)  # what the file of public keys holds; empty where there is a URL


def digest(key: bytes) -> bytes:
    """A key has at least 128 random bits, so a plain hash is enough: there is nothing to guess, as with passwords."""
    return hashlib.sha256(key).digest()


def read_credentials(
    tenants: Tenants, document: Document, folder: Path, env: Mapping[str, str], seen: Seen
) -> tuple[Credentials, list[Problem]]:
    """The credentials, and everything that is wrong with them; no message holds any part of a key. Files that were
    looked for are added to `seen`."""
    keys: dict[bytes, str] = {}
    problems: list[Problem] = []
    for i, tenant in enumerate(tenants.tenants):
        for j, key in enumerate(tenant.keys):
            path = ("tenants", i, "keys", j)
            if key.file is not None:
                seen.add(folder / key.file)
            found, wrong = _digests(key, folder, env)
            for one in found:
                if keys.setdefault(one, tenant.name) != tenant.name:
                    wrong.append((same_key(keys[one], tenant.name), SAME_KEY_HINT, "error"))
            problems += [document.problem(path, said, hint, severity=severity) for said, hint, severity in wrong]
    jwks = b""
    if tenants.jwt is not None and tenants.jwt.jwks.file is not None:
        seen.add(folder / tenants.jwt.jwks.file)
        jwks, reason = _jwks(tenants.jwt, folder / tenants.jwt.jwks.file)
        if reason:
            problems.append(document.problem(("jwt", "jwks", "file"), reason))
    return Credentials(keys, tenants.jwt, jwks), problems


Wrong = tuple[str, str, str]
"""What is wrong, what to do, how severe it is."""


def _digests(key: Key, folder: Path, env: Mapping[str, str]) -> tuple[list[bytes], list[Wrong]]:
    """Of the keys that stand at one place."""
    if key.sha256 is not None:
        return [bytes.fromhex(key.sha256)], []
    if key.env is not None:
        text, where = env.get(key.env, ""), f"the environment variable {key.env}"
    elif key.file is not None:
        where = f"the file {key.file}"
        try:
            text = (folder / key.file).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return [], [(f"{where} cannot be read", "", "error")]
    else:
        return [], []  # told already: the schema's check asks for one of the three
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        return [], [(f"{where} is not set" if key.env else f"{where} is empty", "", "error")]
    if not all(one.isascii() and one.isprintable() and " " not in one for one in keys):
        return [], [(f"{where} has a key with a blank or a character that a header cannot carry", "", "error")]
    wrong: list[Wrong] = []
    if any(len(one) < _SHORT for one in keys):
        told = f"{where} has a key of less than {_SHORT} characters, which can be guessed"
        wrong.append((told, "make another with `pointsman key new`", "warning"))
    return [digest(one.encode()) for one in keys], wrong


def _jwks(jwt: Jwt, path: Path) -> tuple[bytes, str]:
    from router.jwt import NoKeys, key_set  # takes a while to import, and most configurations have no tokens

    try:
        text = path.read_bytes()
        key_set(text, jwt.algorithms)
    except OSError:
        return b"", f"the file {jwt.jwks.file} cannot be read"
    except NoKeys as error:
        return b"", f"the file {jwt.jwks.file} {error}"
    return text, ""
