"""Results -> tables: means over seeds, intervals over videos, and the spread over seeds apart from them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.balance.data import CLASSES, THINNED
from benchmarks.balance.experiments import EXPERIMENTS
from cinefeed.core.rng import Stage, rng_for
from cinefeed.data.sampling import correct_prior

RESAMPLES = 1000
MANY, FEW = 0.15, 0.05  # of the training rows: a bin with more has many shots, with less few
BINS = 10  # of a reliability diagram

Floats = NDArray[np.float64]
Measure = Callable[[Floats, Floats, Floats], float]  # targets, scores, weights
Statistic = Callable[[NDArray[np.int64]], Floats]  # rows -> a value for each seed


def tables(records: Sequence[dict[str, Any]]) -> str:
    """Return Markdown tables of all experiments, of the seeds that every method has finished."""
    parts = []
    for name, experiment in EXPERIMENTS.items():
        complete = [one for one in records if one["experiment"] == name and one["method"] in experiment.methods]
        seeds = [
            {one["seed"] for one in complete if one["method"] == each} for each in {one["method"] for one in complete}
        ]
        complete = [one for one in complete if one["seed"] in set.intersection(*seeds)]
        if complete:
            parts.append(
                f"## {experiment.title} (`{name}`)\n\n" + (_regression if experiment.edges else _binary)(complete)
            )
    return "\n\n".join(parts)


def shots(records: Iterable[dict[str, Any]], *, edges: Sequence[float]) -> NDArray[np.str_]:
    """Return for each bin whether it has many, medium or few shots, by its mean share of the training parts.

    >>> shots([{"train_labels": [1, 1, 1, 2.5] + [2.6] * 2 + [1] * 34}], edges=[0, 2, 3, 4]).tolist()
    ['many', 'medium', 'few']
    """
    shares = np.mean(
        [np.histogram(one["train_labels"], edges)[0] / len(one["train_labels"]) for one in records], axis=0
    )
    return np.where(shares >= MANY, "many", np.where(shares < FEW, "few", "medium"))


def interval(statistic: Statistic, *, strata: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Return the mean over seeds, its 95 % interval over videos, and the standard deviation over seeds.

    Videos are drawn with replacement within each stratum (a bin or a class), the same for every seed: the interval
    says how far other videos would move the mean, the deviation how far another training would.

    >>> errors = np.array([[1.0, 1.0], [3.0, 3.0]])
    >>> [round(each, 2) for each in interval(lambda rows: errors[:, rows].mean(axis=1), strata=np.zeros(2, np.int64))]
    [2.0, 2.0, 2.0, 1.41]
    """
    every = np.arange(len(strata))
    groups = [np.flatnonzero(strata == number) for number in np.unique(strata)]
    means = []
    for number in range(RESAMPLES):
        rng = rng_for(0, stage=Stage.BOOTSTRAP, epoch=0, position=number)
        rows = np.concatenate([group[rng.integers(0, len(group), len(group))] for group in groups])
        means.append(statistic(rows).mean())
    by_seed = statistic(every)
    low, high = np.quantile(means, [0.025, 0.975])
    deviation = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
    return float(by_seed.mean()), float(low), float(high), deviation


def _cell(estimate: tuple[float, float, float, float], digits: int) -> str:
    mean, low, high, deviation = (f"{each:.{digits}f}" for each in estimate)
    return f"{mean} ({low} to {high}) ± {deviation}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_method(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    methods: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(records, key=lambda one: int(one["seed"])):
        methods.setdefault(one["method"], []).append(one)
    return {name: methods[name] for name in EXPERIMENTS[records[0]["experiment"]].methods if name in methods}


def _part(records: Sequence[dict[str, Any]], part: str) -> tuple[Floats, Floats]:
    """Return targets (videos,) and scores (seeds, videos) of a part."""
    targets = np.array([one["parts"][part]["targets"] for one in records], np.float64)
    assert (targets == targets[0]).all(), "the test part differs between seeds"
    return targets[0], np.array([one["parts"][part]["scores"] for one in records], np.float64)


def _regression(records: Sequence[dict[str, Any]]) -> str:
    edges = EXPERIMENTS[records[0]["experiment"]].edges
    kinds = shots(records, edges=edges)
    spans = [f"{low:g} to {high:g} {kind}" for low, high, kind in zip(edges[:-1], edges[1:], kinds, strict=True)]
    lines = [f"Bins: {', '.join(spans)}.\n"]
    methods = _by_method(records)
    for part in [each for each in records[0]["parts"] if each != "val"]:
        targets, _ = _part(next(iter(methods.values())), part)
        where = np.clip(np.searchsorted(edges, targets, side="right") - 1, 0, len(kinds) - 1)
        rows_of = {kind: np.flatnonzero(kinds[where] == kind) for kind in ("many", "medium", "few")}
        columns = {"all": np.arange(len(targets)), **{kind: rows for kind, rows in rows_of.items() if len(rows)}}
        rows = []
        for name, runs in methods.items():
            errors = np.abs(_part(runs, part)[1] - targets)
            cells = [
                _cell(_mean_of(errors, rows=rows_of, bins=where), _digits(targets)) for rows_of in columns.values()
            ]
            rows.append([name, str(len(runs)), *cells])
        constant = np.median(np.concatenate([one["train_labels"] for one in records]))
        cells = [f"{np.abs(targets[rows_] - constant).mean():.{_digits(targets)}f}" for rows_ in columns.values()]
        rows.append([f"always the training median, {constant:.3g}", "", *cells])
        heads = [f"MAE, {part}", "seeds", *(f"{kind} ({len(rows_)} videos)" for kind, rows_ in columns.items())]
        lines += [_table(heads, rows), ""]
        if "natural" in methods:
            lines += [_differences(methods, part=part, columns=columns, bins=where), ""]
    return "\n".join(lines).strip()


