"""Figures of predictions: functions from targets and scores to SVG text."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.metrics import class_scores, confusion_matrix, regression_metrics
from cinefeed.reports.style import BLUE, GREY, INK, SERIES, VERMILION, new_figure, plain, to_svg

_LETTERS_OF_TWO_COLUMNS = 15  # the longest label with which two columns of a legend fit above the axes
Marks = Mapping[str, float]  # thresholds by name
NO_MARKS: Marks = MappingProxyType({})
_FEWEST = 2  # units of a class, and of the others, for a curve
_MOST_CURVES = len(SERIES)  # more colours are hard to distinguish
_MOST_POINTS = 2000  # more points are stored as pixels: a point in SVG takes about 70 bytes


def predicted_vs_true(targets: ArrayLike, *, scores: ArrayLike, name: str = "label") -> str:
    """Return predictions against truth, one point per video, with the line of equality, R2, RMSE and MAE."""
    true, predicted = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    edge = 0.04 * (high - low or 1.0)
    with new_figure(3.4, 3.4) as figure:
        axes = figure.add_subplot()
        axes.plot([low - edge, high + edge], [low - edge, high + edge], color=GREY, linewidth=1, dashes=(4, 3))
        many = len(true) > _MOST_POINTS
        axes.scatter(true, predicted, s=6 if many else 16, color=BLUE, alpha=0.5, linewidths=0, rasterized=many)
        axes.set(xlim=(low - edge, high + edge), ylim=(low - edge, high + edge), aspect="equal")
        axes.set(xlabel=f"true {plain(name)}", ylabel=f"predicted {plain(name)}")
        metrics = regression_metrics(targets=true, scores=predicted)
        r2 = "not defined" if "r2" in metrics.reasons else f"{metrics['r2']:.3f}"
        axes.set_title(f"R² {r2} · RMSE {metrics['rmse']:.3g} · MAE {metrics['mae']:.3g}", fontsize=9)
        return to_svg(figure, name="predicted")


def confusion_figure(
    targets: ArrayLike, *, scores: ArrayLike, classes: Sequence[str], threshold: float | None = None
) -> str:
    """Return the confusion matrix: counts, shaded by the share of the true class.

    `threshold` separates the scores of two classes; the default is 0.5.
    """
    threshold = 0.5 if threshold is None else threshold
    counts = confusion_matrix(targets=targets, scores=scores, classes=classes, threshold=threshold)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.2, 1.2 + 0.5 * len(classes)), 8.4)
    with new_figure(side, side) as figure:
        axes = figure.add_subplot()
        from matplotlib.colors import LinearSegmentedColormap

        axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", ["white", BLUE]), vmin=0, vmax=1)
        if len(classes) <= 12:
            for row, column in np.ndindex(counts.shape):
                colour = "white" if shares[row, column] > 0.55 else INK
                text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5, linespacing=1.5)
        names = [plain(name) for name in classes]
        axes.set_xticks(
            range(len(names)),
            names,
            rotation=45 if max(map(len, names)) > 6 else 0,
            ha="right" if max(map(len, names)) > 6 else "center",
        )
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return to_svg(figure, name="confusion")


def roc_figure(targets: ArrayLike, *, scores: ArrayLike, classes: Sequence[str], marks: Marks = NO_MARKS) -> str:
    """Return the ROC curve of the positive class, or of each class against all others; none for a single unit.

    `marks` are thresholds of two classes by name, which are marked on the curve.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    with new_figure(3.2, 3.7) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, dashes=(4, 3))
        for label, truth, score, style in _one_against_rest(targets, scores, classes):
            false, true, _ = roc_curve(truth, score)
            axes.plot(false, true, label=f"{label} {roc_auc_score(truth, score):.3f}", **style)
            for marker, (name, threshold) in zip("oD", _distinct(marks if len(classes) == 2 else {}), strict=False):
                above = score >= threshold
                _mark(axes, above[~truth].mean(), above[truth].mean(), name, marker)
        _name_single(axes, targets, scores, classes)
        _unit_square(axes, "false positive rate", "true positive rate", "AUROC")
        return to_svg(figure, name="roc")


