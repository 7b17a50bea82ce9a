"""Whom we trust, and who we are: the TLS of a client. And why a connection failed."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. Verification is always on; `ca_file` replaces the system's trust."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


def ssl_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises ValueError that names the file which cannot be used."""
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
    except OSError as error:
        raise ValueError(f"{files.ca_file} holds no certificates ({reason(error)})") from None
    if files.client_cert:
        try:
            # Without a password of ours, OpenSSL would ask for an encrypted key's on the terminal.
            context.load_cert_chain(files.client_cert, files.client_key, password="")
        except OSError as error:
            pair = " and ".join(filter(None, (files.client_cert, files.client_key)))
            raise ValueError(f"{pair} are no certificate and its unencrypted key ({reason(error)})") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def reason(error: Exception) -> str:
    """Why there is no connection, in words that name no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no reason given'}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text repeats the address
    return "no connection"  # asyncio's sum of what several addresses said
