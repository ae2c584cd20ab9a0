import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from cinefeed.balance import BalancedClasses, class_weights, correct_prior, kept_prior
from cinefeed.errors import LabelError

RARE = np.array(["well"] * 90 + ["sick"] * 10)


def test_class_weights_are_scikit_learns():
    weights = class_weights(RARE)
    assert list(weights.values()) == compute_class_weight("balanced", classes=np.array(list(weights)), y=RARE).tolist()
    assert np.mean([weights[label] for label in RARE.tolist()]) == pytest.approx(1)
    assert class_weights([True, False, True, True]) == {False: 2.0, True: 2 / 3}


def test_two_classes_as_one_column_or_two():
    one = np.array([0.0, 0.25, 0.5, 1.0])
    corrected = correct_prior(one, drawn=[50, 50], raw=[0.9, 0.1])
    two = correct_prior(np.stack([1 - one, one], axis=1), drawn=[1, 1], raw=[90, 10])
    assert np.allclose(two[:, 1], corrected) and np.allclose(two.sum(axis=1), 1)
    assert corrected[[0, 3]].tolist() == [0, 1] and corrected[2] == pytest.approx(0.1)
    odds = corrected[1] / (1 - corrected[1])
    assert odds == pytest.approx(1 / 3 / 9)
    assert np.allclose(correct_prior(corrected, drawn=[90, 10], raw=[50, 50]), one)


def test_a_model_of_balanced_draws_is_calibrated_again():
    rng = np.random.default_rng(0)
    classes = (rng.random(20_000) < 0.05).astype(int)
    seen = rng.normal(classes * 1.5)[:, None]
    sampler = BalancedClasses()
    rows = sampler.plan(classes).rows
    risk = LogisticRegression().fit(seen[rows], classes[rows]).predict_proba(seen)
    kept = json.loads(json.dumps(sampler.report(classes).as_dict()))
    corrected = correct_prior(risk, **kept_prior(kept, classes=["0", "1"]))
    assert risk[:, 1].mean() > 0.2  # over-sampling overestimates risk
    assert corrected[:, 1].mean() == pytest.approx(classes.mean(), rel=0.05)
    assert np.array_equal(np.argsort(risk[:, 1]), np.argsort(corrected[:, 1]))


def test_a_class_that_was_neither_drawn_nor_is_in_the_data_stays():
    found = correct_prior([[0.5, 0.25, 0.25]], drawn=[1, 1, 0], raw=[1, 1, 0])
    assert found.tolist() == [[0.5, 0.25, 0.25]]
    gone = correct_prior([[1.0, 0.0]], drawn=[1, 1], raw=[0, 1])  # sure of what is not to come: nothing to go by
    assert gone.tolist() == [[1.0, 0.0]]


def test_what_is_kept_names_its_classes():
    kept = BalancedClasses().report(RARE).as_dict()
    prior = kept_prior(kept, classes=["well", "odd", "sick"])
    assert {name: each.tolist() for name, each in prior.items()} == {"drawn": [50, 0, 50], "raw": [90, 0, 10]}
    with pytest.raises(LabelError, match="balanced were sick, well"):
        kept_prior(kept, classes=["a", "b"])


@pytest.mark.parametrize(
    ("probabilities", "drawn", "raw", "message"),
    [
        ([0.5], [1, 1, 1], [1, 1], "drawn has shape"),
        ([[0.5, 0.5]], [1, 1], [1], "raw has shape"),
        (0.5, [1, 1], [1, 1], "drawn has shape"),
        ([1.5], [1, 1], [1, 1], "from 0 to 1"),
        ([np.nan], [1, 1], [1, 1], "from 0 to 1"),
        ([0.5], [0, 1], [1, 1], "class 0 has a share of 0.5 and was never drawn"),
        ([0.5], [0, 0], [1, 1], "not all of them 0"),
        ([0.5], [1, 1], [-1, 1], "counts or shares"),
    ],
)
def test_what_cannot_be_corrected(probabilities, drawn, raw, message):
    with pytest.raises(LabelError, match=message):
        correct_prior(probabilities, drawn=drawn, raw=raw)
