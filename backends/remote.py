"""What the HTTP backends share: the connection, credentials, and what an upstream's failure means for us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backends.errors import BackendError, Failed, Overloaded, RequestRejected, TimedOut, Unreachable
from backends.errors import BadAnswer as BadAnswerError
from backends.http import ConnectError, HttpClient, HttpError, HttpResponse, HttpTimeout, Timeouts, TlsFiles, prepare
from backends.jsonbody import NotJson, decode
from policies.schema import Backend as BackendSpec

MAX_ERROR_BODY = 64 * 1024
_CALLERS_FAULT = (400, 413, 415, 422)


class RemoteBackend:
    """A backend behind a URL. `api_key` is the secret itself, already looked up. Raises BackendError for a URL or TLS
    files that cannot be used."""

    def __init__(self, spec: BackendSpec, folder: Path, api_key: str | None = None) -> None:
        self.spec = spec
        auth = [("authorization", f"Bearer {api_key}")] if api_key else []
        times, tls = spec.timeouts, spec.tls
        files = (
            TlsFiles(*(str(folder / f) if f else None for f in (tls.ca_file, tls.client_cert, tls.client_key)))
            if tls
            else None
        )
        try:
            self._client = HttpClient(
                spec.url or "",
                timeouts=Timeouts(times.connect_s, times.first_byte_s, times.idle_s),
                tls=files,
                max_connections=spec.limits.max_in_flight + 2,  # room for probes beside a full load
                max_idle=spec.limits.max_in_flight + 2,  # what a load has needed it needs again: they expire by time
            )
            self._auth = prepare(auth)
        except ValueError as error:
            raise BackendError(f"{spec.name}: {error}") from None

    async def start(self) -> None:
        """Nothing to load; whether it answers is for the probes to find out."""

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes | memoryview] = b"",
        *,
        stream: bool = False,
        again: bool = True,
        prepared: bytes = b"",
    ) -> HttpResponse:
        """The response, whatever its status. Transport errors come as BackendError."""
        try:
            known = prepared + self._auth
            return await self._client.request(method, path, headers, body, stream=stream, again=again, prepared=known)
        except HttpError as error:
            raise self.translate(error) from error

    def translate(self, error: HttpError) -> BackendError:
        kind = {ConnectError: Unreachable, HttpTimeout: TimedOut}
        found = next((ours for theirs, ours in kind.items() if isinstance(error, theirs)), BadAnswerError)
        # Callers are told who failed, not where it stands.
        return found(f"{self.spec.name}: {str(error).removeprefix(f'{self._client.where}: ')}")

    async def refuse(self, response: HttpResponse, *, stream: bool = False) -> None:
        """Raise what a status other than 2xx means."""
        status = response.status
        if 200 <= status < 300:
            return
        body = await self._error_body(response) if stream else response.body[:MAX_ERROR_BODY]
        where = f"{self.spec.name} answered {status}"
        if status in _CALLERS_FAULT:
            raise RequestRejected(f"{where}: it does not accept this request", status=status, body=_json_object(body))
        if status in (429, 503):
            raise Overloaded(f"{where}: overloaded", retry_after_s=_seconds(response.header("retry-after")))
        if status in (401, 403):
            raise Failed(f"{where}: it refused the router's credentials")
        if status in (404, 405, 501):
            raise Failed(f"{where}: it does not know this path or model")
        if status in (408, 504):
            raise TimedOut(f"{where}: it ran out of time")
        raise Failed(where)

    async def _error_body(self, response: HttpResponse) -> bytes:
        body = b""
        try:
            async for chunk in response.chunks():
                body += chunk
                if len(body) > MAX_ERROR_BODY:
                    break
        except HttpError:
            body = b""  # the status has been told; an unreadable explanation of it adds nothing
        finally:
            await response.aclose()
        return body[:MAX_ERROR_BODY]


def _json_object(body: bytes) -> bytes | None:
    """The body when it is a JSON object, as an error answer of our protocols must be."""
    try:
        return body if isinstance(decode(body), dict) else None
    except NotJson:
        return None


def _seconds(value: str | None) -> float | None:
    """A retry-after given in seconds. Dates are left alone: upstream clocks are not ours."""
    try:
        return max(0.0, min(float(value), 3600.0)) if value else None
    except ValueError:
        return None
