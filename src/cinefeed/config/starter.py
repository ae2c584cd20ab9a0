"""Generation of a first settings file from a manifest: each value with its reason as a comment."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.config.lines import Setting, comment, toml_key
from cinefeed.config.recipe import FEW_VIDEOS
from cinefeed.config.starter_clips import clip_settings, feature_settings, frame_settings
from cinefeed.config.starter_training import training_settings
from cinefeed.config.toml import parse
from cinefeed.core.errors import CinefeedError, LabelError, SettingError, SplitError, TableError
from cinefeed.core.text import count_having, format_count
from cinefeed.data.label_types import class_names
from cinefeed.data.manifest.encoded import encoded_from, feature_frame, made_by_a_run
from cinefeed.data.manifest.group_candidates import group_candidates
from cinefeed.data.manifest.manifest import Manifest, Parts
from cinefeed.data.split_summary import unseen_classes
from cinefeed.metrics.bootstrap import MIN_CLUSTERS

Group = str | Literal[False] | None

_IMBALANCE = 1.5  # ratio of the most frequent to the rarest class, from which classes are balanced
_SKEW = 0.4  # share of the rows in one fifth of the label range, from which numbers are balanced: twice an equal share
_MAX_REPEATS = 10  # of a row in an epoch; the balance report warns from there on
_FEW_GROUPS = 20  # with fewer, a test part of a fifth holds at most 3 groups: cross-validate instead
_MAX_FOLDS = 5


class Starter(NamedTuple):
    """The text of a settings file, its number of folds (0: a single run), and notes about choices to know of."""

    text: str
    folds: int
    notes: tuple[str, ...]


def starter(
    manifest: Manifest,
    *,
    path: str | Path,
    target: str,
    group: Group,
    out: str | Path = "runs/first",
    where: Mapping[str, Sequence[str]] | None = None,
) -> Starter:
    """Return TOML settings for `cinefeed train --config`, with values chosen from the manifest.

    `path` is the path of the manifest. `group` is the column whose values must not be in two parts; False if rows are
    independent. If it is None and there is no column `split`, raises SettingError with the candidate columns. `where`
    selects rows by the values of columns. The settings depend on the manifest alone, not on the machine.

    Raises TableError if the manifest was not scanned, LabelError and SplitError for labels that cannot be used.
    """
    if "num_frames" not in manifest.table.column_names or manifest.rows.views:
        raise TableError("init needs the manifest of a scan with one video per row; run 'cinefeed scan'")
    rows_where = {column: list(values) for column, values in (where or {}).items()}
    reasons = dict.fromkeys(rows_where, "as --where selects")
    rows = manifest
    for column, values in rows_where.items():
        rows = rows.where(column, values)
    rows = rows.take(pc.indices_nonzero(pc.greater(rows.column("num_frames").fill_null(0), 0)))
    if len(rows) == 0:
        raise TableError(f"none of {len(manifest)} rows has a frame that can be read; run 'cinefeed check'")
    if names := _parts_of_the_run(rows):
        rows = rows.where("split", names)
        rows_where["split"], reasons["split"] = names, "the run that computed the features used no other rows"
    readable_rows, labels = rows, rows.column(target)
    labelled = rows.take(pc.indices_nonzero(pc.invert(pc.is_null(labels, nan_is_null=True))))
    if len(labelled) == 0:
        raise LabelError(f"no row has a {target!r} label; check the table of labels")
    notes = list(filter(None, [labelled.label_type(target).text_notice(target)]))
    excluded, why = _excluded_classes(labelled, group=group, target=target)
    if excluded:
        classes_left = sorted({*pc.unique(class_names(labelled.column(target))).to_pylist()} - {*excluded})
        counts = Counter(class_names(labelled.column(target)).to_pylist())
        rows = labelled = labelled.where(target, classes_left)
        left_out = ", ".join(f"{name} ({format_count(counts[name], 'video')})" for name in excluded)
        rows_where[target], reasons[target] = classes_left, f"left out: {left_out}, {why}"
        notes.append(f"{target}: left out {left_out}, {why}")
    data, classes = _data(rows, labelled, path=path, target=target)
    split, parts, folds = _split(labelled, group=group, target=target, classes=classes)
    if len(classes) > 2 and unseen_classes(labels=parts.all.column(target), parts=parts.all.column("split")):
        why = "listed, because the training part lacks one of them"
        data.append(Setting(name="classes", value=classes, why=why))
    if folds:
        units = pc.count_distinct(labelled.column(group or "id")).as_py()
        of_what = f"{format_count(units, 'group')} ({group})" if group else format_count(units, "row")
        notes.append(f"{folds} folds are proposed, because a single test part of {of_what} would be small")
    features = feature_frame(labelled)
    frame = (
        feature_settings(features, labelled)
        if features
        else frame_settings(readable_rows, labelled, parts.train, num_classes=len(classes))
    )
    is_few = bool(classes) and not features and len(parts.train) < FEW_VIDEOS
    clip = clip_settings(labelled, few=len(parts.train) if is_few else 0)
    lines = [
        Setting(name="[data]"),
        *data,
        *(Setting(name=f"where.{toml_key(name)}", value=rows_where[name], why=reasons[name]) for name in rows_where),
        Setting(name="[data.split]"),
        *split,
        Setting(name="[clip]"),
        *clip,
        Setting(name="[frame]"),
        *frame,
        *([] if features else _transforms(frame)),
        Setting(name="[sampler]"),
        *_sampler(parts.train, target=target, classes=classes),
        *training_settings(
            parts,
            frame=frame,
            clip=clip,
            classes=classes,
            features=bool(features),
            out=out,
            folds=folds,
            units=pc.count_distinct(parts.val.column(group or "id")).as_py(),
        ),
        *_evaluate(clip, group),
    ]
    head = comment(f"For {Path(path).name}, by 'cinefeed init'. Each value is a first guess, followed by its reason.")
    text = "\n".join([head, *map(str, lines), ""])
    parse(tomllib.loads(text))
    return Starter(text=text, folds=folds, notes=tuple(notes))


def with_pace(text: str, pace: str) -> str:
    """Return the settings with the duration of the training as a comment below the first line."""
    first, rest = text.split("\n", 1)
    machine = "The duration depends on the machine and on other programs; the settings do not."
    return f"{first}\n{comment(f'Duration: {pace}.')}\n{comment(machine)}\n{rest}"


def _parts_of_the_run(rows: Manifest) -> list[str]:
    """Return the parts of the run that computed the features, if only some rows are in a part; otherwise []."""
    if not made_by_a_run(rows) or "split" not in rows.table.column_names:
        return []
    split = rows.column("split")
    return sorted(pc.unique(split.drop_null()).to_pylist()) if split.null_count else []


def _has_split(labelled: Manifest) -> bool:
    return "split" in labelled.table.column_names and labelled.column("split").null_count == 0


def _excluded_classes(labelled: Manifest, *, group: Group, target: str) -> tuple[list[str], str]:
    """Return the classes that cannot be learned and measured, and the reason; none if only one would be left.

    They are in fewer than three groups, or have no row in the training part of an existing split.
    """
    if not labelled.label_type(target).is_classes:
        return [], ""
    if _has_split(labelled):
        parts = labelled.parts().all
        excluded = sorted(unseen_classes(labels=parts.column(target), parts=parts.column("split")))
        why = "without a row in the training part"
    elif group is None:
        return [], ""
    else:
        pairs = pa.table({"class": class_names(labelled.column(target)), "group": labelled.column(group or "id")})
        holders = pairs.group_by("class").aggregate([("group", "count_distinct")]).to_pylist()
        excluded = sorted(each["class"] for each in holders if each["group_count_distinct"] < 3)
        unit = "group" if group else "row"
        why = f"in fewer than 3 {unit}s; each of the 3 parts needs one {unit}"
    count = pc.count_distinct(class_names(labelled.column(target))).as_py()
    return (excluded, why) if excluded and count - len(excluded) >= 2 else ([], "")


def _data(rows: Manifest, labelled: Manifest, *, path: str | Path, target: str) -> tuple[list[Setting], list[str]]:
    """Return the settings of manifest, target and task, and the classes in order; [] for a regression."""
    lines = [
        Setting(name="manifest", value=str(path), why=f"{format_count(len(rows), 'row')} with frames that can be read"),
        Setting(name="target", value=target, why="the label column to learn"),
    ]
    if len(labelled) < len(rows):
        unlabelled = count_having(len(rows) - len(labelled), len(rows), "row")
        lines.append(Setting(name="missing", value="drop", why=f"{unlabelled} no {target}"))
    column, kind = labelled.column(target), labelled.label_type(target)
    rows_of = Counter(class_names(column).to_pylist())
    values = sorted(rows_of)
    if not kind.is_classes:
        low, high = pc.min_max(column).as_py().values()
        if not np.isfinite([low, high]).all():
            raise LabelError(
                f"{target!r} has infinite values; correct them, or leave their rows out of the table of labels"
            )
        if low == high:
            raise LabelError(f"{target!r} is {low:g} in all rows; there is nothing to learn")
        often = ", each at least twice" if kind.grades else ""
        why = f"numbers, {low:g} to {high:g}{often}; if they are classes, write 'multiclass'"
        return [*lines, Setting(name="task", value="regression", why=why)], []
    if len(values) < 2:
        raise LabelError(f"{target!r} is {values[0]!r} in all rows; there is nothing to learn")
    counts = ", ".join(f"{each} {rows_of[each]}" for each in values[:8]) + " ..." * (len(values) > 8)
    if len(values) == 2:
        why = f"two values: {counts}"
        order = Setting(
            name="classes", value=values, why=f"the second class, {values[1]!r}, is the positive one: swap them if not"
        )
        return [*lines, Setting(name="task", value="binary", why=why), order], values
    why = f"{len(values)} classes: {counts}"
    return [*lines, Setting(name="task", value="multiclass", why=why)], values


def _split(
    labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]
) -> tuple[list[Setting], Parts, int]:
    """Return the settings of the split, its parts, and the number of folds; with folds the parts of the first one."""
    if group:
        labelled.column(group)
    if _has_split(labelled):
        why = "the manifest has a split already"
        why += ": that of the run whose network computed the features" if encoded_from(labelled) else ""
        lines = [Setting(name="column", value="split", why=why)]
        if group:
            lines.append(Setting(name="group", value=group, why="none of its values is in two parts (checked)"))
        return lines, labelled.parts(group=group or None), 0
    if group is None:
        candidates = ", ".join(group_candidates(labelled, target=target)[:4]) or "none with repeated values"
        raise SettingError(
            f"group is missing; name the column whose values must not be in two parts, such as the patient (--group); "
            f"candidates: {candidates}. If all rows are independent, use --no-group"
        )
    return _new_split(labelled, group=group, target=target, classes=classes)


def _new_split(
    labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]
) -> tuple[list[Setting], Parts, int]:
    units = pc.count_distinct(labelled.column(group or "id")).as_py()
    share = 0.2 if 10 <= units < 40 else next((each for each in (0.15, 0.2) if each * units >= MIN_CLUSTERS), 0.25)
    folds = min(_MAX_FOLDS, units) if 3 <= units < _FEW_GROUPS and not made_by_a_run(labelled) else 0
    split_error: CinefeedError | None = None
    for stratify in (target, None):
        try:
            parts = _parts(labelled, group=group or None, stratify=stratify, share=share, folds=folds)
            break
        except SplitError as error:
            split_error = error
    else:
        assert split_error is not None
        raise split_error
    unit_name = "groups" if group else "rows"
    why_test = f"evaluated once, at the end; an interval needs {MIN_CLUSTERS} {unit_name}"
    all_parts = {name: getattr(parts, name) for name in ("train", "val", "test")}
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in all_parts.items())
    if group:
        sizes = {name: pc.count_distinct(rows.column(group)).as_py() for name, rows in all_parts.items()}
        counts += f"; groups: {', '.join(f'{name} {size}' for name, size in sizes.items())}"
    why = f"{units} groups; none is in two parts" if group else "set by --no-group: all rows are independent"
    of_what = f"of the rows{' outside the test part' if folds else ''}{', in whole groups' if group else ''}; "
    of_what += f"rows{' of the first fold' if folds else ''}: {counts}"
    lines = [
        Setting(name="group", value=group, why=why),
        Setting(name="val", value=share, why=of_what),
        *([] if folds else [Setting(name="test", value=share, why=why_test)]),
    ]
    if stratify is not None:
        kind = "class" if classes else "range of labels"
        lines.append(Setting(name="stratify", value=target, why=f"every part has its share of each {kind}"))
    else:
        lines.append(Setting(name="#", why=f"not stratified: {split_error}"))
    return [*lines, Setting(name="seed", value=0, why="of the split only")], parts, folds


def _parts(labelled: Manifest, *, group: str | None, stratify: str | None, share: float, folds: int) -> Parts:
    """Return the parts of a random split; with folds those of the first one. Raises SplitError if a fold fails."""
    options: dict[str, Any] = {"group": group, "stratify": stratify, "seed": 0}
    if not folds:
        return labelled.split(val=share, test=share, **options)
    names = []
    for fold in labelled.folds(folds, **options):
        rest = fold.train.split(val=share, test=0, **options)
        part_of = dict.fromkeys(fold.val.column("id").to_pylist(), "test")
        part_of |= dict.fromkeys(rest.val.column("id").to_pylist(), "val")
        names.append([part_of.get(name, "train") for name in labelled.column("id").to_pylist()])
    first = pa.table({"id": labelled.column("id"), "split": names[0]})
    return labelled.with_split(
        {part: first.filter(pc.equal(first["split"], part)).select(["id"]) for part in ("train", "val", "test")},
        on="id",
    ).parts(group=group)


def _transforms(frame: Sequence[Setting]) -> list[Setting]:
    pixels = max(min(frame[0].value, frame[1].value) // 20, 1)
    warning = "remove those that change the label, such as a left-right flip or brightness"
    scaled = (
        []
        if not any(each.value == "float32" for each in frame)
        else [
            Setting(name="[[transforms]]"),
            Setting(name="name", value="Normalize", why="values of any scale: each frame is divided by its maximum"),
        ]
    )
    return [
        Setting(name="[[transforms]]", why=f"weak ones, the same for all frames of a clip; {warning}"),
        Setting(name="name", value="Rotate", why="preview: cinefeed inspect --transforms THIS_FILE"),
        Setting(name="degrees", value=10.0, why="in both directions"),
        Setting(name="[[transforms]]"),
        Setting(name="name", value="Shift", why="so that the network does not rely on positions"),
        Setting(name="pixels", value=float(pixels), why="a twentieth of the frame"),
        *scaled,  # last: the moves are then fused with the fit of the frame, in one interpolation
    ]


def _sampler(train: Manifest, *, target: str, classes: Sequence[str]) -> list[Setting]:
    column = train.column(target)
    if not classes:
        fifths = np.histogram(column.cast(pa.float64(), safe=False).to_numpy(), bins=5)[0]
        why = f"fifths of the label range have {', '.join(map(str, fifths))} training rows"
        if fifths.max() <= _SKEW * fifths.sum():
            return [Setting(name="name", value="Natural", why=f"{why}: no fifth has most of them")]
        return [
            Setting(name="name", value="UniformLabels", why=f"{why}: rare labels are drawn more often"),
            Setting(name="bins", value=5, why="equal ranges of the label"),
            Setting(name="strength", value=0.5, why="halfway from the distribution of the data to a uniform one"),
            Setting(name="max_repeats", value=_MAX_REPEATS, why="the most draws of a video in an epoch"),
        ]
    rows_of = Counter(class_names(column).to_pylist())
    counts = [rows_of[each] for each in classes]
    numbers = ", ".join(f"{each} {count}" for each, count in list(zip(classes, counts, strict=True))[:6])
    if max(counts) <= _IMBALANCE * min(counts):
        return [Setting(name="name", value="Natural", why=f"classes are nearly balanced: {numbers}")]
    why = f"the training part has {numbers}; validation and test are never balanced"
    lines = [Setting(name="name", value="BalancedClasses", why=why)]
    rarest = min(count for count in counts if count)
    if sum(counts) > _MAX_REPEATS * len(counts) * rarest:
        lines.append(
            Setting(
                name="max_repeats", value=_MAX_REPEATS, why="the most draws of a video in an epoch, for rare classes"
            )
        )
    return lines


def _evaluate(clip: Sequence[Setting], group: Group) -> list[Setting]:
    spread = any(each.value == "spread" for each in clip)
    why = "a clip covers the whole video" if spread else "per video, evenly spaced; their scores are averaged"
    unit = f"; add unit = {group!r} if each {group} has one label" if group else ""
    return [Setting(name="[evaluate]"), Setting(name="clips", value=1 if spread else 3, why=why + unit)]
