"""An assessment: its structure, and all its numbers recomputed with scikit-learn from the table."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk

from cinefeed.core.errors import ColumnError, LabelError, SettingError
from cinefeed.data.sampling.prior import correct_prior
from cinefeed.metrics import assess, flat_metrics, predictions_of, read_predictions, regression_metrics, target_columns
from cinefeed.metrics.bootstrap import SAME_VALUE, cluster_weights
from cinefeed.metrics.weighted import weighted_regression

VIEWS = ["2ch", "4ch", "psax"]
QUICK = {"resamples": 60, "seed": 1}


@pytest.fixture(scope="module")
def predictions_path(tmp_path_factory):
    """Keep predictions of 90 patients, two or three clips of each of two videos, three targets, some labels missing."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(90):
        age, sick, view = rng.normal(60, 12), int(rng.integers(0, 2)), int(rng.integers(0, 3))
        for video in range(2):
            for clip in range(int(rng.integers(2, 4))):
                share = rng.dirichlet([1, 1, 1]) * 0.8 + np.eye(3)[view] * 0.2
                rows.append(
                    {
                        "id": f"p{patient}v{video}",
                        "path": f"p{patient}v{video}.mp4",
                        "split": "val" if patient < 30 else "test",
                        "clip": clip,
                        "patient": f"p{patient}",
                        "sex": "fm"[patient % 2],
                        "target_age": None if patient % 10 == 0 else age,
                        "target_sick": ["no", "yes"][sick],
                        "target_view": VIEWS[view] if patient % 9 else None,
                        "score_age": age * 0.7 + rng.normal(20, 6),
                        "score_sick": float(np.clip(sick * 0.3 + rng.uniform(0, 0.7), 0, 1)),
                        **{f"score_view_{name}": share[k] for k, name in enumerate(VIEWS)},
                    }
                )
    targets = [
        target_columns("age", task="regression", several=True),
        target_columns("sick", task="binary", classes=["no", "yes"], several=True),
        target_columns("view", task="multiclass", classes=VIEWS, several=True),
    ]
    path = tmp_path_factory.mktemp("assess") / "predictions.parquet"
    pq.write_table(predictions_of(pa.Table.from_pylist(rows), targets).table, path)
    return path


@pytest.fixture(scope="module")
def assessment(predictions_path):
    return assess(read_predictions(predictions_path), unit="patient", subgroups=["sex"], **QUICK)


def patients(predictions_path, part, target):
    """Return the table by patient, as anyone with pandas would."""
    table = pytest.importorskip("pandas").read_parquet(predictions_path)
    table = table[(table["split"] == part) & table[f"target_{target}"].notna()]
    scores = [each for each in table.columns if each.startswith(f"score_{target}")]
    videos = table.groupby(["patient", "id"]).agg({f"target_{target}": "first", **dict.fromkeys(scores, "mean")})
    return videos.groupby("patient").agg({f"target_{target}": "first", **dict.fromkeys(scores, "mean")})


def values(result):
    return {name: each["value"] for name, each in result.items()}


def test_every_number_of_a_regression_again(predictions_path, assessment):
    for part in ("val", "test"):
        result = assessment["parts"][part]["age"]
        table = patients(predictions_path, part, "age")
        target, score = table["target_age"].to_numpy(), table["score_age"].to_numpy()
        wrong = score - target
        assert values(result["metrics"]) == pytest.approx(
            {
                "r2": sk.r2_score(target, score),
                "rmse": sk.root_mean_squared_error(target, score),
                "mae": sk.mean_absolute_error(target, score),
                "pearson_r": np.corrcoef(target, score)[0, 1],
                "bias": wrong.mean(),
                "sd": wrong.std(ddof=1),
            }
        )
        assert result["agreement"]["upper"] == pytest.approx(wrong.mean() + 1.96 * wrong.std(ddof=1))
        assert sum(each["count"] for each in result["bins"]) == result["units"] == len(table)
        assert sum(each["mae"] * each["count"] for each in result["bins"]) == pytest.approx(np.abs(wrong).sum())


