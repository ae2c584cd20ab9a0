import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from cinefeed.core.errors import LabelError
from cinefeed.data.sampling.prior import correct_prior
from cinefeed.metrics import calibration, calibration_by_class, error_by_bin, limits_of_agreement

rng = np.random.default_rng(4)
RISKS = np.concatenate([rng.uniform(0, 1, 500), np.linspace(0, 1, 11)])  # edges of bins, too
SICK = (rng.uniform(0, 1, 511) < RISKS).astype(int)


def test_bins_are_scikit_learns():
    result = calibration(targets=SICK, scores=RISKS, classes=["no", "yes"])
    share, score = calibration_curve(SICK, RISKS, n_bins=10)
    assert [each["share"] for each in result["bins"]] == pytest.approx(share.tolist())
    assert [each["score"] for each in result["bins"]] == pytest.approx(score.tolist())
    counts = np.array([each["count"] for each in result["bins"]])
    assert counts.sum() == 511
    assert result["ece"] == pytest.approx((np.abs(share - score) * counts).sum() / 511)
    assert result["ece"] < 0.06


def test_overconfidence_increases_ece():
    sure = np.where(RISKS > 0.5, 0.99, 0.01)
    result = calibration(targets=SICK, scores=sure, classes=["no", "yes"])
    assert result["ece"] > 0.2
    assert [(each["low"], each["high"]) for each in result["bins"]] == [(0, 0.1), (0.9, 1)]


def test_ece_of_three_classes_uses_the_largest_probability():
    scores = np.array([[0.65, 0.25, 0.1], [0.65, 0.3, 0.05], [0.1, 0.05, 0.85], [0.2, 0.35, 0.45]])
    result = calibration(targets=[0, 1, 2, 2], scores=scores, classes="abc")
    assert [(each["count"], each["share"]) for each in result["bins"]] == [(1, 1.0), (2, 0.5), (1, 1.0)]
    assert result["ece"] == pytest.approx((0.55 + 2 * 0.15 + 0.15) / 4)
    each = calibration_by_class(targets=[0, 1, 2, 2], scores=scores, classes="abc")
    assert list(each) == ["a", "b", "c"]
    assert [row["share"] for row in each["a"]["bins"]] == [0, 0, 0.5]
    assert sum(row["count"] for row in each["b"]["bins"]) == 4


def test_two_classes_have_equal_ece():
    each = calibration_by_class(targets=SICK[:500], scores=RISKS[:500], classes=["no", "yes"])
    assert each["no"]["ece"] == pytest.approx(each["yes"]["ece"])


def test_scores_of_a_balanced_training_are_calibrated_by_the_draws():
    targets = (rng.uniform(0, 1, 4000) < 0.05).astype(int)
    signal = rng.normal(targets * 2.0, 1)
    balanced = 1 / (1 + np.exp(-(2 * signal - 2)))  # the truth, where both classes are equally frequent
    before = calibration(targets=targets, scores=balanced, classes="ab")["ece"]
    right = correct_prior(balanced, draws=[1, 1], raw=[95, 5])
    assert calibration(targets=targets, scores=right, classes="ab")["ece"] < 0.02 < 0.1 < before


def test_logits_are_rejected():
    with pytest.raises(LabelError, match="scores from -1 to 2"):
        calibration(targets=[0, 1], scores=[-1.0, 2.0], classes="ab")


def test_limits_of_agreement_contain_95_percent():
    targets = rng.normal(60, 10, 2000)
    scores = targets + rng.normal(3, 4, 2000)
    result = limits_of_agreement(targets=targets, scores=scores)
    assert result["bias"] == pytest.approx(np.mean(scores - targets))
    assert result["sd"] == pytest.approx(np.std(scores - targets, ddof=1))
    inside = ((scores - targets > result["lower"]) & (scores - targets < result["upper"])).mean()
    assert 0.93 < inside < 0.97
    assert np.isnan(limits_of_agreement(targets=[1.0], scores=[2.0])["upper"])


def test_error_by_bin_is_larger_for_rare_labels():
    targets = np.linspace(20, 100, 161)
    scores = 60 + (targets - 60) * 0.5  # regresses to the mean
    rows = error_by_bin(targets=targets, scores=scores)
    assert len(rows) == 10 and sum(each["count"] for each in rows) == 161
    assert (rows[0]["low"], rows[-1]["high"]) == (20, 100)
    assert rows[0]["mae"] > 4 * rows[4]["mae"]
    assert rows[0]["bias"] > 0 > rows[-1]["bias"]
    for each in rows[:-1]:
        inside = (targets >= each["low"]) & (targets < each["high"])
        assert each["mae"] == pytest.approx(np.abs(scores - targets)[inside].mean())


def test_bins_of_few_and_of_equal_labels():
    assert len(error_by_bin(targets=[1.0, 9.0], scores=[1.0, 1.0])) == 2  # the empty one between is left out
    (row,) = error_by_bin(targets=[5.0, 5.0], scores=[6.0, 4.0])
    assert row == {"low": 5.0, "high": 5.0, "count": 2, "mae": 1.0, "bias": 0.0}
