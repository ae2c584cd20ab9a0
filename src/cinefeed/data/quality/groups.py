"""Findings about groups, such as patients, in more than one part of the split, and rows without a group or part."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import Finding, finding
from cinefeed.data.split import encode

_FROM_HEADERS = ("patient", "study", "series")  # the widest first


class Groups(NamedTuple):
    """Groups that must not be in two parts: a name, and the group of each row as text, null if unknown."""

    name: str
    values: Any

    @property
    def codes(self) -> NDArray[np.int64]:
        """The group of each row as a number; each row without a group is its own group."""
        codes = encode(self.values).codes
        has_no_group = codes < 0
        codes[has_no_group] = codes.max(initial=-1) + 1 + np.arange(np.count_nonzero(has_no_group))
        return codes


def groups_of(manifest: Manifest, group: str | None) -> Groups | None:
    """Return the groups of a column, or those of the columns patient, study and series, or None.

    Of these three, the group of a row is its patient, or if that is unknown its study, or else its series.
    Raises ColumnError if the manifest lacks the column.
    """
    if group is not None:
        return Groups(group, manifest.column(group).cast(pa.string()))
    present_names = [name for name in _FROM_HEADERS if name in manifest.table.schema.names]
    present_names = [name for name in present_names if manifest.column(name).null_count < len(manifest)]
    if not present_names:
        return None
    texts = [pc.binary_join_element_wise(name, manifest.column(name).cast(pa.string()), " ") for name in present_names]
    values = pc.coalesce(*texts) if len(present_names) > 1 else manifest.column(present_names[0]).cast(pa.string())
    return Groups(", else ".join(present_names), values)


def joined_groups(manifest: Manifest, *, group: str | None, sets: Iterable[Sequence[int]]) -> tuple[str, ...]:
    """Return for each row the group that a split must keep together.

    Rows belong together if they have the same group, in the given column or in the headers, if they are stretches of
    one video, or if they are in one of `sets`, such as those of near-duplicates. These relations are transitive.

    >>> manifest = Manifest.from_table({"path": ["a", "b", "c", "d"], "patient": ["p1", "p2", None, "p4"]})
    >>> joined_groups(manifest, group="patient", sets=[[0, 1]])
    ('p1 + p2', 'p1 + p2', 'row c', 'p4')
    """
    from scipy.sparse import coo_array  # scikit-learn depends on it
    from scipy.sparse.csgraph import connected_components

    kinds = _group_kinds(manifest, group)
    rows, count = np.arange(len(manifest)), len(manifest)
    links = [np.array([(each[0], row) for each in sets for row in each[1:]], np.int64).reshape(-1, 2)]
    for codes in [*(kind.codes for kind in kinds), encode(_file_keys(manifest)).codes]:
        links.append(np.stack([rows, count + codes], axis=1))  # each group and each file is a node, as each row
        count += int(codes.max(initial=-1)) + 1
    first, second = np.concatenate(links).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    components = connected_components(graph, directed=False)[1][: len(manifest)].tolist()
    ids = manifest.column("id").cast(pa.string()).to_pylist()
    values = kinds[0].values.to_pylist() if kinds else [None] * len(manifest)
    members: dict[int, dict[str, None]] = {}
    for row, component in enumerate(components):
        members.setdefault(component, {})[values[row] or f"row {ids[row]}"] = None
    names = {component: _joined_name(list(each)) for component, each in members.items()}
    return tuple(names[component] for component in components)


def _joined_name(names: list[str]) -> str:
    """Return a name for a joined group. It is unique, because each of `names` is in one group only."""
    return " + ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def parts_of(manifest: Manifest) -> Any | None:
    """Return the part of each row as text, or None if the manifest is not split."""
    if "split" not in manifest.table.schema.names:
        return None
    parts = manifest.column("split")
    return None if parts.null_count == len(parts) else parts


def group_findings(manifest: Manifest, *, group: str | None) -> list[Finding]:
    """Return findings about groups and files in more than one part, and rows without a group or part."""
    kinds = _group_kinds(manifest, group)
    parts = parts_of(manifest)
    findings: list[Finding] = []
    if parts is not None:
        for groups in kinds:
            findings += _leak_findings(groups, parts)
        findings += _file_leak_findings(manifest, parts)
        findings += _missing_part_findings(manifest, parts)
    if kinds:
        findings += _missing_group_findings(kinds[0])
    if parts is None:
        findings.append(
            finding(
                "note",
                "not_split",
                "the manifest is not split yet",
                detail="Leaks of groups or copies between parts can only be checked after the split.",
                advice=f"split with --group {_option(kinds[0].name) if kinds else 'PATIENT'}, and check again",
                count=len(manifest),
            )
        )
    if not kinds:
        findings.append(
            finding(
                "note",
                "no_group",
                "no column of groups",
                detail="Rows of one patient look alike; without a group, each row is its own group.",
                advice="pass the column of patients, or of other groups that must stay together, with --group",
                count=len(manifest),
            )
        )
    return findings


def _leak_findings(groups: Groups, parts: Any) -> list[Finding]:
    group, part = encode(groups.values), encode(parts)
    has_both = (group.codes >= 0) & (part.codes >= 0)
    pairs = np.unique(np.stack([group.codes[has_both], part.codes[has_both]]), axis=1)
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
            detail="A model that was trained on a patient is better on that patient in the test than on others, so "
            "results are too good.",
            advice=f"split again with --group {_option(groups.name)}",
            rows=rows,
            remarks=[
                f"{group.values[group.codes[row]]}: {parts[int(row)].as_py() or 'no part'}" for row in rows.tolist()
            ],
        )
    ]


def _file_leak_findings(manifest: Manifest, parts: Any) -> list[Finding]:
    """Return a finding about stretches of one video in two parts; parts of a file may be of different patients."""
    file, part = encode(_file_keys(manifest)), encode(parts)
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


def _file_keys(manifest: Manifest) -> Any:
    """Return a key for each row that identifies its file, or its part of a file."""
    files = manifest.column("path")
    if "part" not in manifest.table.schema.names:
        return files
    return pc.binary_join_element_wise(files, pc.fill_null(manifest.column("part"), ""), "\n")


def _group_kinds(manifest: Manifest, group: str | None) -> list[Groups]:
    """Return the groups of the given column and those of headers, if there are any."""
    kinds = [each for each in (groups_of(manifest, group), groups_of(manifest, None)) if each is not None]
    return [each for i, each in enumerate(kinds) if each.name not in {before.name for before in kinds[:i]}]


def _missing_part_findings(manifest: Manifest, parts: Any) -> list[Finding]:
    """Return a finding about rows without a part. Videos without frames are not counted, as a split leaves them out."""
    without_part = parts.is_null()
    if "num_frames" in manifest.table.schema.names:
        without_part = pc.and_(without_part, pc.greater(manifest.column("num_frames").fill_null(0), 0))
    rows = np.flatnonzero(np.asarray(without_part))
    if len(rows) == 0:
        return []
    return [
        finding(
            "warning",
            "rows_without_split",
            f"{format_count(len(rows), 'row')} in no part of the split",
            detail="They were added after the split, or left out of it; they are not used for training or test.",
            advice="assign them with 'cinefeed split --keep split', or leave them out with --where",
            rows=rows,
        )
    ]


def _missing_group_findings(groups: Groups) -> list[Finding]:
    rows = np.flatnonzero(groups.values.is_null().to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return []
    return [
        finding(
            "warning",
            "rows_without_group",
            f"{format_count(len(rows), 'row')} without {groups.name}",
            detail="Their group is unknown, so they may leak from one part into another; a split raises an error.",
            advice="fill the column, or leave those rows out",
            rows=rows,
        )
    ]


def _option(name: str) -> str:
    """Return the first of several columns as a word of a shell."""
    return shlex.quote(name.split(",")[0])