def test_every_number_of_two_classes_again(predictions_path, assessment):
    val = patients(predictions_path, "val", "sick")
    truth = val["target_sick"] == "yes"
    threshold = assessment["parts"]["test"]["sick"]["threshold"]
    best = max(sk.f1_score(truth, val["score_sick"] >= each) for each in val["score_sick"])
    assert sk.f1_score(truth, val["score_sick"] >= threshold) == best
    for part in ("val", "test"):
        result = assessment["parts"][part]["sick"]
        table = patients(predictions_path, part, "sick")
        target, score = table["target_sick"] == "yes", table["score_sick"]
        positive = score >= threshold
        assert (result["threshold"], result["threshold_from"]) == (threshold, "val")
        expected = {
            "f1": sk.f1_score(target, positive),
            "average_precision": sk.average_precision_score(target, score),
            "auroc": sk.roc_auc_score(target, score),
            "balanced_accuracy": sk.balanced_accuracy_score(target, positive),
            "sensitivity": sk.recall_score(target, positive),
            "specificity": sk.recall_score(target, positive, pos_label=False),
            "accuracy": sk.accuracy_score(target, positive),
        }
        assert {name: values(result["metrics"])[name] for name in expected} == pytest.approx(expected)
        assert result["metrics"]["ece"]["value"] == result["calibration"]["ece"]
        assert result["by_class"]["yes"]["auroc"] == result["metrics"]["auroc"]
        assert result["by_class"]["no"]["f1"]["value"] == pytest.approx(sk.f1_score(~target, ~positive))
        assert result["counts"] == {"no": int((~target).sum()), "yes": int(target.sum())}


def test_every_number_of_three_classes_again(predictions_path, assessment):
    result = assessment["parts"]["test"]["view"]
    table = patients(predictions_path, "test", "view")
    target = table["target_view"].map(VIEWS.index).to_numpy()
    score = table[[f"score_view_{name}" for name in VIEWS]].to_numpy()
    guess = score.argmax(axis=1)
    expected = {
        "f1": sk.f1_score(target, guess, average="macro"),
        "average_precision": sk.average_precision_score(np.eye(3)[target], score),
        "auroc": sk.roc_auc_score(target, score, multi_class="ovr"),
        "balanced_accuracy": sk.balanced_accuracy_score(target, guess),
        "accuracy": sk.accuracy_score(target, guess),
    }
    assert {name: values(result["metrics"])[name] for name in expected} == pytest.approx(expected)
    for k, name in enumerate(VIEWS):
        assert result["by_class"][name]["auroc"]["value"] == pytest.approx(sk.roc_auc_score(target == k, score[:, k]))
    assert "threshold" not in result
    assert list(result["calibration_by_class"]) == VIEWS
    assert result["missing"] == 12 and result["units"] == 54


def test_intervals_hold_their_values_and_the_whole_is_json(assessment):
    text = json.dumps(assessment, allow_nan=False)
    assert json.loads(text) == assessment
    for targets in assessment["parts"].values():
        for result in targets.values():
            for each in result["metrics"].values():
                assert each["reason"] in (None, SAME_VALUE)
                assert (each["low"] is None) == (each["reason"] is not None)
                assert each["low"] is None or each["low"] <= each["high"]
            assert result["metrics"].get("r2", result["metrics"].get("auroc"))["dropped"] == 0
    test = assessment["parts"]["test"]["sick"]["metrics"]
    assert all(test[name]["low"] <= test[name]["value"] <= test[name]["high"] for name in ("auroc", "f1", "accuracy"))
    assert (assessment["unit"], assessment["cluster"], assessment["resamples"]) == ("patient", "patient", 60)


def test_the_same_table_and_seed_give_the_same_assessment(predictions_path, assessment):
    predictions = read_predictions(predictions_path)
    assert assess(predictions, unit="patient", subgroups=["sex"], **QUICK) == assessment
    other = assess(predictions, unit="patient", resamples=60, seed=2)
    assert other["parts"]["test"]["age"]["metrics"]["r2"] != assessment["parts"]["test"]["age"]["metrics"]["r2"]
    assert flat_metrics(other) == flat_metrics(assessment)


def test_flat_metrics_name_the_target_where_there_are_several(predictions_path, assessment):
    flat = flat_metrics(assessment)
    assert flat["test"]["age_r2"] == assessment["parts"]["test"]["age"]["metrics"]["r2"]["value"]
    one = read_predictions(predictions_path)
    alone = assess(predictions_of(one.table, one.targets[:1]), **QUICK)
    assert set(flat_metrics(alone)["test"]) == {"r2", "rmse", "mae", "pearson_r", "bias", "sd"}


def test_without_a_unit_videos_are_measured_and_patients_resampled(predictions_path):
    predictions = read_predictions(predictions_path)
    by_video = assess(predictions, **QUICK)["parts"]["test"]["sick"]
    by_patient = assess(predictions, cluster="patient", **QUICK)["parts"]["test"]["sick"]
    assert (by_video["units"], by_video["clusters"]) == (120, 120)
    assert (by_patient["units"], by_patient["clusters"]) == (120, 60)
    assert values(by_video["metrics"]) == values(by_patient["metrics"])
    assert by_video["metrics"]["auroc"]["low"] != by_patient["metrics"]["auroc"]["low"]


