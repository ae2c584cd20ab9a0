import json
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from cinefeed.data.sampling import BalancedClasses, Natural, UniformLabels
from cinefeed.reports.balance import balance_figure, balance_table, chance_figure

RARE = np.array(["well"] * 90 + ["sick"] * 10)
SKEWED = np.random.default_rng(0).beta(5, 2, 400) * 70 + 10
CASES = [
    (BalancedClasses(), RARE),
    (BalancedClasses(by="weights", cap=3), RARE),
    (BalancedClasses(), [f"class {k}" for k in range(60)] * 2 + ["class 0"] * 50),
    (UniformLabels(bins=20), SKEWED),
    (UniformLabels(bins=20, by="weights"), SKEWED),
    (UniformLabels(bins=[0, 12, 40, 100], strength=0.5), SKEWED),
    (UniformLabels(), [1, 1, 4, 900]),
    (UniformLabels(), [2.5] * 4),
    (Natural(), RARE),
]


def plain_report(sampler, labels):
    """Return a report as it comes back from a run folder."""
    return json.loads(json.dumps(sampler.report(labels).as_dict()))


@pytest.mark.parametrize(("sampler", "labels"), CASES, ids=lambda each: str(each)[:30])
def test_any_report_has_a_figure_and_facts(sampler, labels):
    balance = plain_report(sampler, labels)
    svg = balance_figure(balance, name="ejection fraction")
    assert svg.startswith("<svg") and "target" in svg and "ejection fraction" in svg
    assert ("draws of a video" in svg) == (sampler.by == "draws")
    assert balance_figure(balance, name="ejection fraction") == svg
    assert all(name and value for name, value in balance_table(balance))


def test_the_figure_shows_the_classes_and_the_scale_of_repeats():
    svg = balance_figure(plain_report(BalancedClasses(), RARE), name="finding")
    assert {"sick", "well", "finding"} <= set(re.findall(r">([^<>]+)</text>", svg))
    many = balance_figure(plain_report(UniformLabels(bins=20), np.append(SKEWED, 1.0)))
    assert ">20<" in many and ">0<" in many  # by logarithm, where one video is drawn twenty times


def test_facts_of_numbers_and_weights():
    metadata = dict(balance_table(plain_report(UniformLabels(bins=20), SKEWED)))
    assert "Kolmogorov-Smirnov to uniform labels, raw and reached" in metadata
    weights = dict(balance_table(plain_report(BalancedClasses(by="weights"), RARE)))
    assert weights["largest weight"] == "5" and "videos without a draw in this epoch" not in weights
    report = BalancedClasses(group="patient").report(RARE, groups=np.arange(100) % 9)
    assert any("group" in name for name, _ in balance_table(report.as_dict()))


def test_ways_to_draw_over_the_epochs():
    svg = chance_figure({"systematic": np.full(5, 0.01), "by chance": np.linspace(0.01, 0.05, 5)}, expected=0.01)
    assert "systematic: 0.0100" in svg and "by chance: 0.0300" in svg
