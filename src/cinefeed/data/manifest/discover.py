"""The samples of a folder with their labels, ids and hashed columns, before any file is opened."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cinefeed.core.remote.files import RemoteFiles
from cinefeed.data.manifest.columns import plain_table
from cinefeed.data.manifest.find import (
    History,
    describe_videos,
    find_remote_videos,
    find_videos,
    salt_fingerprint,
    with_hashes,
)
from cinefeed.data.manifest.ids import with_ids
from cinefeed.data.manifest.labels import Unmatched
from cinefeed.data.manifest.output_folders import count_files
from cinefeed.data.manifest.scan import Verify, scan_notes
from cinefeed.video.read_options import ReadOptions


class Discovery(NamedTuple):
    """A table with one row per sample, the number of rows after each step, and the notes of the manifest."""

    samples: Any
    history: History
    notes: dict[str, Any]


def discover_samples(
    root: Path | RemoteFiles,
    *,
    labels: object | None,
    on: str | Sequence[str] | None,
    path_columns: str | None,
    unmatched: Unmatched,
    verify: Verify,
    reading: ReadOptions,
    private: bool,
    share_labels: bool,
    make_salt: Callable[[], str],
) -> Discovery:
    """Return the samples in a folder; `make_salt` is called if columns are hashed and `reading.salt` is None.

    See `Manifest.scan` for the other arguments and the errors.
    """
    if isinstance(root, RemoteFiles):
        videos, not_read = find_remote_videos(root, reading=reading, private=private)
    else:
        videos, not_read = find_videos(root, reading=reading, private=private)
    secret = [name for name in ("patient", "study", "series") if name in videos.schema.names]
    samples, history = describe_videos(
        videos,
        root=root.root if isinstance(root, RemoteFiles) else root,
        labels=labels,
        on=on,
        path_columns=path_columns,
        unmatched=unmatched,
        not_read=count_files(not_read),
        private=private,
        share_labels=share_labels,
    )
    has_ids = "id" in samples.schema.names
    samples = with_ids(plain_table(samples, name="the scan"), name="the scan")
    hashed: dict[str, Any] = {}
    if secret or private:
        salt = make_salt() if reading.salt is None else reading.salt
        columns = [*secret, *([] if has_ids or not private else ["id"])]
        samples = with_hashes(samples, columns, salt=salt)
        hashed = {"columns": columns, "fingerprint": salt_fingerprint(salt)} if salt else {}
    notes: dict[str, Any] = {**scan_notes(verify, reading), "hashed": hashed}
    notes |= ({"private": True} if private else {}) | ({"not_read": not_read} if not_read else {})
    return Discovery(samples, history, notes)
