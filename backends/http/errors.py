"""What can go wrong between us and an upstream.

    HttpError
     ├─ ConnectError       no connection: name, refused, reset, TLS
     ├─ HttpTimeout        first byte, or between bytes
     ├─ ConnectTimeout     no connection in time: both of the above
     ├─ ProtocolError      what came is not an HTTP/1.1 response, or not all of one
     └─ TooLarge           headers or a buffered body over the limit

Messages name the upstream and the fault, never what was sent or received.
"""

from __future__ import annotations


class HttpError(Exception):
    pass


class ConnectError(HttpError):
    pass


class HttpTimeout(HttpError):
    pass


class ConnectTimeout(ConnectError, HttpTimeout):
    pass


class ProtocolError(HttpError):
    pass


class TooLarge(HttpError):
    pass
