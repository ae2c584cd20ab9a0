"""Columns that may name the patient, or whatever else must stay in one part."""

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.manifest.table import Manifest

_GROUPS = ("patient", "subject", "person", "participant", "speaker", "case", "study", "group")  # likeliest first


def group_candidates(manifest: Manifest, *, target: str) -> list[str]:
    """Return the columns that could say which rows belong together, the likeliest first: text, with values that repeat.

    >>> table = pa.table({"path": ["a", "b", "c"], "patient": ["x", "x", "y"], "age": [1.5, 2.5, 3.5]})
    >>> group_candidates(Manifest.from_table(table), target="age")
    ['patient (2 values in 3 rows)']
    """
    found = []
    for name in manifest.labels:
        column = manifest.column(name)
        is_id = pa.types.is_string(column.type) or pa.types.is_integer(column.type)
        if not is_id:
            continue
        count = pc.count_distinct(column).as_py()
        named = next((place for place, hint in enumerate(_GROUPS) if hint in name.lower()), len(_GROUPS))
        # A class repeats too: of columns with another name, those in which a value has few rows.
        if name != target and 1 < count <= len(manifest) and (named < len(_GROUPS) or 4 * count >= len(column)):
            found.append((named, -count, f"{name} ({count} values in {len(manifest)} rows)"))
    return [text for _, _, text in sorted(found)]
