"""Columns that are no medicine and yet predict the label: container, size, rate, brightness, site, scanner ...

A model takes the easiest way to the label. Where AVI files are sick and MP4 files are well, it learns to tell codecs,
and does well in a test that has the same fault.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, Shortcut, counted, finding
from cinefeed.check.groups import groups_of
from cinefeed.check.look import Looks
from cinefeed.manifest.table import Manifest
from cinefeed.split import are_classes, assign_folds, encode

_FOLDS = 5
_FEWEST_GROUPS = 5  # with and without a class, or it is not asked for
_MOST_CLASSES = 10  # the largest; each is told from all the others
_MOST_VALUES = 32  # of a text column, that a tree asks for one by one; the others count as one
# A small tree: of depth 3 with leaves of 2 rows it found less in `pocus`, and more in shuffled labels.
_DEPTH, _LEAF = 2, 5
# What luck allows, over all columns and classes together: of 200 shuffles of the labels of `pocus` by group, 5 % had a
# column beyond it. Where each row weighs the same it was 12 %: five clips of a patient are one piece of evidence.
_LUCK = 0.05
_MATTERS, _STRONG = 0.1, 0.4  # of the way from chance to certainty: worth a word; worse than a warning
_FILE = ("container", "codec", "pixel_format", "height", "width", "rate_hz", "num_frames")


class _Column(NamedTuple):
    """A column that should not tell the label, as features of a tree, (rows, 1) or one by value."""

    name: str
    features: NDArray[np.float64]
    about_file: bool  # what it says is no part of the picture


class _Question(NamedTuple):
    """What is to be predicted: one class against all others, or a number."""

    about: str
    targets: NDArray[Any]
    weights: NDArray[np.float64]  # each group weighs the same, in its class
    folds: NDArray[np.int64]
    spread: float  # standard error of a score by luck, or of a correlation
    is_class: bool


def shortcut_findings(
    manifest: Manifest, looks: Looks, *, target: str, group: str | None, nuisance: Sequence[str]
) -> tuple[list[Finding], list[Shortcut], str]:
    """Return what predicts the label, the scores of all columns, the strongest first, and what was left out."""
    label = manifest.column(target)
    rows = np.flatnonzero(label.is_valid().to_numpy(zero_copy_only=False) & looks.read)
    groups = groups_of(manifest, group)
    codes = (np.arange(len(manifest)) if groups is None else groups.codes)[rows]
    questions, left_out = _questions(label.take(pa.array(rows)), codes, target)
    columns = [each for each in _columns(manifest, looks, rows, nuisance, target) if _differs(each.features)]
    if not questions or not columns:
        return [], [], left_out
    luck = NormalDist().inv_cdf(1 - _LUCK / (len(questions) * len(columns)))
    found = []
    for column in columns:
        answers = [_judged(column, question, luck) for question in questions]
        found.append((column, max(answers, key=lambda each: each.score - each.limit)))
    found.sort(key=lambda each: (-each[1].share, each[1].name))
    telling = [(column, each) for column, each in found if each.tells]
    return _said(telling, target, len(rows)), [each for _, each in found], left_out


def _questions(label: Any, groups: NDArray[np.int64], target: str) -> tuple[list[_Question], str]:
    """Return what trees are asked, and what they are not asked for want of groups."""
    count = len(np.unique(groups))
    if not are_classes(label):
        numbers = label.cast(pa.float64()).to_numpy(zero_copy_only=False)
        if count < 2 * _FOLDS or np.ptp(numbers) == 0 or not np.isfinite(numbers).all():
            return [], f"{target}: it takes {2 * _FOLDS} groups and finite numbers that differ"
        folds = assign_folds(groups=groups, folds=_FOLDS, seed=0)
        weights = 1 / np.bincount(groups)[groups]
        return [_Question(target, numbers, weights, folds, 1 / np.sqrt(count), False)], ""
    classes = encode(label)
    sizes = np.bincount(classes.codes, minlength=len(classes.values))
    order = np.argsort(-sizes, kind="stable").tolist()
    if len(order) == 2:
        order = [1]  # to tell the second from the first is to tell the first from the second
    found, few = [], []
    for code in order:
        mine = (classes.codes == code).astype(np.int64)
        pairs = np.unique(np.stack([mine, groups]), axis=1)
        independent = np.bincount(pairs[0], minlength=2)
        if independent.min() < _FEWEST_GROUPS:
            few.append(str(classes.values[code]))
            continue
        key = groups * 2 + mine
        folds = assign_folds(groups=groups, labels=mine, folds=_FOLDS, seed=0)
        spread = float(np.sqrt((0.25 / independent).sum())) / 2
        found.append(_Question(str(classes.values[code]), mine, 1 / np.bincount(key)[key], folds, spread, True))
    words = [f"what has fewer than {_FEWEST_GROUPS} groups, or leaves fewer: {', '.join(few)}"] if few else []
    if len(found) > _MOST_CLASSES:
        words.append(f"all but the {_MOST_CLASSES} largest of {counted(len(found), 'class')}")
    return found[:_MOST_CLASSES], "; ".join(words)


def _columns(
    manifest: Manifest, looks: Looks, rows: NDArray[np.int64], nuisance: Iterable[str], target: str
) -> Iterator[_Column]:
    there = [name for name in _FILE if name in manifest.table.schema.names]
    for name in dict.fromkeys([*there, *nuisance]):
        if name != target:
            yield _Column(name, _features(manifest.column(name).take(pa.array(rows))), name != "num_frames")
    if {"height", "width"} <= set(there):
        height, width = (_features(manifest.column(name).take(pa.array(rows))) for name in ("height", "width"))
        yield _Column("area", height * width, True)
    measured = (("duration", looks.seconds), ("brightness", looks.brightness), ("contrast", looks.contrast))
    for name, values in measured:
        yield _Column(name, values[rows, np.newaxis], False)


def _features(column: Any) -> NDArray[np.float64]:
    """Return numbers as they are, with NaN where there is none, and texts as one column of 0 and 1 a value."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)[:, np.newaxis]
    codes = encode(column.cast(pa.string())).codes
    values, counts = np.unique(codes, return_counts=True)
    chosen = values[np.argsort(-counts, kind="stable")][:_MOST_VALUES]
    return np.asarray(codes[:, np.newaxis] == chosen, np.float64)


