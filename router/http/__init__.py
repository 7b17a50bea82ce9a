"""HTTP/1.1 towards clients: requests in, answers out. Knows nothing of inference."""

from router.http.request import ClientGone, Inbound
from router.http.server import HttpServer

__all__ = ["ClientGone", "HttpServer", "Inbound"]
