"""Files that commands are given."""

from __future__ import annotations

from pathlib import Path

from policies.errors import ConfigurationError, Problem


def text_of(path: Path) -> str:
    """The file's text. Raises ConfigurationError with the reason."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigurationError([Problem(str(path), 0, 0, f"cannot be read: {error.strerror or error}")]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([Problem(str(path), 0, 0, "not UTF-8")]) from None