def _differs(features: NDArray[np.float64]) -> bool:
    return features.shape[1] > 1 or len(np.unique(features)) > 1


def _judged(column: _Column, question: _Question, luck: float) -> Shortcut:
    """Return how well a small tree, grown on the other folds, answers a question from one column."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    features, targets, weights = column.features, question.targets, question.weights
    many = features.shape[1]  # a tree asks for one value of a text at a time: it may go as deep as there are values
    size = {"max_depth": max(_DEPTH, many), "max_leaf_nodes": max(2**_DEPTH, many), "min_samples_leaf": _LEAF}
    guesses = np.zeros_like(targets)
    for fold in range(_FOLDS):
        test = question.folds == fold
        if question.is_class:
            tree = DecisionTreeClassifier(class_weight="balanced", random_state=0, **size)
        else:
            tree = DecisionTreeRegressor(random_state=0, **size)
        tree.fit(features[~test], targets[~test], sample_weight=weights[~test])
        guesses[test] = tree.predict(features[test])
    if question.is_class:
        right = guesses == targets
        shares = np.bincount(targets[right], weights=weights[right], minlength=2) / np.bincount(targets, weights)
        score, chance = float(shares.mean()), 0.5
        limit = chance + max(luck * question.spread, _MATTERS * (1 - chance))
    else:
        mean = np.average(targets, weights=weights)
        score = 1 - float((weights * (targets - guesses) ** 2).sum() / (weights * (targets - mean) ** 2).sum())
        chance, limit = 0.0, max((luck * question.spread) ** 2, _MATTERS)
    return Shortcut(
        name=column.name,
        about=question.about,
        measure="balanced accuracy" if question.is_class else "R2",
        score=score,
        chance=chance,
        limit=min(limit, 1.0),
    )


def _said(telling: list[tuple[_Column, Shortcut]], target: str, rows: int) -> list[Finding]:
    found = []
    for about_file in (True, False):
        chosen = [each for column, each in telling if column.about_file == about_file]
        if not chosen:
            continue
        first = chosen[0]
        is_class = first.measure != "R2"
        scores = ", ".join(f"{each.name} {each.score:.2f}{f' ({each.about})' if is_class else ''}" for each in chosen)
        measure = "Balanced accuracy of one class against the others" if is_class else "R2"
        found.append(
            finding(
                "error" if about_file and first.share >= _STRONG else "warning",
                "label_told_by_file" if about_file else "label_told_by_look",
                f"{target} can be told from {', '.join(each.name for each in chosen[:3])}"
                + (" ..." if len(chosen) > 3 else "")
                + (", without a look at the pictures" if about_file else ""),
                detail=f"{measure}, by a small tree on that column alone, tested on groups that it has not seen: "
                f"{scores}. Guessing has {first.chance:g}; up to {max(each.limit for each in chosen):.2f} may be luck.",
                advice="balance it over the label, or test on data where it does not go along with the label"
                if about_file
                else "decide whether it belongs to what is to be learnt; if not, vary it in training",
                count=rows,
            )
        )
    return found
