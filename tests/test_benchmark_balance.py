"""The balance benchmark: who is in which part, what is done again after a stop, and what the tables count."""

import doctest
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cinefeed.demo import plan_demo


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


@pytest.mark.parametrize("name", ["methods", "tables"])
def test_examples_of_the_benchmark_run(name):
    assert doctest.testmod(import_module(f"benchmarks.balance.{name}")).failed == 0


def test_low_ejection_fractions_become_rare_and_a_uniform_part_has_each_bin_alike():
    from benchmarks.balance import data

    planned = plan_demo(videos=3000, seed=5)
    low = np.array([each.ejection_fraction < data.LOW for each in planned])
    skewed = data.skewed(planned, count=len(planned), seed=5)
    assert set(np.flatnonzero(~low)) < set(skewed)
    assert low[skewed].sum() == pytest.approx(data.KEPT * low.sum(), rel=0.2)
    selection = [planned[number] for number in data.uniform(planned, each_bin=3)]
    fractions = [each.ejection_fraction for each in selection]
    assert np.histogram(fractions, data.EDGES)[0].tolist() == [3] * (len(data.EDGES) - 1)
    assert len({each.patient for each in selection}) == len(selection)
    with pytest.raises(SystemExit, match="plan more"):
        data.uniform(planned, each_bin=1000)


def test_the_parts_of_lips_hold_each_word_and_no_row_twice():
    from benchmarks.balance.data import lips_parts

    words = np.repeat([f"word {number}" for number in range(28)], 20)
    starts = np.random.default_rng(0).random(len(words))
    parts = lips_parts({"word": words, "word_start_s": starts})
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(words)))
    for rows, count in zip(parts, (11, 3, 6), strict=True):
        assert set(Counter(words[rows].tolist()).values()) == {count}


def test_a_stopped_run_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    from benchmarks.balance import __main__ as main
    from benchmarks.balance import experiments
    from benchmarks.balance.data import Data, Part

    part = Part(videos=[np.zeros((2, 8, 8), np.uint8)], labels=np.array([1.0]))
    fake = experiments.Experiment(
        title="",
        make=lambda folder, **settings: Data(train=part, val=part, tests={}),
        training=experiments.EF,
        methods=experiments.EXPERIMENTS["ef"].methods,
    )
    monkeypatch.setitem(experiments.EXPERIMENTS, "ef", fake)
    trained = []
    learn = SimpleNamespace(train=lambda data, **arguments: trained.append(arguments["seed"]) or {"steps": 1})
    monkeypatch.setitem(sys.modules, "benchmarks.balance.learn", learn)  # the true one loads Keras, and takes a minute
    arguments = {"methods": ["natural", "uniform"], "out": tmp_path, "source": tmp_path}
    main.run_missing("ef", seed=3, **arguments)
    main.run_missing("ef", seed=3, **arguments)
    assert trained == [3, 3]
    results = tmp_path / "results.jsonl"
    results.write_text(results.read_text()[:-20])  # killed while the second line was written
    main.run_missing("ef", seed=3, **arguments)
    assert trained == [3, 3, 3]
    finished = [(one["method"], one["seed"]) for one in main.read(results)]
    assert finished == [("natural", 3), ("uniform", 3)]


def test_tables_count_errors_by_how_rare_the_label_is_and_positives_as_thinned(monkeypatch):
    from benchmarks.balance import tables as module
    from benchmarks.balance.tables import calibration_error, tables

    monkeypatch.setattr(module, "RESAMPLES", 5)

    def run(name, method, seed, targets, scores, labels):
        parts = {"val": {}, "test": {"targets": targets, "scores": scores}}
        return {"experiment": name, "method": method, "seed": seed, "train_labels": labels, "parts": parts}

    labels = [62.0] * 98 + [22.0] * 2
    targets = [62.0] * 4 + [22.0] * 4
    good, bad = [60.0] * 4 + [23.0] * 4, [62.0] * 8
    table = tables(
        [run("ef", "natural", 0, targets, bad, labels), run("ef", "uniform", 0, targets, good, labels)],
    )
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in table.splitlines()}
    assert [cell.split(" ")[0] for cell in cells["| natural"][1:]] == ["20.00", "0.00", "40.00"]
    assert cells["| uniform"][0].split(" ")[0] == "-18.50"  # the second table, of differences, comes last

    classes = ["few words"] * 18 + ["many words"] * 2
    table = tables([run("lips_rare", "classes", 0, [0, 1] * 5, [0.5] * 10, classes)])
    corrected = next(line for line in table.splitlines() if "corrected" in line)
    assert corrected.split(" | ")[5].startswith("0.100 ")  # balanced 0.5 is the training part's own share
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.9, 0.9]), np.array([3.0, 1.0])) == pytest.approx(0.65)


def test_the_results_are_lines_that_anyone_reads(tmp_path):
    from benchmarks.balance.__main__ import read

    (tmp_path / "results.jsonl").write_text(json.dumps({"seed": 1}) + "\n{cut", encoding="utf-8")
    assert read(tmp_path / "results.jsonl") == [{"seed": 1}]
    assert read(tmp_path / "absent.jsonl") == []
