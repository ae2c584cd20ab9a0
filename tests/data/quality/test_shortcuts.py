from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.data.quality.findings import CheckReport, Shortcut
from cinefeed.data.quality.frame_summaries import PRINT, FrameSummaries, summarize_frames
from cinefeed.data.quality.shortcuts import shortcut_findings


def summaries_of(rows, **overrides):
    """What a look at videos would have found, if it was the same in all of them but for `measured`."""
    same = {name: np.full(rows, 1.0) for name in ("brightness", "contrast", "seconds")}
    return FrameSummaries(prints=np.zeros((rows, PRINT), np.int8), sizes=np.zeros(rows, np.int64), **(same | overrides))


def shortcuts_of(label, *, summaries=None, group=None, nuisance=("site",), **columns):
    rows = len(label)
    table = pa.table({"path": [f"{i}.mp4" for i in range(rows)], "label": label, **columns})
    return shortcut_findings(
        Manifest.from_table(table), summaries or summaries_of(rows), target="label", group=group, nuisance=nuisance
    )


def test_a_site_that_tells_the_label_is_an_error():
    rng = np.random.default_rng(0)
    site = rng.integers(0, 4, 200)
    label = np.where(rng.random(200) < 0.9, site < 2, rng.random(200) < 0.5)
    findings, (shortcut,), _ = shortcuts_of(np.where(label, "ill", "well"), site=[f"s{each}" for each in site])
    assert [(each.severity, each.code) for each in findings] == [("error", "label_predicted_by_file")]
    assert shortcut.name == "site"
    assert shortcut.score > 0.9
    assert shortcut.predicts_label


def test_chance_is_not_taken_for_a_shortcut():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        findings, _, _ = shortcuts_of(rng.choice(["a", "b", "c"], 120), site=rng.choice(list("uvwxyz"), 120))
        alarms += bool(findings)
    assert alarms <= 3  # 2 % are expected


def test_rows_of_one_group_are_one_piece_of_evidence():
    label = ["a"] * 30 + ["b"] * 30
    site = ["u"] * 30 + ["v"] * 30
    assert shortcuts_of(label, site=site)[0]
    few = [f"g{i // 5}" for i in range(60)]
    findings, (shortcut,), _ = shortcuts_of(label, site=site, owner=few, group="owner")
    many = shortcuts_of(label, site=site)[1][0]
    assert shortcut.limit > many.limit
    findings, shortcuts, left_out = shortcuts_of(
        label, site=site, owner=[f"g{i // 10}" for i in range(60)], group="owner"
    )
    assert (findings, shortcuts) == ([], [])
    assert "fewer than 5 groups" in left_out


def test_tiny_sets_do_not_alarm():
    findings, shortcuts, left_out = shortcuts_of(["a", "a", "b", "b"], site=["u", "u", "v", "v"])
    assert (findings, shortcuts) == ([], [])
    assert left_out
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        alarms += bool(shortcuts_of(rng.choice(["a", "b"], 14), site=rng.choice(["u", "v"], 14))[0])
    assert alarms <= 3


def test_one_class_among_many_is_found():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 8, 400)
    site = np.where(label == 3, "odd", rng.choice(["u", "v", "w"], 400))
    _, (shortcut,), _ = shortcuts_of([f"c{each}" for each in label], site=site)
    assert shortcut.about == "c3"
    assert shortcut.score > 0.95


def test_a_number_is_told_by_r2():
    rng = np.random.default_rng(3)
    bright = rng.uniform(20, 200, 300)
    age = 20 + bright / 4 + rng.normal(0, 4, 300)
    findings, shortcuts, _ = shortcuts_of(age, summaries=summaries_of(300, brightness=bright), nuisance=())
    assert [(each.severity, each.code) for each in findings] == [("warning", "label_predicted_by_frames")]
    assert (shortcuts[0].name, shortcuts[0].measure) == ("brightness", "R2")
    assert shortcuts[0].score > 0.6
    findings, shortcuts, _ = shortcuts_of(
        rng.permutation(age), summaries=summaries_of(300, brightness=bright), nuisance=()
    )
    assert findings == []
    assert not shortcuts[0].predicts_label


