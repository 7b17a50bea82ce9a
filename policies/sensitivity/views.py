"""Other readings of a text: what percent signs, JSON escapes and base64 hide, one level deep.

Places are bytes of the normalised text throughout. A view remembers only where it differs from it.
"""

from __future__ import annotations

import binascii
import bisect
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from policies.sensitivity.normalise import normalise
from policies.sensitivity.rules import compiled, spans

_OTHERS = r"\\{1,8}[nrt\"/]|&#(?:[0-9]{2,7}|x[0-9A-Fa-f]{2,6});|&(?:amp|quot|lt|gt|apos);"
ESCAPE_PATTERN = rf"%[0-9A-Fa-f]{{2}}|\\u[0-9A-Fa-f]{{4}}|{_OTHERS}"
BASE64_PATTERN = r"[0-9A-Za-z+/_-]{24}"
MAX_DECODED = 1024 * 1024
"""Most bytes of text that base64 may hide before the scan gives up, which means the top label."""
_PROBE = 3 * 256
_AROUND = 256
"""Bytes on either side of an escape that are read together with it."""

_escapes = compiled(rf"(?:%[0-9A-Fa-f]{{2}})+|(?:\\{{1,8}}u[0-9A-Fa-f]{{4}})+|{_OTHERS}")
_runs = compiled(r"[0-9A-Za-z+/_-]{24,}(?:(?:\\n|\r?\n)[0-9A-Za-z+/_-]{4,})*={0,2}")
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_TEXTUAL = bytes([9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0xF5)])
_ENTITIES = {b"&amp;": b"&", b"&quot;": b'"', b"&lt;": b"<", b"&gt;": b">", b"&apos;": b"'"}
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


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
    """The text with percent signs, JSON escapes and character references read, as far as something can depend on
    them: each with what stands around it. None where there are none."""
    edits = list(_edits(data))
    if not edits:
        return None
    out: list[bytes] = []
    starts: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []
    size = done = 0

    def add(text: bytes, there: int, there_end: int) -> None:
        nonlocal size
        starts.append(size)
        pieces.append((size, size + len(text), there, there_end))
        out.append(text)
        size += len(text)

    for i, (start, end, text) in enumerate(edits):
        if i == 0 or start - edits[i - 1][1] > 4 * _AROUND:
            left = max(_word(data, start - _AROUND, -1), done)
            done = left
            add(b"", left, left)
        out.append(data[done:start])
        size += start - done
        add(text, start, end)
        done = end
        if i + 1 == len(edits) or edits[i + 1][0] - end > 4 * _AROUND:
            right = _word(data, end + _AROUND, 1)
            out.append(data[done:right] + b"\n\n")
            size += right - done + 2
            done = right
    return View(b"".join(out), starts, pieces)


def _edits(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each escape and what it stands for; several that make up characters together count as one."""
    for start, end in spans(_escapes, data):
        text = _unescape(data[start:end])
        if text is None:
            continue
        step, rest = divmod(end - start, max(data.count(b"%", start, end) or data.count(b"u", start, end), 1))
        if text.isascii() and not rest and len(text) * step == end - start:
            for i in range(len(text)):
                yield start + i * step, start + (i + 1) * step, text[i : i + 1]
        else:
            yield start, end, text


def _word(data: bytes, position: int, step: int) -> int:
    """The end of the word at a position, so that no number is cut; of an endless word, some place in it."""
    position = max(0, min(position, len(data)))
    for _ in range(_AROUND):
        if not 0 < position < len(data) or data[position - 1 : position].isspace():
            break
        position += step
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:  # not within a character
        position += step
    return position


def _unescape(text: bytes) -> bytes | None:
    try:
        if text[:1] == b"%":
            return _visible(urllib.parse.unquote_to_bytes(text).decode())
        if text[:1] == b"\\" and b"u" in text:
            units = binascii.unhexlify(text.translate(None, b"\\u"))
            return _visible(units.decode("utf-16-be"))
        if text[:2] == b"&#":
            code = int(text[3:-1], 16) if text[2:3] in b"xX" else int(text[2:-1])
            return _visible(chr(code))
    except (UnicodeError, ValueError, OverflowError):
        return None
    return _PLAIN.get(text[-1:], text[-1:]) if text[:1] == b"\\" else _ENTITIES[text]


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
    run = run.replace(b"\\n", b"").translate(_URLSAFE, b"\r\n=")
    for skip in range(4):  # the run may begin with something else, such as a path
        if len(_base64(run[skip + 8 : skip + 40]).translate(None, _TEXTUAL)) > 1:  # most runs are no text at all
            continue
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
    return sum(char.isprintable() or char in "\n\r\t" for char in text) >= 0.9 * len(text)