def _mean_of(errors: Floats, *, rows: NDArray[np.int64], bins: NDArray[np.int64]) -> tuple[float, float, float, float]:
    values = errors[:, rows]
    return interval(lambda resample: np.asarray(values[:, resample].mean(axis=1)), strata=bins[rows])


def _digits(targets: Floats) -> int:
    return 2 if np.ptp(targets) > 10 else 3


def _differences(
    methods: dict[str, list[dict[str, Any]]],
    *,
    part: str,
    columns: dict[str, NDArray[np.int64]],
    bins: NDArray[np.int64],
) -> str:
    """Return a table of each method's error less that of the natural one, on the same videos and seeds."""
    rows = []
    targets, usual = _part(methods["natural"], part)
    for name, runs in methods.items():
        if name != "natural":
            less = np.abs(_part(runs, part)[1] - targets) - np.abs(usual - targets)
            cells = [
                _cell(_mean_of(less, rows=rows_of_column, bins=bins), _digits(targets))
                for rows_of_column in columns.values()
            ]
            rows.append([name, *cells])
    return _table([f"MAE less that of natural, {part}", *columns], rows)


def _binary(records: Sequence[dict[str, Any]]) -> str:
    lines = []
    for part in [each for each in records[0]["parts"] if each != "val"]:
        rows = []
        for name, runs in _by_method(records).items():
            targets, scores = _part(runs, part)
            ways = {name: scores}
            if name != "natural":
                ways[f"{name}, corrected"] = np.array([_corrected(one, part) for one in runs])
            for title, values in ways.items():
                cells = [_cell(_over_seeds(each, targets, values), 3) for each in MEASURES.values()]
                rows.append([title, str(len(runs)), *cells])
        share = np.mean([_positive(one) for one in records])
        lines.append(
            f"{part}: {len(targets)} videos, {int(targets.sum())} positive, which count {THINNED:g} each: observed "
            f"prevalence {np.average(targets, weights=_thinned(targets)):.3f}; in the training parts {share:.3f}.\n"
        )
        lines.append(_table(["", "seeds", *MEASURES], rows))
    return "\n".join(lines)


def _over_seeds(measure: Measure, targets: Floats, scores: Floats) -> tuple[float, float, float, float]:
    weights = _thinned(targets)

    def each_seed(rows: NDArray[np.int64]) -> Floats:
        return np.array([measure(targets[rows], one[rows], weights[rows]) for one in scores])

    return interval(each_seed, strata=targets.astype(np.int64))


def _thinned(targets: Floats) -> Floats:
    """Return weights by which a whole test part stands for one that is thinned like the training part."""
    return np.where(targets == 1, THINNED, 1.0)


def _positive(run: dict[str, Any]) -> float:
    return float(np.mean([label == CLASSES[1] for label in run["train_labels"]]))


def _corrected(run: dict[str, Any], part: str) -> Floats:
    """Return scores as they would be, had the training seen the classes as often as its part holds them."""
    sampler = EXPERIMENTS[run["experiment"]].methods[run["method"]]
    labels = np.array(run["train_labels"])
    weights = sampler.sample_weights(labels)
    counts = sampler.expected_draws(labels) if weights is None else weights  # a cap leaves less than one half
    class_draws = [float(counts[labels == each].sum()) for each in CLASSES]
    raw = [float((labels == each).sum()) for each in CLASSES]
    return correct_prior(np.array(run["parts"][part]["scores"]), draws=class_draws, raw=raw)


def calibration_error(targets: Floats, scores: Floats, weights: Floats) -> float:
    """Return the expected calibration error: the mean distance of probability and frequency, over ten equal bins.

    >>> calibration_error(np.array([0, 1]), np.array([0.5, 0.5]), np.ones(2))
    0.0
    """
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights * (scores - targets), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def _f1(targets: Floats, scores: Floats, weights: Floats) -> float:
    weights_above = weights[scores >= 0.5]
    right = float((weights_above * targets[scores >= 0.5]).sum())
    return 2 * right / float(weights_above.sum() + (weights * targets).sum())


def _brier(targets: Floats, scores: Floats, weights: Floats) -> float:
    return float(np.average((scores - targets) ** 2, weights=weights))


def _mean(targets: Floats, scores: Floats, weights: Floats) -> float:
    return float(np.average(scores, weights=weights))


def _auroc(targets: Floats, scores: Floats, weights: Floats) -> float:
    return float(roc_auc_score(targets, scores))


def _precision(targets: Floats, scores: Floats, weights: Floats) -> float:
    return float(average_precision_score(targets, scores, sample_weight=weights))


MEASURES: dict[str, Measure] = {
    "AUROC": _auroc,
    "average precision": _precision,
    "F1 at 0.5": _f1,
    "mean probability": _mean,
    "calibration error": calibration_error,
    "Brier score": _brier,
}
