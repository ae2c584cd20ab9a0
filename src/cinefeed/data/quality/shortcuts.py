"""Shortcuts: non-clinical columns that predict the label, such as container, size, rate, brightness, site, scanner.

A model learns the easiest predictor. If the patients in AVI files are ill and those in MP4 files are well, it learns to
distinguish file formats, and scores well on a test part with the same fault. So each column is tested by the smallest
model, a tree with one split variable, in cross-validation over groups:

rate_hz:  .. 15 | .. 22 | .. 25 | .. 30 | ..      at most 8 leaves of equal size; text has one leaf per value
guess:    ill     well    well    ill     ill     the majority of the leaf in the other four fifths of the groups

A permutation test over the labels of the groups gives the scores that are reached by chance. Because the leaves are
fixed, 999 permutations are a few matrix products, 0.1 s for `pocus`. A tree with learned splits (scikit-learn, depth 2)
found rate, codec and container there too, and would take two minutes for the same number of permutations.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.rng import Stage, rng_for
from cinefeed.core.text import format_count
from cinefeed.data.label_types import class_name
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import Finding, Shortcut, finding
from cinefeed.data.quality.frame_summaries import FrameSummaries
from cinefeed.data.quality.groups import groups_of
from cinefeed.data.split import assign_folds, encode

_FOLDS = 5
_FEWEST_GROUPS = 5  # a class is tested if at least this number of groups has it, and as many do not
_MOST_CLASSES = 10  # the largest classes are tested, each against all others
_LEAVES, _MOST_VALUES = 8, 32  # leaves of a number; leaves of text, with one more for rarer values
# Share of permutations that may reach the limit of a column. In `pocus` 0.8 % reach the score of the container. Of 300
# other permutations of its labels, 1 to 3 % passed the limit of any one column, and 15 % that of one of 12: hence a
# warning. It is an error if at most one permutation reaches the score.
_P_VALUE = 0.02
_DEALS, _FEWEST_DEALS, _ENTRIES = 999, 99, 4_000_000
_MIN_SHARE, _STRONG_SHARE = 0.1, 0.4  # position between chance and a perfect score: for a finding; for an error
FILE_COLUMNS = ("container", "codec", "pixel_format", "height", "width", "rate_hz", "num_frames")


class _Column(NamedTuple):
    """A column that should not predict the label, with the leaf of each row."""

    name: str
    leaves: NDArray[np.int64]
    about_file: bool  # a property of the file, not of the image content


class _Question(NamedTuple):
    """A prediction target: one class against all others, or a number. A unit is the rows of one group and class."""

    about: str
    unit: NDArray[np.int64]  # of each row
    folds: NDArray[np.int64]  # of each unit
    answers: NDArray[np.float64]  # of each unit
    score_scale: float  # standard deviation of scores by chance, to compare classes of different size
    is_class: bool


def shortcut_findings(
    manifest: Manifest, summaries: FrameSummaries, *, target: str, group: str | None, nuisance: Sequence[str]
) -> tuple[list[Finding], list[Shortcut], str]:
    """Return findings about shortcuts, the scores of all columns (the best first), and the classes not tested."""
    label = manifest.column(target)
    rows = np.flatnonzero(label.is_valid().to_numpy(zero_copy_only=False) & summaries.rows_read)
    groups = groups_of(manifest, group)
    codes = (np.arange(len(manifest)) if groups is None else groups.codes)[rows]
    is_classes = manifest.label_type(target).is_classes
    questions, skipped = _questions(label.take(pa.array(rows)), codes, target, is_classes=is_classes)
    if not questions:
        return [], [], skipped
    columns = [each for each in _columns(manifest, summaries, rows, nuisance, target) if np.ptp(each.leaves) > 0]
    if not columns:
        return [], [], skipped
    deals = max(_FEWEST_DEALS, min(_DEALS, _ENTRIES // max(len(each.answers) for each in questions)))
    scores = np.stack(
        [_permutation_scores(columns, each, deals, place) for place, each in enumerate(questions)], axis=1
    )
    results = [(column, _best_answer(column, questions, each)) for column, each in zip(columns, scores, strict=True)]
    results.sort(key=lambda each: (-each[1].share, each[1].name))
    predictive = [(column, each) for column, each in results if each.predicts_label]
    return _report_shortcuts(predictive, target, deals=deals, rows=len(rows)), [each for _, each in results], skipped


def _questions(label: Any, groups: NDArray[np.int64], target: str, *, is_classes: bool) -> tuple[list[_Question], str]:
    """Return the prediction targets, and a text about those that are left out because they have too few groups."""
    groups = np.unique(groups, return_inverse=True)[1]
    count = int(groups.max(initial=-1)) + 1
    if not is_classes:
        numbers = label.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        means = np.bincount(groups, numbers) / np.bincount(groups) if count else np.zeros(0)
        if count < 2 * _FOLDS or not np.isfinite(means).all() or np.ptp(means) == 0:
            return [], f"{target}: needs at least {2 * _FOLDS} groups, and finite numbers that are not all equal"
        folds = assign_folds(groups=np.arange(count), folds=_FOLDS, seed=0)
        return [_Question(target, groups, folds, means - means.mean(), 1.0, False)], ""
    classes = encode(label)
    sizes = np.bincount(classes.codes, minlength=len(classes.values))
    order = np.argsort(-sizes, kind="stable").tolist()
    if len(order) == 2:
        order = [1]  # for two classes, both questions are the same
    questions: list[_Question] = []
    rare_classes: list[str] = []
    skipped = []
    for code in order:
        if len(questions) == _MOST_CLASSES:
            skipped = [f"all but the {_MOST_CLASSES} largest of {format_count(len(order), 'class')}"]
            break
        is_class = (classes.codes == code).astype(np.int64)
        units, unit = np.unique(groups * 2 + is_class, return_inverse=True)
        independent = np.bincount(units % 2, minlength=2)
        if independent.min() < _FEWEST_GROUPS:
            rare_classes.append(class_name(classes.values[code]))
        else:
            folds = np.zeros(len(units), np.int64)
            folds[unit] = assign_folds(groups=groups, labels=is_class, folds=_FOLDS, seed=0, kind="classes")
            score_scale = float(np.sqrt((0.25 / independent).sum())) / 2
            answers = (units % 2).astype(np.float64)
            questions.append(_Question(class_name(classes.values[code]), unit, folds, answers, score_scale, True))
    if rare_classes:
        names = ", ".join(rare_classes)
        skipped.append(f"classes with fewer than {_FEWEST_GROUPS} groups, or all but fewer than these: {names}")
    return questions, "; ".join(skipped)


def _permutation_scores(columns: Sequence[_Column], question: _Question, deals: int, place: int) -> NDArray[np.float64]:
    """Return the scores of all columns in units of `score_scale`, (columns, 1 + deals), those of the labels first."""
    order = np.argsort(question.folds, kind="stable")
    rng = rng_for(0, stage=Stage.BOOTSTRAP, position=place)
    answers = np.empty((1 + deals, len(order)))
    answers[:] = question.answers[order]
    rng.permuted(answers[1:], axis=1, out=answers[1:])
    shares = [_shares(each.leaves, question.unit)[order] for each in columns]
    ends = np.cumsum(np.bincount(question.folds, minlength=_FOLDS)).tolist()
    folds = list(map(slice, [0, *ends], ends))
    # All columns at once: matrix products of one column take ten times as long.
    all_shares = np.hstack(shares)
    fold_sums = [answers[:, fold] @ all_shares[fold] for fold in folds]
    counts = [all_shares[fold].sum(axis=0) for fold in folds]
    edges = np.cumsum([each.shape[1] for each in shares]).tolist()
    score = _score_classes if question.is_class else _score_numbers
    scores = [
        score([each[:, of] for each in fold_sums], [each[of] for each in counts], answers)
        for of in map(slice, [0, *edges], edges)
    ]
    return (np.stack(scores) - (0.5 if question.is_class else 0.0)) / question.score_scale


def _shares(leaves: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the rows of each unit in each leaf, (units, leaves)."""
    width = int(leaves.max()) + 1
    counts = np.bincount(unit * width + leaves, minlength=(int(unit.max()) + 1) * width).reshape(-1, width)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _columns(
    manifest: Manifest, summaries: FrameSummaries, rows: NDArray[np.int64], nuisance: Iterable[str], target: str
) -> Iterator[_Column]:
    present_names = [name for name in FILE_COLUMNS if name in manifest.table.schema.names]
    columns = {
        name: manifest.column(name).take(pa.array(rows)) for name in [*present_names, *nuisance] if name != target
    }
    for name, column in columns.items():
        yield _Column(name, _leaves(column), name != "num_frames")
    if {"height", "width"} <= columns.keys():
        height, width = (
            columns[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("height", "width")
        )
        yield _Column("area", _ranges(height * width), True)
    for name, values in (
        ("duration", summaries.seconds),
        ("brightness", summaries.brightness),
        ("contrast", summaries.contrast),
    ):
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
    """Return the leaf of each number: ranges of equal size, or one leaf per value if there are few; NaN has its own.

    >>> _ranges(np.array([5.0, 7.0, np.nan, 5.0])).tolist()
    [0, 1, 2, 0]
    """
    known_numbers = numbers[~np.isnan(numbers)]
    values = np.unique(known_numbers)
    cuts = values[1:]
    if len(values) > _LEAVES:
        cuts = np.unique(np.quantile(known_numbers, np.arange(1, _LEAVES) / _LEAVES))
    return np.where(np.isnan(numbers), len(cuts) + 1, np.searchsorted(cuts, numbers, side="right")).astype(np.int64)


def _best_answer(column: _Column, questions: Sequence[_Question], scores: NDArray[np.float64]) -> Shortcut:
    """Return the score of a column for the question with the best score; scores are (questions, 1 + deals)."""
    chance = 0.5 if questions[0].is_class else 0.0
    null_scores = np.sort(scores[:, 1:].max(axis=0))  # the best of all questions, by chance
    mark = null_scores[min(int(np.ceil((1 - _P_VALUE) * (len(null_scores) + 1))), len(null_scores)) - 1]
    best = int(np.argmax(scores[:, 0]))
    score_scale = questions[best].score_scale
    return Shortcut(
        name=column.name,
        about=questions[best].about,
        measure="balanced accuracy" if questions[best].is_class else "R2",
        score=float(chance + scores[best, 0] * score_scale),
        chance=chance,
        p_value=(1 + int((null_scores >= scores[best, 0]).sum())) / (1 + len(null_scores)),
        limit=float(min(chance + max(mark * score_scale, _MIN_SHARE * (1 - chance)), 1.0)),
    )


def _score_classes(
    fold_sums: list[NDArray[np.float64]], counts: list[NDArray[np.float64]], answers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the balanced accuracy of each permutation. The leaves of a fold get the majority class of other folds.

    `fold_sums` are the units with the class by leaf, (deals, leaves), `counts` all units by leaf; one of each per fold.
    """
    all_inside, all_counts = np.sum(fold_sums, axis=0), np.sum(counts, axis=0)
    total = answers.sum(axis=1)
    true_positives, true_negatives = np.zeros(len(answers)), np.zeros(len(answers))
    for class_sums, units in zip(fold_sums, counts, strict=True):
        class_counts, other_counts = all_inside - class_sums, (all_counts - units) - (all_inside - class_sums)
        guess = class_counts * other_counts.sum(axis=1, keepdims=True) > other_counts * class_counts.sum(
            axis=1, keepdims=True
        )
        true_positives += np.where(guess, class_sums, 0).sum(axis=1)
        true_negatives += np.where(guess, 0, units - class_sums).sum(axis=1)
    return np.asarray((true_positives / total + true_negatives / (answers.shape[1] - total)) / 2)


def _score_numbers(
    fold_sums: list[NDArray[np.float64]], counts: list[NDArray[np.float64]], answers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return R2 of each permutation. The leaves of a fold get the mean of the other folds; answers have mean 0."""
    all_inside, all_counts = np.sum(fold_sums, axis=0), np.sum(counts, axis=0)
    explained_variance = np.zeros(len(answers))
    for sums, units in zip(fold_sums, counts, strict=True):
        sums_outside, units_outside = all_inside - sums, all_counts - units
        mean = sums_outside.sum(axis=1, keepdims=True) / units_outside.sum()
        guess = np.where(units_outside > 0, sums_outside / np.maximum(units_outside, 1e-9), mean)
        explained_variance += 2 * (guess * sums).sum(axis=1) - (guess**2 * units).sum(axis=1)
    return np.asarray(explained_variance / (answers[0] ** 2).sum())


def _report_shortcuts(
    predictive: list[tuple[_Column, Shortcut]], target: str, *, deals: int, rows: int
) -> list[Finding]:
    findings = []
    for about_file in (True, False):
        group = [each for column, each in predictive if column.about_file == about_file]
        if not group:
            continue
        first = group[0]
        strong = any(each.share >= _STRONG_SHARE and each.p_value <= 2 / (1 + deals) for each in group)
        is_class = first.measure != "R2"
        scores = ", ".join(f"{each.name} {each.score:.2f}{f' ({each.about})' if is_class else ''}" for each in group)
        measure = "Balanced accuracy of one class against the others" if is_class else "R2"
        findings.append(
            finding(
                "error" if about_file and strong else "warning",
                "label_predicted_by_file" if about_file else "label_predicted_by_frames",
                f"{target} can be predicted from {', '.join(each.name for each in group[:3])}"
                + (" ..." if len(group) > 3 else "")
                + (", without the frames" if about_file else ""),
                detail=f"{measure}, by a small tree on that column alone, tested on other groups: {scores}. Guessing "
                f"scores {first.chance:g}; permuted labels reach {max(each.limit for each in group):.2f} once in "
                f"{round(1 / _P_VALUE)}.",
                advice="balance it over the label, or test on data in which it is not correlated with the label"
                if about_file
                else "decide whether a model should use it; if not, vary it in training",
                count=rows,
            )
        )
    return findings
