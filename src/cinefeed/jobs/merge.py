"""The parts of some work as one result: what one process would have written, byte for byte."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cinefeed.jobs.records import read_parts


def merge(parts: str | Path | Sequence[str | Path], *, out: str | Path) -> dict[str, Any]:
    """Write the result of all parts to `out`: a manifest, packed shards, features or predictions.

    The files are those that one process without parts would have written, byte for byte. Large files are linked, or
    copied if `out` is on another file system; the parts stay, and can be deleted afterwards.

    Args:
        parts: The folder of the parts, or several.
        out: The file or folder to write, as without --shard.

    Returns what the command prints as JSON. Raises SettingError for parts of different work, TableError for parts that
    are missing, unfinished, doubled or damaged, InUseError while another process writes `out`.
    """
    folders = [parts] if isinstance(parts, str | Path) else parts
    done, target = read_parts([Path(each) for each in folders]), Path(out)
    command = done[0].job.command
    result: dict[str, Any]
    if command == "scan":
        from cinefeed.jobs.scan import merge_scan

        manifest = merge_scan(done, out=target)
        result = {"rows": len(manifest), "fingerprint": manifest.fingerprint, "not_read": manifest.not_read}
    elif command == "pack":
        from cinefeed.jobs.pack import merge_pack

        packed = merge_pack(done, out=target)
        result = {"rows": packed.rows, "shards": packed.shards, "bytes": packed.bytes, "failures": packed.failures}
    elif command == "encode":
        from cinefeed.jobs.encode import merge_encode

        encoded = merge_encode(done, out=target)
        result = {"rows": encoded.rows, "dimension": encoded.dimension, "failures": encoded.failures}
        result["warning"] = encoded.warning
    else:
        from cinefeed.jobs.predict import merge_predict

        result = merge_predict(done, out=target)
    return {"command": command, "parts": len(done), "out": str(target), **result}
