"""Files that end with a digest of all bytes before it, so that damage is detected.

Readers of HDF5 and of zip archives (.npz) ignore bytes after the end of their data. Their own checks are not enough:
HDF5 has none for the weights that Keras writes, and an archive whose list of contents is damaged may lack a member
without an error.
"""

import hashlib
import re
from pathlib import Path

_MARK = b"\ncinefeed sha256 "
_LENGTH = len(_MARK) + 64
_TEXT_END = re.compile(r'(.*)(?:# |, ")cinefeed sha256(?: |": ")([0-9a-f]{64})(?:"\})?\n', re.DOTALL)


def append_digest(path: Path) -> None:
    """Append the digest of a file to it."""
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_MARK + digest)


def is_whole(path: Path) -> bool:
    """Return whether a file ends with a digest that matches the bytes before it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npz"
    >>> _ = path.write_bytes(b"what was written")
    >>> append_digest(path)
    >>> is_whole(path)
    True
    >>> _ = path.write_bytes(path.read_bytes().replace(b"written", b"altered"))
    >>> is_whole(path)
    False
    """
    size = path.stat().st_size - _LENGTH
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        end = file.read()
    return end == _MARK + _digest(path, size)


def toml_with_digest(text: str) -> str:
    """Return TOML text, which must end with a line break, followed by a comment with its digest."""
    return f"{text}# cinefeed sha256 {hashlib.sha256(text.encode()).hexdigest()}\n"


def json_with_digest(text: str) -> str:
    """Return the text of a JSON object with one key added at its end: the digest of the text before that key.

    >>> json_with_digest('{"a": 1}')[:29]
    '{"a": 1, "cinefeed sha256": "'
    """
    before = text.rstrip().removesuffix("}").rstrip()
    return f'{before}, "cinefeed sha256": "{hashlib.sha256(before.encode()).hexdigest()}"}}\n'


def is_text_changed(text: str) -> bool:
    r"""Return whether TOML or JSON ends with a digest that does not match the text before it; False without a digest.

    >>> text = toml_with_digest("a = 1\n")
    >>> is_text_changed(text), is_text_changed(text.replace("1", "2", 1)), is_text_changed("a = 2")
    (False, True, False)
    """
    end = _TEXT_END.fullmatch(text)
    return end is not None and hashlib.sha256(end[1].encode()).hexdigest() != end[2]


def _digest(path: Path, size: int) -> bytes:
    """Return the SHA-256 of the first bytes of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest().encode()