def pr_figure(targets: ArrayLike, *, scores: ArrayLike, classes: Sequence[str], marks: Marks = NO_MARKS) -> str:
    """Return precision against recall; for two classes the dashed line is the precision of random scores.

    `marks` are thresholds as in `roc_figure`.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    with new_figure(3.2, 3.7) as figure:
        axes = figure.add_subplot()
        curves = _one_against_rest(targets, scores, classes)
        if len(curves) == 1:
            axes.axhline(curves[0][1].mean(), color=GREY, linewidth=1, dashes=(4, 3))
        for label, truth, score, style in curves:
            precision, recall, _ = precision_recall_curve(truth, score)
            axes.plot(recall, precision, label=f"{label} {average_precision_score(truth, score):.3f}", **style)
            for marker, (name, threshold) in zip("oD", _distinct(marks if len(classes) == 2 else {}), strict=False):
                above = score >= threshold
                if above.any():
                    _mark(axes, above[truth].mean(), truth[above].mean(), name, marker)
        _name_single(axes, targets, scores, classes)
        _unit_square(axes, "recall", "precision", "Average precision")
        return to_svg(figure, name="pr")


def _distinct(marks: Marks) -> list[tuple[str, float]]:
    """Return legend and value of each threshold; equal ones are one.

    >>> _distinct({"best F1": 0.4, "Youden's J": 0.4}), _distinct({"": 0.25})
    ([("best F1, Youden's J: 0.4", 0.4)], [('at 0.25', 0.25)])
    """
    names: dict[float, list[str]] = {}
    for name, threshold in marks.items():
        names.setdefault(threshold, []).append(name)
    return [
        (f"{', '.join(each)}: {threshold:.3g}" if any(each) else f"at {threshold:.3g}", threshold)
        for threshold, each in names.items()
    ]


def _mark(axes: Any, across: float, up: float, label: str, marker: str) -> None:
    axes.plot(across, up, marker, color=VERMILION, markersize=6, zorder=3, label=label)


def _one_against_rest(
    targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64], dict[str, Any]]]:
    """Return name, truth, score and line style of each curve: the positive class of two, or the most frequent ones."""
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    counts = np.bincount(target, minlength=len(classes))
    if score.ndim == 1:
        if counts.min() < _FEWEST:
            raise ValueError(f"{classes[int(counts.argmin())]} has {counts.min()} of {len(target)} labels")
        return [(plain(classes[1]), target == 1, score, {"color": BLUE})]
    ordered = np.argsort(-counts, kind="stable").tolist()
    frequent = [k for k in ordered if _FEWEST <= counts[k] <= len(target) - _FEWEST][:_MOST_CURVES]
    if not frequent:
        raise ValueError(f"no class, and no rest of one, has {_FEWEST} labels")
    return [
        (plain(classes[k]), target == k, score[:, k], {"color": SERIES[i], "linewidth": 1.4})
        for i, k in enumerate(sorted(frequent))
    ]


def _name_single(axes: Any, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> None:
    """Name the classes of a single unit in the legend: a curve of one unit shows nothing."""
    target, _ = class_scores(targets=targets, scores=scores, classes=classes)
    counts = np.bincount(target, minlength=len(classes))
    for k in np.flatnonzero(counts == 1)[:_MOST_CURVES].tolist():
        axes.plot([], [], " ", label=f"{plain(classes[k])}: one, no curve")


def _unit_square(axes: Any, across: str, up: str, legend: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=across, ylabel=up)
    # above the axes, where it cannot cover a curve
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if len(labels) > 1 and max(map(len, labels)) <= _LETTERS_OF_TWO_COLUMNS else 1
    rows = -(-len(labels) // columns)
    axes.figure.set_size_inches(3.2, 3.5 + 0.17 * max(rows, 1))
    axes.legend(
        title=legend,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.3,
        fontsize=8,
        handlelength=1.4,
        columnspacing=1.2,
    )