def test_a_frozen_threshold_is_kept(predictions_path):
    predictions = read_predictions(predictions_path).part("test")
    result = assess(predictions, thresholds={"sick": 0.25}, **QUICK)["parts"]["test"]["sick"]
    assert (result["threshold"], result["threshold_from"]) == (0.25, "frozen")
    result = assess(predictions, **QUICK)["parts"]["test"]["sick"]
    assert (result["threshold"], result["threshold_from"]) == (0.5, "0.5")


def test_balanced_training_is_corrected_by_its_draws(predictions_path):
    prior = {"draws": [50, 50], "raw": [90, 10]}
    result = assess(read_predictions(predictions_path), unit="patient", priors={"sick": prior}, **QUICK)["parts"][
        "test"
    ]
    sick, corrected = result["sick"], result["sick"]["corrected"]
    assert result["age"]["corrected"] is None and result["view"]["corrected"] is None
    table = patients(predictions_path, "test", "sick")
    score = correct_prior(table["score_sick"].to_numpy(), **prior)
    assert corrected["metrics"]["auroc"]["value"] == pytest.approx(sk.roc_auc_score(table["target_sick"], score))
    # the order of videos and the threshold's place in it stay: only the probabilities are others
    changed = {name for name, each in corrected["metrics"].items() if each["value"] != sick["metrics"][name]["value"]}
    assert changed == {"ece"}
    assert corrected["threshold"] == pytest.approx(correct_prior([sick["threshold"]], **prior)[0])
    assert corrected["calibration"]["bins"] != sick["calibration"]["bins"]


def test_half_stays_half_of_corrected_scores(predictions_path):
    rows = read_predictions(predictions_path).part("test")
    prior = {"sick": {"draws": [50, 50], "raw": [90, 10]}}
    result = assess(rows, priors=prior, **QUICK)["parts"]["test"]["sick"]
    assert result["corrected"]["threshold"] == 0.5
    assert result["corrected"]["metrics"]["sensitivity"]["value"] < result["metrics"]["sensitivity"]["value"]


def one(part="test", target=(), score=(), **columns):
    """Return predictions of a target of two classes."""
    rows = {"id": [f"v{k}" for k in range(len(target))], "split": [part] * len(target)}
    table = pa.table(rows | {"target": pa.array(target, pa.string()), "score": pa.array(score, pa.float64())} | columns)
    return predictions_of(table, [target_columns("sick", task="binary", classes=["no", "yes"])])


def test_one_class_alone_has_reasons():
    result = assess(one(target=["no"] * 12, score=np.linspace(0, 1, 12)), **QUICK)["parts"]["test"]["sick"]
    auroc = result["metrics"]["auroc"]
    assert auroc == {"value": None, "low": None, "high": None, "dropped": 0, "reason": "all targets are 'no'"}
    assert result["metrics"]["specificity"]["low"] is not None
    assert result["by_class"]["yes"]["sensitivity"]["reason"] == "no target is 'yes'"
    assert result["calibration"]["ece"] > 0


