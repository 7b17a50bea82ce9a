"""Other readings of a text: what percent signs, JSON escapes and base64 hide, one level deep.

Places are bytes of the normalised text throughout. A view remembers only where it differs from it.
"""

from __future__ import annotations

import binascii
import bisect
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field

from policies.sensitivity.normalise import normalise
from policies.sensitivity.rules import compiled, spans

ESCAPE_PATTERN = r"%[0-9A-Fa-f]{2}|\\(?:u[0-9A-Fa-f]{4}|[nrt\"/\\])|&#(?:[0-9]{2,7}|x[0-9A-Fa-f]{2,6});|&(?:amp|quot|lt|gt|apos);"
BASE64_PATTERN = r"[0-9A-Za-z+/_-]{24}"
MAX_DECODED = 1024 * 1024
"""Most bytes of text that base64 may hide before the scan gives up, which means the top label."""
_PROBE = 3 * 256
_MIN_RUN = 24

_escapes = compiled(
    r"(?:%[0-9A-Fa-f]{2})+|(?:\\u[0-9A-Fa-f]{4})+|\\[nrt\"/\\]|&#(?:[0-9]{2,7}|x[0-9A-Fa-f]{2,6});|&(?:amp|quot|lt|gt|apos);"
)
_runs = compiled(r"[0-9A-Za-z+/_-]{24,}(?:(?:\\n|\r?\n)[0-9A-Za-z+/_-]{4,})*={0,2}")
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_ENTITIES = {b"&amp;": b"&", b"&quot;": b'"', b"&lt;": b"<", b"&gt;": b">", b"&apos;": b"'"}
_PLAIN = {b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t", b'\\"': b'"', b"\\/": b"/", b"\\\\": b"\\"}


class TooMuch(Exception):
    """There is more to scan than the limit allows. The message holds sizes only."""


@dataclass(frozen=True, slots=True)
class View:
    """A reading of a text and where each part of it comes from."""

    data: bytes = field(repr=False)
    starts: Sequence[int] = field(default=(), repr=False)  # where the pieces that differ begin in `data`, ascending
    pieces: Sequence[tuple[int, int, int, int]] = field(default=(), repr=False)  # (start, end) here, then there

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """A span of this view as a span of the normalised text."""
        return self._origin(start, False), self._origin(end, True)

    def _origin(self, position: int, is_end: bool) -> int:
        find = bisect.bisect_left if is_end else bisect.bisect_right
        i = find(self.starts, position) - 1
        if i < 0:
            return position
        _, end, there, there_end = self.pieces[i]
        if position < end or (is_end and position == end):
            return there_end if is_end else there
        return there_end + position - end


def unescaped(data: bytes) -> View | None:
    """The text with percent signs, JSON escapes and character references read; None where that changes nothing."""
    out: list[bytes] = []
    starts: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []
    done = size = 0
    for start, end in spans(_escapes, data):
        decoded = _unescape(data[start:end])
        if decoded is None:
            continue
        size += start - done
        out += (data[done:start], decoded)
        starts.append(size)
        pieces.append((size, size + len(decoded), start, end))
        size += len(decoded)
        done = end
    if not pieces:
        return None
    out.append(data[done:])
    return View(b"".join(out), starts, pieces)


def _unescape(text: bytes) -> bytes | None:
    try:
        if text[:1] == b"%":
            return _visible(urllib.parse.unquote_to_bytes(text).decode())
        if text[:2] == b"\\u":
            units = binascii.unhexlify(text.replace(b"\\u", b""))
            return _visible(units.decode("utf-16-be"))
        if text[:2] == b"&#":
            code = int(text[3:-1], 16) if text[2:3] in b"xX" else int(text[2:-1])
            return _visible(chr(code))
    except (UnicodeError, ValueError, OverflowError):
        return None
    return _PLAIN.get(text) or _ENTITIES.get(text)


def _visible(text: str) -> bytes:
    return normalise(text).encode()


def decoded(data: bytes) -> View | None:
    """What runs of base64 (RFC 4648, both alphabets) hide, as far as it is text; None where none is.

    Raises TooMuch where more text is hidden than may be looked at.
    """
    out: list[bytes] = []
    starts: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []
    size = 0
    for start, end in spans(_runs, data):
        text = _text(data[start:end])
        if text is None:
            continue
        starts.append(size)
        pieces.append((size, size + len(text), start, end))
        out.append(text)
        size += len(text) + 2
        if size > MAX_DECODED:
            raise TooMuch(f"base64 hides over {MAX_DECODED} bytes of text")
    return View(b"\n\n".join(out), starts, pieces) if pieces else None


def _text(run: bytes) -> bytes | None:
    run = run.translate(_URLSAFE, b"\r\n\\=") if b"\\n" not in run else run.replace(b"\\n", b"").translate(_URLSAFE, b"\r\n=")
    for skip in range(4):  # the run may begin with something else, such as a path
        if _readable(_base64(run[skip : skip + 4 * _PROBE // 3])[:-3]):
            return normalise(_base64(run[skip:]).decode(errors="replace")).encode()
    return None


def _base64(run: bytes) -> bytes:
    usable = len(run) - (len(run) % 4 == 1)
    return binascii.a2b_base64(run[:usable] + b"=" * (-usable % 4))


def _readable(sample: bytes) -> bool:
    """Mostly printable UTF-8; a character cut off at the end of the sample counts as whole."""
    text = sample.decode(errors="ignore")
    if len(sample) - len(text.encode()) > 3 or len(text) < 8:
        return False
    return sum(char.isprintable() or char in "\n\r\t" for char in text) >= 0.95 * len(text)
