"""The upstream HTTP/1.1 client: keep-alive connections to one origin, on asyncio and httptools."""

from backends.http.client import HttpClient, HttpResponse, Timeouts, prepare
from backends.http.errors import ConnectError, HttpError, HttpTimeout, ProtocolError, TooLarge
from backends.http.tls import TlsFiles

__all__ = [
    "ConnectError",
    "HttpClient",
    "HttpError",
    "HttpResponse",
    "HttpTimeout",
    "ProtocolError",
    "Timeouts",
    "TlsFiles",
    "TooLarge",
    "prepare",
]