def test_few_units_have_values_without_intervals():
    result = assess(one(target=["no", "yes", "yes"], score=[0.1, 0.8, 0.3]), **QUICK)["parts"]["test"]["sick"]
    assert result["metrics"]["auroc"]["value"] == 1
    assert result["metrics"]["auroc"]["low"] is None
    assert result["metrics"]["auroc"]["reason"] == "an interval needs at least 10 units to resample; found 3"
    single = assess(one(target=["no"], score=[0.1]), **QUICK)["parts"]["test"]["sick"]
    assert single["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_class_of_one_or_two_videos_has_no_interval_from_one_to_one(number):
    score = np.r_[np.linspace(0, 0.6, 20), [0.9, 0.8][:number]]
    predictions = one(target=["no"] * 20 + ["yes"] * number, score=score)
    result = assess(predictions, **QUICK)["parts"]["test"]["sick"]
    sensitivity = result["by_class"]["yes"]["sensitivity"]
    assert sensitivity["value"] == 1 and (sensitivity["low"], sensitivity["high"]) == (None, None)
    assert sensitivity["reason"] == ("the class 'yes' has only 1 unit to resample" if number == 1 else SAME_VALUE)
    assert result["metrics"]["sensitivity"] == sensitivity
    assert result["by_class"]["no"]["sensitivity"]["low"] is not None  # of 20 videos
    assert result["by_class"]["no"]["specificity"]["reason"] == (
        "all but 'no' have only 1 unit to resample" if number == 1 else SAME_VALUE
    )
    assert result["metrics"]["accuracy"]["low"] is not None
    assert (result["metrics"]["auroc"]["low"] is None) == (number == 1) or result["metrics"]["auroc"]["value"] == 1


def test_a_mean_over_classes_has_no_interval_if_one_of_them_is_a_single_patient():
    rng = np.random.default_rng(0)
    names = ["a"] * 14 + ["b"] * 14 + ["c"] * 3
    scores = rng.dirichlet(np.ones(3), len(names))
    table = pa.table(
        {
            "id": [f"v{row}" for row in range(len(names))],
            "split": ["test"] * len(names),
            "patient": [f"p{row}" for row in range(28)] + ["last"] * 3,
            "target": names,
            **{f"score_{name}": scores[:, k] for k, name in enumerate("abc")},
        }
    )
    predictions = predictions_of(table, [target_columns("kind", task="multiclass", classes=["a", "b", "c"])])
    metrics = assess(predictions, cluster="patient", **QUICK)["parts"]["test"]["kind"]["metrics"]
    assert metrics["balanced_accuracy"]["reason"] == "the class 'c' has only 1 unit to resample"
    assert metrics["accuracy"]["low"] is not None
    by_video = assess(predictions, **QUICK)["parts"]["test"]["kind"]["metrics"]
    assert by_video["balanced_accuracy"]["low"] is not None


def test_intervals_stay_within_the_values_that_a_metric_can_have():
    rng = np.random.default_rng(0)
    for count in (12, 40):
        target = rng.normal(size=count)
        for score in (target, 1e-9 * target + 3, -7 * target):
            weights = next(cluster_weights(np.arange(count), resamples=300, seed=0))
            values = weighted_regression(targets=target, scores=score, weights=weights)["pearson_r"]
            assert np.nanmax(np.abs(values)) <= 1
            assert abs(regression_metrics(targets=target, scores=score)["pearson_r"]) <= 1


def test_no_label_and_no_row():
    result = assess(one(target=[None] * 3, score=[0.1, 0.2, 0.3], sex=list("fmf")), subgroups=["sex"], **QUICK)
    sick = result["parts"]["test"]["sick"]
    assert (sick["units"], sick["missing"], sick["calibration"]) == (0, 3, {"ece": None, "bins": []})
    assert {each["reason"] for each in sick["metrics"].values()} == {"no labels"}
    json.dumps(result, allow_nan=False)
    assert assess(one(), **QUICK)["parts"] == {}
    table = pa.table({"id": ["a"], "split": ["predict"], "score": [61.0]})
    ages = assess(predictions_of(table, [target_columns("age", task="regression")]), **QUICK)
    assert ages["parts"]["predict"]["age"]["agreement"]["bias"] is None


def test_validation_of_one_class_leaves_the_threshold_at_half():
    table = pa.concat_tables([one("val", ["no"] * 2, [0.1, 0.9]).table, one("test", ["no", "yes"], [0.1, 0.6]).table])
    result = assess(predictions_of(table, one().targets), **QUICK)["parts"]["test"]["sick"]
    assert (result["threshold"], result["threshold_from"]) == (0.5, "0.5")


def test_two_classes_that_are_scored_each_are_a_binary_target():
    table = pa.table({"id": list("abc"), "split": ["test"] * 3, "target": ["x", "y", "y"], "score_x": [0.6, 0.1, 0.4]})
    table = table.append_column("score_y", pa.array([0.4, 0.9, 0.6]))
    columns = target_columns("kind", task="multiclass", classes=["x", "y"])
    prior = {"kind": {"draws": [1, 1], "raw": [3, 1]}}
    result = assess(predictions_of(table, [columns]), priors=prior, **QUICK)["parts"]["test"]["kind"]
    assert result["threshold"] == 0.5 and result["metrics"]["f1"]["value"] == 1
    assert result["corrected"]["metrics"]["sensitivity"]["value"] == 0.5  # 0.6 of even classes is 1/3 of one in four


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"unit": "patent"}, ColumnError, "no column 'patent'; did you mean 'patient'"),
        ({"subgroups": ["sx"]}, ColumnError, "no column 'sx'; did you mean 'sex'"),
        ({"thresholds": {"sik": 0.5}}, SettingError, "thresholds name a target 'sik'; did you mean 'sick'"),
        ({"thresholds": {"sick": 1.5}}, SettingError, "the threshold of 'sick' is 1.5"),
        ({"priors": {"vew": {}}}, SettingError, "priors name a target 'vew'; did you mean 'view'"),
        ({"level": 95}, SettingError, "level=95 must be between 0 and 1"),
        ({"unit": "sex"}, LabelError, "its videos differ in 'target_age'|'target_sick'"),
    ],
)
def test_what_cannot_be_assessed(predictions_path, kwargs, error, message):
    with pytest.raises(error, match=message):
        assess(read_predictions(predictions_path), **kwargs)
