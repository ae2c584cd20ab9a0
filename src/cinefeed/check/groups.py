"""Groups, such as patients, that are in two parts of a split, and rows that are in none."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, finding
from cinefeed.manifest.table import Manifest
from cinefeed.split import encode
from cinefeed.text import format_count

_FROM_HEADERS = ("patient", "study", "series")  # the widest first


class Groups(NamedTuple):
    """What must not be in two parts: a name, and the group of each row as text, null where it is not known."""

    name: str
    values: Any

    @property
    def codes(self) -> NDArray[np.int64]:
        """The group of each row as a number; each row without a group stands for itself."""
        codes = encode(self.values).codes
        alone = codes < 0
        codes[alone] = codes.max(initial=-1) + 1 + np.arange(np.count_nonzero(alone))
        return codes


def groups_of(manifest: Manifest, group: str | None) -> Groups | None:
    """Return the groups that a column names, or those of the columns patient, study and series, or None.

    Of these three, a row counts for its patient, where that is not known for its study, and then for its series.
    Raises ColumnError for a column that is not there.
    """
    if group is not None:
        return Groups(group, manifest.column(group).cast(pa.string()))
    there = [name for name in _FROM_HEADERS if name in manifest.table.schema.names]
    there = [name for name in there if manifest.column(name).null_count < len(manifest)]
    if not there:
        return None
    texts = [pc.binary_join_element_wise(name, manifest.column(name).cast(pa.string()), " ") for name in there]
    values = pc.coalesce(*texts) if len(there) > 1 else manifest.column(there[0]).cast(pa.string())
    return Groups(", else ".join(there), values)


def joined_groups(manifest: Manifest, *, group: str | None, sets: Iterable[Sequence[int]]) -> tuple[str, ...]:
    """Return for each row the group that a split must keep together.

    Rows are together that have one group, by the column named or by headers, that are stretches of one video, or that
    are in one of the sets, such as those of look-alikes; and so are the rows that these connect.

    >>> manifest = Manifest.from_table({"path": ["a", "b", "c", "d"], "patient": ["p1", "p2", None, "p4"]})
    >>> joined_groups(manifest, group="patient", sets=[[0, 1]])
    ('p1 + p2', 'p1 + p2', 'row c', 'p4')
    """
    from scipy.sparse import coo_array  # scikit-learn depends on it
    from scipy.sparse.csgraph import connected_components

    kinds = _kinds(manifest, group)
    rows, count = np.arange(len(manifest)), len(manifest)
    links = [np.array([(each[0], row) for each in sets for row in each[1:]], np.int64).reshape(-1, 2)]
    for codes in [*(kind.codes for kind in kinds), encode(_files(manifest)).codes]:
        links.append(np.stack([rows, count + codes], axis=1))  # each group and each file is a node beside the rows
        count += int(codes.max(initial=-1)) + 1
    first, second = np.concatenate(links).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    joined = connected_components(graph, directed=False)[1][: len(manifest)].tolist()
    ids = manifest.column("id").cast(pa.string()).to_pylist()
    values = kinds[0].values.to_pylist() if kinds else [None] * len(manifest)
    members: dict[int, dict[str, None]] = {}
    for row, component in enumerate(joined):
        members.setdefault(component, {})[values[row] or f"row {ids[row]}"] = None
    names = {component: _joined_name(list(each)) for component, each in members.items()}
    return tuple(names[component] for component in joined)


def _joined_name(names: list[str]) -> str:
    """Return a name that no other group has: each of these is in one group only."""
    return " + ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def parts_of(manifest: Manifest) -> Any | None:
    """Return the part of each row as text, or None where the manifest is not split."""
    if "split" not in manifest.table.schema.names:
        return None
    parts = manifest.column("split")
    return None if parts.null_count == len(parts) else parts


def group_findings(manifest: Manifest, *, group: str | None) -> list[Finding]:
    """Return groups and files in two parts, and rows without a group or a part."""
    kinds = _kinds(manifest, group)
    parts = parts_of(manifest)
    found: list[Finding] = []
    if parts is not None:
        for each in kinds:
            found += _across(each, parts)
        found += _files_across(manifest, parts)
        found += _without_part(parts)
    for each in kinds[:1]:
        found += _without_group(each)
    if parts is None:
        found.append(
            finding(
                "note",
                "not_split",
                "the manifest is not split yet",
                detail="Whether groups or copies leak from one part into another can be told after the split alone.",
                advice=f"split with --group {kinds[0].name.split(',')[0] if kinds else 'PATIENT'}, and check again",
                count=len(manifest),
            )
        )
    if not kinds:
        found.append(
            finding(
                "note",
                "no_group",
                "no group is known",
                detail="Rows of one patient look alike; without a group each row stands for itself.",
                advice="name the column of patients, or of whatever must stay together, with --group",
                count=len(manifest),
            )
        )
    return found


def _across(groups: Groups, parts: Any) -> list[Finding]:
    group, part = encode(groups.values), encode(parts)
    known = (group.codes >= 0) & (part.codes >= 0)
    pairs = np.unique(np.stack([group.codes[known], part.codes[known]]), axis=1)
    leaking = np.flatnonzero(np.bincount(pairs[0], minlength=len(group.values)) > 1)
    if len(leaking) == 0:
        return []
    rows = np.flatnonzero(np.isin(group.codes, leaking))
    rows = rows[np.argsort(group.codes[rows], kind="stable")]
    return [
        finding(
            "error",
            "groups_across_splits",
            f"{len(leaking):,} of {format_count(len(group.values), 'value')} of {groups.name} in more than one part",
            detail="What a model learns of a patient in training helps it with that patient in the test, and with no "
            "other: results are too good.",
            advice=f"split again with --group {groups.name.split(',')[0]}",
            rows=rows,
            remarks=[
                f"{group.values[group.codes[row]]}: {parts[int(row)].as_py() or 'no part'}" for row in rows.tolist()
            ],
        )
    ]


def _files_across(manifest: Manifest, parts: Any) -> list[Finding]:
    """Return stretches of one video in two parts; parts of one file may be of different patients."""
    file, part = encode(_files(manifest)), encode(parts)
    pairs = np.unique(np.stack([file.codes, part.codes])[:, part.codes >= 0], axis=1)
    leaking = np.flatnonzero(np.bincount(pairs[0], minlength=len(file.values)) > 1)
    rows = np.flatnonzero(np.isin(file.codes, leaking))
    if len(rows) == 0:
        return []
    return [
        finding(
            "error",
            "files_across_splits",
            f"{format_count(len(leaking), 'video')} with stretches in more than one part",
            detail="Stretches of one video show the same patient and scene.",
            advice="split again with --group on a column that is the same for all stretches of a video",
            rows=rows,
            remarks=[parts[row].as_py() or "no part" for row in rows.tolist()],
        )
    ]


def _files(manifest: Manifest) -> Any:
    """Return what tells the files, or the parts of files, of the rows apart."""
    files = manifest.column("path")
    if "part" not in manifest.table.schema.names:
        return files
    return pc.binary_join_element_wise(files, pc.fill_null(manifest.column("part"), ""), "\n")


def _kinds(manifest: Manifest, group: str | None) -> list[Groups]:
    """Return the groups that a column names and those of headers, as far as there are such."""
    kinds = [each for each in (groups_of(manifest, group), groups_of(manifest, None)) if each is not None]
    return [each for i, each in enumerate(kinds) if each.name not in {before.name for before in kinds[:i]}]


def _without_part(parts: Any) -> list[Finding]:
    rows = np.flatnonzero(parts.is_null().to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return []
    return [
        finding(
            "warning",
            "rows_without_split",
            f"{format_count(len(rows), 'row')} in no part of the split",
            detail="They came after the split, or were left out of it: nothing learns from them or is tested on them.",
            advice="deal them out with 'cinefeed split --keep split', or leave them out with --where",
            rows=rows,
        )
    ]


def _without_group(groups: Groups) -> list[Finding]:
    rows = np.flatnonzero(groups.values.is_null().to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return []
    return [
        finding(
            "warning",
            "rows_without_group",
            f"{format_count(len(rows), 'row')} without {groups.name}",
            detail="Whose they are is not known, so they may leak from one part into another; a split refuses them.",
            advice="fill the column, or leave those rows out",
            rows=rows,
        )
    ]
