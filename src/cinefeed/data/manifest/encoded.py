"""Manifests of encoded features: the network that computed them, and checks against features of other networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video.regions import VERSION

ENCODED = "encoded_from"  # column with the name of the network
VIDEOS = "videos"  # note with the path of the manifest of the videos


def encoded_from(manifest: Manifest) -> str | None:
    """Return the name of the network that computed the features, as in `cinefeed encode`; None if rows are videos.

    Raises SettingError if the features are of several networks, or some rows are videos.
    """
    if ENCODED not in manifest.table.column_names:
        return None
    networks = pc.unique(manifest.column(ENCODED)).to_pylist()
    if len(networks) > 1:
        names = ", ".join(str(each or "videos") for each in networks[:3])
        raise SettingError(
            f"the rows are features of {len(networks)} kinds ({names}), which one model cannot read; select one kind"
        )
    return None if networks[0] is None else str(networks[0])


def source_videos(features: Manifest) -> Manifest | None:
    """Return the videos of the rows of features, in their order; None if their manifest is unknown or not there."""
    path = features.notes.get(VIDEOS)
    if path is None or features.private or not Path(path).is_file():
        return None
    videos = Manifest.read(path)
    rows = pc.index_in(features.column("id"), value_set=videos.column("id"))
    return None if rows.null_count else videos.take(rows.to_numpy())


def made_by_a_run(manifest: Manifest) -> bool:
    """Return whether the features are from the network of a run, which was trained on some of them, not a backbone.

    >>> import pyarrow as pa
    >>> table = pa.table({"path": ["a", "b"], "encoded_from": ["keras:MobileNetV2, weights 1f, frames 96x96x1"] * 2})
    >>> made_by_a_run(Manifest.from_table(table))
    False
    """
    return (encoded_from(manifest) or "").partition(", weights ")[0].endswith(" of a run")


def check_encoded(manifest: Manifest, *, like: Manifest) -> None:
    """Raise SettingError if the rows of a manifest are not of the kind (features, videos) that a run was trained on."""
    required, actual = encoded_from(like), encoded_from(manifest)
    if required != actual:
        raise SettingError(
            f"the run was trained on {'features of ' + required if required else 'videos'}, and these rows are "
            f"{'features of ' + actual if actual else 'videos'}"
            + ("; encode them first, with the same network: cinefeed encode" if required else "")
        )


def feature_frame(manifest: Manifest) -> Mapping[str, Any]:
    """Return the `[frame]` settings with which a feed does not change features; {} if the rows are videos.

    Raises SettingError if the number of features differs between rows.
    """
    if encoded_from(manifest) is None:
        return {}
    sizes = pc.unique(manifest.column("width").drop_null()).to_pylist()
    if len(sizes) != 1:
        raise SettingError(
            f"the rows have {', '.join(map(str, sizes)) or 'no'} features per frame; all rows need the same number"
        )
    frame = {"height": 1, "width": sizes[0], "channels": 1, "fit": "none", "dtype": "float32"}
    versions = pc.unique(manifest.column("height").drop_null()).to_pylist()
    if len(versions) != 1:
        raise SettingError(f"the rows have {versions} versions of their features; encode all with the same --augmented")
    return frame if versions == [1] else frame | {"region": VERSION}