def test_a_value_that_is_missing_for_one_class_tells_it():
    label = np.array(["a", "b"] * 60)
    number = np.where(label == "a", np.nan, 7.0)
    text = pa.array([None if each == "a" else "known" for each in label])
    for site in (number, text):
        _, (shortcut,), _ = shortcuts_of(label, site=site)
        assert shortcut.predicts_label


def test_the_target_is_no_nuisance_of_itself():
    findings, shortcuts, _ = shortcuts_of(["a", "b"] * 30, nuisance=("label",))
    assert (findings, shortcuts) == ([], [])


@pytest.fixture(scope="module")
def pocus(data):
    labels = data / "pocus" / "labels.csv"
    manifest = Manifest.scan(data / "pocus", labels=labels, verify="packets", progress=False)
    return manifest, summarize_frames(manifest, clip=None, workers=2, progress=lambda done, total: None)


def pocus_shortcuts(pocus, labels, *, group="patient_group"):
    manifest, summaries = pocus
    table = manifest.table.set_column(manifest.table.schema.names.index("label"), "label", pa.array(labels))
    shuffled = Manifest(table, root=manifest.root)
    return shortcut_findings(shuffled, summaries, target="label", group=group, nuisance=())


def test_the_strongest_column_is_named_if_none_predicts_the_label():
    best = Shortcut(
        name="codec", about="ill", measure="balanced accuracy", score=0.65, chance=0.5, limit=0.66, p_value=0.03
    )
    rest = replace(best, name="rate_hz", score=0.5)
    report = CheckReport(findings=(), rows=4, files=4, rows_read=4, target="kind", shortcuts=(best, rest))
    assert (
        "None of 2 tested columns (codec, rate_hz) predicts kind above its mark; the strongest: codec, balanced "
        "accuracy 0.65, mark 0.66. Columns of the table are tested with --nuisance NAME."
    ) in str(report)
    assert "strongest" not in str(replace(report, shortcuts=(replace(best, score=0.7), rest)))


def test_in_pocus_the_container_gives_the_label_away(pocus):
    findings, shortcuts, _ = pocus_shortcuts(pocus, pocus[0].column("label").to_pylist())
    by_name = {each.name: each for each in shortcuts}
    assert by_name["container"].predicts_label
    assert by_name["container"].about == "pneumonia"
    assert by_name["container"].score == pytest.approx(0.685, abs=0.01)
    assert "container" in findings[0].detail
    assert findings[0].severity == "error"


def test_in_pocus_with_labels_shuffled_nothing_gives_them_away(pocus):
    manifest, _ = pocus
    groups, labels = manifest.column("patient_group").to_pylist(), manifest.column("label").to_pylist()
    first = dict(zip(reversed(groups), reversed(labels), strict=True))
    names = sorted(first)
    told_by_container = errors = 0
    for seed in range(50):
        order = np.random.default_rng(seed).permutation(len(names))
        dealt = {name: first[names[place]] for name, place in zip(names, order, strict=True)}
        findings, shortcuts, _ = pocus_shortcuts(pocus, [dealt[group] for group in groups])
        told_by_container += {each.name: each for each in shortcuts}["container"].predicts_label
        errors += any(each.severity == "error" for each in findings)
    assert told_by_container <= 3  # 2 % are expected
    assert errors <= 2


def test_lips_has_no_shortcut(data):
    manifest = Manifest.scan(
        data / "lips", labels=data / "lips" / "labels.csv", verify="packets", progress=False
    ).where("word", ["ان", "الامم", "الدوله", "التركي"])
    report = check_manifest(manifest, target="word", progress=False)
    assert not [each for each in report.shortcuts if each.predicts_label]
