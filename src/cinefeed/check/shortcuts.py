"""Columns that are no medicine and yet predict the label: container, size, rate, brightness, site, scanner ...

A model takes the easiest way to the label. Where AVI files are sick and MP4 files are well, it learns to tell codecs,
and does well in a test that has the same fault. So each column is given to the smallest model there is, a tree that
asks for it once, and tested on groups that the tree has not seen:

rate_hz:  .. 15 | .. 22 | .. 25 | .. 30 | ..      at most 8 leaves, equally full; a text has one for each value
guess:    ill     well    well    ill     ill     what is more frequent there in the other four fifths of the groups

Labels dealt anew to the groups show what luck reaches; because the leaves are fixed, 999 deals are a few products of
matrices, 0.1 s for `pocus`. A tree that chooses its cuts (scikit-learn's, of depth 2) found rate, codec and container
there too, and would take two minutes for as many deals.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, Shortcut, finding
from cinefeed.check.groups import groups_of
from cinefeed.check.look import Looks
from cinefeed.label_types import class_name
from cinefeed.manifest.table import Manifest
from cinefeed.rng import Stage, rng_for
from cinefeed.split import assign_folds, encode
from cinefeed.text import format_count

_FOLDS = 5
_FEWEST_GROUPS = 5  # with and without a class, or it is not asked for
_MOST_CLASSES = 10  # the largest; each is told from all the others
_LEAVES, _MOST_VALUES = 8, 32  # of a number; of a text, of which rarer values share a leaf
# The share of deals that may reach the mark of a column. In `pocus` 0.8 % reach the score of the container. Of 300
# other deals of its labels, 1 to 3 % passed by any one column, and 15 % by one of 12: hence a warning. An error is
# what at most one deal reaches.
_LUCK = 0.02
_DEALS, _FEWEST_DEALS, _ENTRIES = 999, 99, 4_000_000
_MATTERS, _STRONG = 0.1, 0.4  # of the way from chance to certainty: worth a word; worse than a warning
_FILE = ("container", "codec", "pixel_format", "height", "width", "rate_hz", "num_frames")


class _Column(NamedTuple):
    """A column that should not tell the label: the leaf of each row."""

    name: str
    leaves: NDArray[np.int64]
    about_file: bool  # what it says is no part of the picture


class _Question(NamedTuple):
    """What is to be predicted: one class against all others, or a number. A unit is the rows of one group and class."""

    about: str
    unit: NDArray[np.int64]  # of each row
    folds: NDArray[np.int64]  # of each unit
    answers: NDArray[np.float64]  # of each unit
    spread: float  # of scores by luck, to compare classes of different size
    is_class: bool


def shortcut_findings(
    manifest: Manifest, looks: Looks, *, target: str, group: str | None, nuisance: Sequence[str]
) -> tuple[list[Finding], list[Shortcut], str]:
    """Return what predicts the label, the scores of all columns, the strongest first, and what was left out."""
    label = manifest.column(target)
    rows = np.flatnonzero(label.is_valid().to_numpy(zero_copy_only=False) & looks.read)
    groups = groups_of(manifest, group)
    codes = (np.arange(len(manifest)) if groups is None else groups.codes)[rows]
    is_classes = manifest.label_type(target).is_classes
    questions, left_out = _questions(label.take(pa.array(rows)), codes, target, is_classes=is_classes)
    if not questions:
        return [], [], left_out
    columns = [each for each in _columns(manifest, looks, rows, nuisance, target) if np.ptp(each.leaves) > 0]
    if not columns:
        return [], [], left_out
    deals = max(_FEWEST_DEALS, min(_DEALS, _ENTRIES // max(len(each.answers) for each in questions)))
    scores = np.stack([_dealt(columns, each, deals, place) for place, each in enumerate(questions)], axis=1)
    found = [(column, _judged(column, questions, each)) for column, each in zip(columns, scores, strict=True)]
    found.sort(key=lambda each: (-each[1].share, each[1].name))
    telling = [(column, each) for column, each in found if each.tells]
    return _said(telling, target, deals=deals, rows=len(rows)), [each for _, each in found], left_out


def _questions(label: Any, groups: NDArray[np.int64], target: str, *, is_classes: bool) -> tuple[list[_Question], str]:
    """Return what trees are asked, and what they are not asked for want of groups."""
    groups = np.unique(groups, return_inverse=True)[1]
    count = int(groups.max(initial=-1)) + 1
    if not is_classes:
        numbers = label.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        means = np.bincount(groups, numbers) / np.bincount(groups) if count else np.zeros(0)
        if count < 2 * _FOLDS or not np.isfinite(means).all() or np.ptp(means) == 0:
            return [], f"{target}: it takes {2 * _FOLDS} groups and finite numbers that differ"
        folds = assign_folds(groups=np.arange(count), folds=_FOLDS, seed=0)
        return [_Question(target, groups, folds, means - means.mean(), 1.0, False)], ""
    classes = encode(label)
    sizes = np.bincount(classes.codes, minlength=len(classes.values))
    order = np.argsort(-sizes, kind="stable").tolist()
    if len(order) == 2:
        order = [1]  # to tell the second from the first is to tell the first from the second
    found: list[_Question] = []
    few: list[str] = []
    words = []
    for code in order:
        if len(found) == _MOST_CLASSES:
            words = [f"all but the {_MOST_CLASSES} largest of {format_count(len(order), 'class')}"]
            break
        mine = (classes.codes == code).astype(np.int64)
        units, unit = np.unique(groups * 2 + mine, return_inverse=True)
        independent = np.bincount(units % 2, minlength=2)
        if independent.min() < _FEWEST_GROUPS:
            few.append(class_name(classes.values[code]))
        else:
            folds = np.zeros(len(units), np.int64)
            folds[unit] = assign_folds(groups=groups, labels=mine, folds=_FOLDS, seed=0, kind="classes")
            spread = float(np.sqrt((0.25 / independent).sum())) / 2
            answers = (units % 2).astype(np.float64)
            found.append(_Question(class_name(classes.values[code]), unit, folds, answers, spread, True))
    if few:
        words.append(f"what has fewer than {_FEWEST_GROUPS} groups, or leaves fewer: {', '.join(few)}")
    return found, "; ".join(words)


def _dealt(columns: Sequence[_Column], question: _Question, deals: int, place: int) -> NDArray[np.float64]:
    """Return the scores of all columns in units of luck, (columns, 1 + deals): the true answers first."""
    order = np.argsort(question.folds, kind="stable")
    rng = rng_for(0, stage=Stage.BOOTSTRAP, position=place)
    answers = np.empty((1 + deals, len(order)))
    answers[:] = question.answers[order]
    rng.permuted(answers[1:], axis=1, out=answers[1:])
    shares = [_shares(each.leaves, question.unit)[order] for each in columns]
    ends = np.cumsum(np.bincount(question.folds, minlength=_FOLDS)).tolist()
    folds = list(map(slice, [0, *ends], ends))
    # all columns at once: products as narrow as one column take ten times as long
    together = np.hstack(shares)
    inside = [answers[:, fold] @ together[fold] for fold in folds]
    counts = [together[fold].sum(axis=0) for fold in folds]
    edges = np.cumsum([each.shape[1] for each in shares]).tolist()
    score = _score_classes if question.is_class else _score_numbers
    found = [
        score([each[:, of] for each in inside], [each[of] for each in counts], answers)
        for of in map(slice, [0, *edges], edges)
    ]
    return (np.stack(found) - (0.5 if question.is_class else 0.0)) / question.spread


def _shares(leaves: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each unit's rows in each leaf, (units, leaves)."""
    width = int(leaves.max()) + 1
    counts = np.bincount(unit * width + leaves, minlength=(int(unit.max()) + 1) * width).reshape(-1, width)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _columns(
    manifest: Manifest, looks: Looks, rows: NDArray[np.int64], nuisance: Iterable[str], target: str
) -> Iterator[_Column]:
    there = [name for name in _FILE if name in manifest.table.schema.names]
    taken = {name: manifest.column(name).take(pa.array(rows)) for name in [*there, *nuisance] if name != target}
    for name, column in taken.items():
        yield _Column(name, _leaves(column), name != "num_frames")
    if {"height", "width"} <= taken.keys():
        height, width = (taken[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("height", "width"))
        yield _Column("area", _ranges(height * width), True)
    for name, values in (("duration", looks.seconds), ("brightness", looks.brightness), ("contrast", looks.contrast)):
        yield _Column(name, _ranges(values[rows]), False)


def _leaves(column: Any) -> NDArray[np.int64]:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _ranges(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    values, codes, counts = np.unique(encode(column.cast(pa.string())).codes, return_inverse=True, return_counts=True)
    place = np.empty(len(values), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(values))
    return np.minimum(place[codes], _MOST_VALUES)


def _ranges(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the leaf of each number: equally full ranges, or a leaf a value where there are few; NaN has its own.

    >>> _ranges(np.array([5.0, 7.0, np.nan, 5.0])).tolist()
    [0, 1, 2, 0]
    """
    known = numbers[~np.isnan(numbers)]
    values = np.unique(known)
    cuts = values[1:]
    if len(values) > _LEAVES:
        cuts = np.unique(np.quantile(known, np.arange(1, _LEAVES) / _LEAVES))
    return np.where(np.isnan(numbers), len(cuts) + 1, np.searchsorted(cuts, numbers, side="right")).astype(np.int64)


def _judged(column: _Column, questions: Sequence[_Question], scores: NDArray[np.float64]) -> Shortcut:
    """Return how well a column answers the question that it answers best; scores are (questions, 1 + deals)."""
    chance = 0.5 if questions[0].is_class else 0.0
    dealt = np.sort(scores[:, 1:].max(axis=0))  # the best of all questions, by luck
    mark = dealt[min(int(np.ceil((1 - _LUCK) * (len(dealt) + 1))), len(dealt)) - 1]
    best = int(np.argmax(scores[:, 0]))
    spread = questions[best].spread
    return Shortcut(
        name=column.name,
        about=questions[best].about,
        measure="balanced accuracy" if questions[best].is_class else "R2",
        score=float(chance + scores[best, 0] * spread),
        chance=chance,
        luck=(1 + int((dealt >= scores[best, 0]).sum())) / (1 + len(dealt)),
        limit=float(min(chance + max(mark * spread, _MATTERS * (1 - chance)), 1.0)),
    )


def _score_classes(
    inside: list[NDArray[np.float64]], counts: list[NDArray[np.float64]], answers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the balanced accuracy of each deal: the leaves of every fold get the class that the others suggest.

    `inside` are units with the class by leaf, (deals, leaves), `counts` all units by leaf, one of each a fold.
    """
    all_inside, all_counts = np.sum(inside, axis=0), np.sum(counts, axis=0)
    total = answers.sum(axis=1)
    right, rightly_not = np.zeros(len(answers)), np.zeros(len(answers))
    for with_it, units in zip(inside, counts, strict=True):
        left, without = all_inside - with_it, (all_counts - units) - (all_inside - with_it)
        guess = left * without.sum(axis=1, keepdims=True) > without * left.sum(axis=1, keepdims=True)
        right += np.where(guess, with_it, 0).sum(axis=1)
        rightly_not += np.where(guess, 0, units - with_it).sum(axis=1)
    return np.asarray((right / total + rightly_not / (answers.shape[1] - total)) / 2)


def _score_numbers(
    inside: list[NDArray[np.float64]], counts: list[NDArray[np.float64]], answers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return R2 of each deal, where the leaves of every fold get the mean of the others; answers have mean 0."""
    all_inside, all_counts = np.sum(inside, axis=0), np.sum(counts, axis=0)
    explained = np.zeros(len(answers))
    for sums, units in zip(inside, counts, strict=True):
        left, left_units = all_inside - sums, all_counts - units
        mean = left.sum(axis=1, keepdims=True) / left_units.sum()
        guess = np.where(left_units > 0, left / np.maximum(left_units, 1e-9), mean)
        explained += 2 * (guess * sums).sum(axis=1) - (guess**2 * units).sum(axis=1)
    return np.asarray(explained / (answers[0] ** 2).sum())


def _said(telling: list[tuple[_Column, Shortcut]], target: str, *, deals: int, rows: int) -> list[Finding]:
    found = []
    for about_file in (True, False):
        chosen = [each for column, each in telling if column.about_file == about_file]
        if not chosen:
            continue
        first = chosen[0]
        strong = any(each.share >= _STRONG and each.luck <= 2 / (1 + deals) for each in chosen)
        is_class = first.measure != "R2"
        scores = ", ".join(f"{each.name} {each.score:.2f}{f' ({each.about})' if is_class else ''}" for each in chosen)
        measure = "Balanced accuracy of one class against the others" if is_class else "R2"
        found.append(
            finding(
                "error" if about_file and strong else "warning",
                "label_told_by_file" if about_file else "label_told_by_look",
                f"{target} can be told from {', '.join(each.name for each in chosen[:3])}"
                + (" ..." if len(chosen) > 3 else "")
                + (", without a look at the pictures" if about_file else ""),
                detail=f"{measure}, by a small tree on that column alone, tested on groups that it has not seen: "
                f"{scores}. Guessing has {first.chance:g}, and luck reaches {max(each.limit for each in chosen):.2f} "
                f"once in {round(1 / _LUCK)}.",
                advice="balance it over the label, or test on data where it does not go along with the label"
                if about_file
                else "decide whether it belongs to what is to be learnt; if not, vary it in training",
                count=rows,
            )
        )
    return found
