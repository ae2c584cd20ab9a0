"""Columns that may be groups of a split, such as patients."""

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.data.manifest.base import ManifestTable

_GROUPS = ("patient", "subject", "person", "participant", "speaker", "case", "study", "group")  # most likely first


def group_candidates(manifest: ManifestTable, *, target: str = "") -> list[str]:
    """Return the columns that may be groups (text or integers with repeated values), the most likely first.

    >>> table = pa.table({"path": ["a", "b", "c"], "patient": ["x", "x", "y"], "age": [1.5, 2.5, 3.5]})
    >>> from cinefeed.data.manifest.manifest import Manifest
    >>> group_candidates(Manifest.from_table(table), target="age")
    ['patient (2 values in 3 rows)']
    """
    candidates = []
    for name in manifest.labels:
        column = manifest.column(name)
        is_id = pa.types.is_string(column.type) or pa.types.is_integer(column.type)
        if not is_id:
            continue
        count = pc.count_distinct(column).as_py()
        rank = next((index for index, hint in enumerate(_GROUPS) if hint in name.lower()), len(_GROUPS))
        # Classes have repeated values too: columns with other names need few rows per value.
        if name != target and 1 < count <= len(manifest) and (rank < len(_GROUPS) or 4 * count >= len(column)):
            some = f"{len(column) - column.null_count} of " if column.null_count else ""
            candidates.append((rank, -count, f"{name} ({count} values in {some}{len(manifest)} rows)"))
    return [text for _, _, text in sorted(candidates)]


def likely_group(manifest: ManifestTable) -> str:
    """Return the column that is most likely the group of a split; 'patient' without a candidate.

    >>> from cinefeed.data.manifest.manifest import Manifest
    >>> likely_group(Manifest.from_table({"path": ["a", "b", "c"], "patient_group": ["x", "x", "y"]}))
    'patient_group'
    """
    candidates = group_candidates(manifest)
    return candidates[0].rpartition(" (")[0] if candidates else "patient"
