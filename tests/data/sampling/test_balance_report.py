import json

import numpy as np
import pytest

from cinefeed.data.sampling import BalancedClasses, Natural, UniformLabels

RARE = np.array(["well"] * 90 + ["sick"] * 10)
SKEWED = np.random.default_rng(0).beta(5, 2, 400) * 70 + 10


def test_classes():
    report = BalancedClasses().report(RARE, batch_size=16)
    assert report.names == ("sick", "well") and report.raw.tolist() == [10, 90]
    assert report.target.tolist() == report.expected.tolist() == report.reached.tolist() == [50, 50]
    assert (report.rows, report.draws, report.largest_repeat, report.never_drawn) == (100, 100, 5, 40)
    assert report.fewest.tolist() == [5, 0] and report.most.tolist() == [5, 1]
    assert report.distance == {"raw to target": 0.4, "reached to target": 0}
    assert report.deviation["stratum"] == report.deviation["batch"] == 0 and report.deviation["row"] < 1
    assert report.effective_rows == pytest.approx(100**2 / (10 * 25 + 90 * (50 / 90) ** 2))
    assert report.bounds is None and report.warnings == ()
    assert str(report) == (
        "100 rows -> 100 draws: sick 10 -> 50, well 90 -> 50; most drawn row 5 times, 40 rows not drawn; "
        "effective sample size 36.0"
    )


def test_numbers():
    report = UniformLabels(bins=20).report(SKEWED, batch_size=16)
    assert report.distance["raw to target"] > 0.2 > 0.005 > report.distance["reached to target"]
    to_uniform = [report.distance[f"{name} to uniform"] for name in ("raw", "target", "reached")]
    assert to_uniform[0] > 0.2 and abs(to_uniform[1] - to_uniform[2]) < 0.005
    assert report.deviation["batch"] < 1 and report.deviation["stratum"] < 1
    assert report.bounds.shape == (len(report.names), 2) and (np.diff(report.bounds) > 0).all()
    assert "label bins, 1 to" in str(report)
    whole = UniformLabels().report([1, 1, 4])
    assert whole.bounds.tolist() == [[0.5, 1.5], [3.5, 4.5]] and "reached to uniform" not in whole.distance


def test_frequent_repeats_of_a_row_give_a_warning():
    labels = np.append(np.linspace(20, 60, 400), 12.5)
    report = UniformLabels(bins=[12, 15, 40, 61]).report(labels)
    assert report.warnings[0].startswith(
        "the bin [12, 15) has 1 row, drawn 134 times per epoch; to reduce this, use wider bins, smoothing"
    )
    assert "warning: the bin [12, 15) has 1 row" in str(report)
    several = UniformLabels(bins=8).report(np.append(np.linspace(0, 1, 4000), np.linspace(5, 8, 6)))
    assert "1 more bin is similar" in several.warnings[0] and "rows, each drawn" in several.warnings[0]
    assert "3 of 8 bins have no rows" in several.warnings[1]
    assert UniformLabels(bins=4).report(np.linspace(0, 1, 100)).warnings == ()


def test_max_repeats_gives_a_warning():
    report = BalancedClasses(max_repeats=2).report(RARE)
    assert report.target.tolist() == [50, 50] and report.expected.tolist() == report.reached.tolist() == [20, 80]
    assert report.distance["reached to target"] == pytest.approx(0.3)
    assert report.warnings == (
        "max_repeats=2 keeps 1 of 2 classes below their share: sick gets 20 of 50; the other classes get the rest",
    )
    assert BalancedClasses(max_repeats=9).report(RARE).warnings == ()


def test_weights():
    report = BalancedClasses(by="weights", cap=3).report(RARE)
    assert report.by == "weights" and report.reached.tolist() == pytest.approx([30, 70])
    assert report.draws == 100 and report.largest_repeat == 1 and report.never_drawn == 0
    assert report.largest_weight == pytest.approx(3) and report.deviation == {}
    assert report.warnings[0].startswith("cap=3 keeps 1 of 2 classes below their share")
    heavy = BalancedClasses(by="weights", cap=40).report(np.append(RARE, ["odd"]))
    assert heavy.warnings[0].startswith(
        "the class odd has 1 row, with a weight of 33.7; to reduce this, use a lower strength or cap"
    )


def test_groups_that_cross_the_strata_have_their_deviation_reported():
    groups = np.arange(100) % 7
    report = BalancedClasses(group="patient").report(RARE, groups=groups)
    assert 0 < report.deviation["group"] < 2
    assert "group" not in BalancedClasses().report(RARE).deviation


@pytest.mark.parametrize(
    "sampler", [Natural(), BalancedClasses(), BalancedClasses(by="weights"), UniformLabels(bins=5), UniformLabels()]
)
def test_a_report_is_plain_data(sampler):
    labels = SKEWED if isinstance(sampler, UniformLabels) else RARE
    report_data = sampler.report(labels, batch_size=8).as_dict()
    assert json.loads(json.dumps(report_data, allow_nan=False)) == json.loads(json.dumps(report_data))
    assert report_data["raw"] == np.bincount(sampler.strata(labels).numbers).tolist()
    assert isinstance(report_data["warnings"], list) and isinstance(report_data["never_drawn"], int)


def test_natural():
    report = Natural().report(RARE)
    assert report.reached.tolist() == [100] and report.effective_rows == 100 and report.largest_repeat == 1
