"""A manifest of features: which network made them of the videos' frames, and that no other's are taken for them."""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from cinefeed.errors import SettingError
from cinefeed.manifest.table import Manifest

ENCODED = "encoded_from"  # the column that names the network


def encoded_from(manifest: Manifest) -> str | None:
    """Return the network whose features the rows are, as `cinefeed encode` names it; None where they are videos.

    Raises SettingError where they are of several networks, or some are videos.
    """
    if ENCODED not in manifest.table.column_names:
        return None
    found = pc.unique(manifest.column(ENCODED)).to_pylist()
    if len(found) > 1:
        said = ", ".join(str(each or "videos") for each in found[:3])
        raise SettingError(f"the rows are features of {len(found)} kinds ({said}), which no model can read together")
    return None if found[0] is None else str(found[0])


def made_by_a_run(manifest: Manifest) -> bool:
    """Return whether rows are features of a run's network, which has learnt from a part of them; a backbone has not.

    >>> import pyarrow as pa
    >>> table = pa.table({"path": ["a", "b"], "encoded_from": ["MobileNetV2, weights 1f, frames 96x96x1"] * 2})
    >>> made_by_a_run(Manifest.from_table(table))
    False
    """
    return " of " in (encoded_from(manifest) or "").partition(", weights ")[0]


def check_encoded(manifest: Manifest, *, like: Manifest) -> None:
    """Raise SettingError where a manifest holds other features than those that a run was trained on, or videos."""
    wanted, found = encoded_from(like), encoded_from(manifest)
    if wanted != found:
        raise SettingError(
            f"the run was trained on {'features of ' + wanted if wanted else 'videos'}, and these rows are "
            f"{'features of ' + found if found else 'videos'}"
            + ("; encode them first, with the same network: cinefeed encode" if wanted else "")
        )


def feature_frame(manifest: Manifest) -> Mapping[str, Any]:
    """Return the `[frame]` by which features pass a feed unchanged; {} where the rows are videos.

    Raises SettingError where features differ in number.
    """
    if encoded_from(manifest) is None:
        return {}
    sizes = pc.unique(manifest.column("width").drop_null()).to_pylist()
    if len(sizes) != 1:
        raise SettingError(f"the rows have {', '.join(map(str, sizes)) or 'no'} features a frame; one number is needed")
    return {"height": 1, "width": sizes[0], "channels": 1, "fit": "none", "dtype": "float32"}
