"""Local weight files and their sha256. Imports no framework."""

import hashlib
from pathlib import Path

from cinefeed.core.errors import SettingError


def check_file(weights: str | Path | None, *, encoder: str) -> Path:
    """Return the path of a weight file. Raises SettingError without one: nothing is downloaded."""
    if weights is None:
        raise SettingError(
            f"{encoder} has no weights; pass a local file of its weights (--weights): none is downloaded"
        )
    if not Path(weights).is_file():
        raise SettingError(f"weights={str(weights)!r} is not a file; pass a local file: none is downloaded")
    return Path(weights)


def sha256_of(*paths: Path) -> str:
    """Return the sha256 of a file, or of several files in this order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
