"""Checks of the size of packed shards."""

from pathlib import Path

END_BYTES = 1024  # two empty blocks at the end of a tar


def shard_fault(path: Path, *, end: int) -> str | None:
    """Return the fault of a shard that is missing or cut off, else None; `end` is the end of its last video in bytes.

    >>> shard_fault(Path("shards/000007.tar"), end=512)
    'is missing'
    """
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if size >= end + END_BYTES else f"is cut off: it has {size:,} bytes of {end + END_BYTES:,} or more"
