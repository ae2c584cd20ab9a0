"""Markdown files that authors edit: each ends with a digest, and is rewritten until its text has been changed."""

import hashlib
from pathlib import Path

from cinefeed.core.errors import SettingError
from cinefeed.core.locks import write_text

_SEAL = "<!-- written by cinefeed; rewritten until the file is edited: "


def sealed(text: str) -> str:
    """Return text with its digest in a last line, by which `write_sealed` detects an author's changes."""
    return f"{text}\n{_SEAL}{_digest(text)} -->\n"


def write_sealed(text: str, path: Path) -> bool:
    """Write what `sealed` returned, unless an author has changed or made the existing file; return whether it did.

    Raises SettingError if the file cannot be read or written.
    """
    try:  # an editor may have saved it in another encoding: then the digest differs, and the file stays
        existing = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}; delete it or choose another path") from error
    if existing is not None:
        before, _, seal = existing.partition(f"\n{_SEAL}")
        if seal.strip() != f"{_digest(before)} -->":
            return False
    write_text(text, path)
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
