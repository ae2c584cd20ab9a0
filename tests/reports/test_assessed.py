import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import made_baselines, made_predictions, write_run
from test_figures import words
from test_page import Page, requests

import cinefeed as cf
from cinefeed.core.text import format_number
from cinefeed.metrics.assess import assess
from cinefeed.reports import results as assessed
from cinefeed.reports import run_page, table_page
from cinefeed.reports.agreement import bland_altman_figure, calibration_figure, error_bins_figure, forest_figure
from cinefeed.reports.data import PageData
from cinefeed.reports.folder import run_data
from cinefeed.reports.page import render
from cinefeed.reports.prediction_figures import confusion_figure, pr_figure, roc_figure

NUMBERS = ("predicted", "bland_altman", "error_bins")
CLASSES = ("confusion", "roc", "precision_recall", "calibration")
OTHERS = {"curves", "labels", "clips", "pixels", "time"}
OTHERS |= {f"subgroups_{column}_{part}" for column in ("sex", "centre") for part in ("val", "test")}


def of(kinds, tail=""):
    return {f"{kind}_{part}{tail}" for kind in kinds for part in ("val", "test")}


def html_pictures(folder):
    return (folder / "report.html").read_text().count("data:image/webp")


@pytest.mark.parametrize(
    ("task", "kinds"),
    [("regression", NUMBERS), ("binary", CLASSES), pytest.param("multiclass", CLASSES, marks=pytest.mark.slow)],
)
def test_an_assessment_is_shown_whole(tmp_path, task, kinds):
    folder = write_run(tmp_path / "run", tasks={"ef": task}, balanced=True)
    page = Page(run_page(folder).read_text())
    assert page.faults == [] and "Left out" not in page.text and "left out:" not in page.text
    assert set(page.downloads) == OTHERS | of(kinds)
    assert html_pictures(folder) == 14 and "This page shows patient images" in page.text
    assert page.sections == (
        "results worst saliency training flow labels clips feed failures settings versions methods".split()
    )
    assessment = json.loads((folder / "assessment.json").read_text())["parts"]
    for part in ("val", "test"):
        for each in assessment[part]["ef"]["metrics"].values():
            low, high = (format_number(each[end]) for end in ("low", "high"))
            interval = "" if each["low"] is None else f" ({low} to {high})"
            assert f"{format_number(each['value'])}{interval}" in page.text
            assert (each["low"] is None) == (each["reason"] is not None)
            assert each["reason"] is None or f"of {part}: {each['reason']}." in page.text
    assert "each patient counts once" in page.text and "50 bootstrap samples" in page.text
    assert "A <&>" in page.text
    per_epoch = "one clip per video, the threshold 0.5" if task == "binary" else "one clip per video"
    assert f"Per epoch: {per_epoch}; in the tables: the mean score of 3 clips" in page.text
    assert ("Positive class: " in page.text) == (task == "binary")
    if task == "binary":
        threshold = assessment["test"]["ef"]["threshold"]
        assert f"The threshold is {threshold:.3g}, the one with the best F1 on the validation part" in page.text
        ece = assessment["test"]["ef"]["corrected"]["calibration"]["ece"]
        threshold = assessment["test"]["ef"]["corrected"]["threshold"]
        assert f"Threshold{format_number(assessment['test']['ef']['threshold'])}{format_number(threshold)}" in page.text
        assert "as scoredcorrected" in page.text and format_number(ece) in page.text


def test_several_targets_have_a_section_each(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression", "sick": "binary"})
    html = run_page(folder).read_text()
    page = Page(html)
    assert requests(html) == [] and page.faults == []
    assert of(NUMBERS, "_ef") | of(CLASSES, "_sick") < set(page.downloads)
    assert html.count('<h3 class="target">') == 2 and "R² of ef on 40 test patients" in page.text
    names = re.findall(r'download="([^"]+\.svg)"', html)
    assert len(names) == len(set(names))


def test_private_data_have_no_pictures(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    assert len(run_data(folder).worst.clips) == 10
    private = write_run(tmp_path / "private", tasks={"ef": "regression"}, private=True)
    for name in ("worst.npz", "saliency.npz", "clips.npz"):  # whatever the folder holds, the page shows none
        (private / name).write_bytes((folder / name).read_bytes())
    html = run_page(private).read_text()
    assert "data:image/webp" not in html and "<image" not in html and "data:image/png" not in html
    assert "patient images" not in html and html.count("No pictures: the data are private") == 2


def test_folds(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"}, folds=3)
    page = Page(run_page(folder).read_text())
    assert page.sections == "results folds failures settings methods".split()
    for word in ("3 folds by patient", "0.640 (0.580 to 0.700)", "fold 3", "not defined"):
        assert word in page.text, word
    (folder / "folds.json").write_text('{"folds": 3, "group": null, "rows": 9}')
    assert "The folds are not finished yet" in run_data(folder).summary


@pytest.mark.parametrize("name", ["assessment.json", "worst.npz", "saliency.npz", "manifest.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    folder = write_run(tmp_path / "run", tasks={"sick": "binary"})
    section = {"assessment.json": "assessment", "manifest.parquet": "counts"}.get(name, name.removesuffix(".npz"))
    (folder / name).write_bytes(b"PAR1\xff{]")
    assert f"{name} cannot be read" in run_data(folder).missing[section]
    (folder / name).unlink()
    assert run_data(folder).missing[section] == f"{name} is not in the run folder"


def test_figures_are_of_the_units_that_were_measured(tmp_path):
    predictions = made_predictions({"sick": "binary"})
    assessment = assess(predictions, unit="patient", resamples=20)
    details = assessed.results(assessment, predictions)["targets"][0]["details"][0]
    confusion = next(each for each in details["figures"] if each.file == "confusion_test.svg")
    counts = [int(each) for each in re.findall(r"(\d+) \d+%", words(str(confusion.svg)))]
    metrics = assessment["parts"]["test"]["sick"]["metrics"]
    assert sum(counts) == 40
    assert counts[3] / (counts[2] + counts[3]) == pytest.approx(metrics["sensitivity"]["value"])
    assert counts[0] / (counts[0] + counts[1]) == pytest.approx(metrics["specificity"]["value"])
    clips = assess(predictions, resamples=20)  # of videos there are twice as many
    details = assessed.results(clips, predictions)["targets"][0]["details"][0]
    confusion = next(each for each in details["figures"] if each.file == "confusion_test.svg")
    assert sum(int(each) for each in re.findall(r"(\d+) \d+%", words(str(confusion.svg)))) == 80


def test_without_predictions_the_rest_is_shown(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (folder / "predictions.parquet").unlink()
    page = Page(run_page(folder).read_text())
    assert "error_bins_test" in page.downloads and "predicted_test" not in page.downloads
    assert "there are no predictions of test" in page.text


def test_a_table_of_any_program(tmp_path):
    rows = ["id,target,score,person"] + [f"v{i},{'ny'[i % 3 == 0]},{(i * 37 % 100) / 100},p{i // 2}" for i in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    path = table_page(tmp_path / "table.csv", unit="id", cluster="person")
    page = Page(path.read_text())
    assert path == tmp_path / "table.html" and page.faults == [] and requests(path.read_text()) == []
    assert page.sections == ["results"]
    assert set(page.downloads) == {f"{kind}_external" for kind in CLASSES}
    assert "which include or leave out each person as a whole" in page.text
    assert "The threshold is 0.5, the default, as there is no validation part" in page.text
    assert "Results of a table of 60 rows of predictions" in page.text


def test_subgroups_that_are_not_known_and_metrics_that_are_not_defined(tmp_path):
    predictions = made_predictions({"sick": "binary"}, parts=("test",))
    assessment = assess(predictions, subgroups=["sex"], resamples=20)
    group = assessment["parts"]["test"]["sick"]["subgroups"]["sex"]
    group[0]["value"] = None
    group[1]["metrics"]["auroc"] = {"value": None, "low": None, "high": None, "reason": "all targets are 'no'"}
    subgroup = assessed.results(assessment, predictions)["targets"][0]["details"][0]["subgroups"][0]
    assert [name for name, _ in subgroup["table"]["rows"]] == ["unknown", "m"]
    assert subgroup["table"]["rows"][1][1][subgroup["table"]["head"].index("AUROC")].value == "not defined"
    assert "unknown (" in words(str(subgroup["figure"].svg))


def test_two_groups_may_have_one_name():
    predictions = made_predictions({"ef": "regression"}, parts=("test",))
    assessment = assess(predictions, subgroups=["centre"], resamples=5)
    group = assessment["parts"]["test"]["ef"]["subgroups"]["centre"]
    group[0]["value"], group[1]["value"] = "unknown", None
    rows = assessed.results(assessment, None)["targets"][0]["details"][0]["subgroups"][0]["table"]["rows"]
    assert [(name, cells[0].value) for name, cells in rows] == [
        (name, str(each["units"])) for name, each in zip(("unknown", "unknown", "C"), group, strict=True)
    ]


def test_what_folds_say_of_threshold_and_interval(tmp_path):
    predictions = made_predictions({"sick": "binary"}, parts=("test",))
    assessment = assess(predictions, thresholds={"sick": 0.4}, resamples=5)
    results = [assessed.results(assessment, None, folds=folds) for folds in (False, True)]
    words = [each["targets"][0]["details"][0]["summary"] for each in results]
    assert "that of the training run" in words[0] and "the mean over the folds" in words[1]
    folds = {"runs": [{"fold": 1, "run": "fold1", "rows": 80, "metrics": {}}], "metrics": {}}
    for cluster, units in ((None, "videos"), ("patient", "patients"), ("study", "studies")):
        page = PageData(title="t", kind="k", assessment=assessment | {"cluster": cluster}, folds=folds)
        text = " ".join(Page(render(page)).text.split())
        assert f"The intervals of the results above resample {units}." in text and "the mean over the folds" in text
        assert "each fold has the threshold of its own validation part, and all together have the mean" in text


def test_patients_studies_and_videos_are_counted(tmp_path):
    run = write_run(tmp_path / "run", tasks={"ef": "regression"})
    counts = run_data(run).counts
    assert counts.names == ["patient <1>s", "studies", "videos"]
    assert counts.parts == [("train", [50, 50, 100]), ("val", [15, 15, 30]), ("test", [15, 15, 30])]
    manifest = cf.Manifest.read(run / "manifest.parquet")
    names = [name if row % 4 < 2 else None for row, name in enumerate(manifest.column("study").to_pylist())]
    table = manifest.table.set_column(manifest.table.schema.names.index("study"), "study", pa.array(names))
    cf.Manifest.from_table(table, root=manifest.root).write(run / "manifest.parquet")
    counts = run_data(run).counts
    assert counts.names == ["patient <1>s", "studies", "videos without a study", "videos"]
    assert counts.parts[0] == ("train", [50, 25, 50, 100])


def test_limits_of_agreement_are_written_and_drawn():
    true = np.linspace(20, 70, 40)
    agreement = {"bias": -1.5, "sd": 2.0, "lower": -5.42, "upper": 2.42}
    text = words(bland_altman_figure(true, scores=true - 1.5, agreement=agreement, name="ef in $"))
    assert "bias -1.5" in text and "-5.42 to 2.42" in text
    assert words(bland_altman_figure([1.0], scores=[2.0], agreement=dict.fromkeys(agreement)))


def test_error_bins_leave_empty_ones_out():
    bins = [{"low": 0, "high": 10, "count": 7, "mae": 3.0, "bias": 1.0},
            {"low": 10, "high": 20, "count": 0, "mae": None, "bias": None}]  # fmt: skip
    text = words(error_bins_figure(bins, name="age"))
    assert "true age" in text and "7" in text.split()


def test_calibrations_are_drawn_side_by_side():
    bins = [{"low": 0, "high": 0.1, "count": 3, "score": 0.05, "share": 0.0}]
    both = {"as scored": {"ece": 0.2, "bins": bins}, "corrected": {"ece": 0.051, "bins": bins}}
    text = words(calibration_figure(both))
    assert "as scored, ECE 0.200" in text and "corrected, ECE 0.051" in text


def test_a_forest_has_a_line_a_group():
    rows = [("f (3)", {"value": 0.8, "low": 0.7, "high": 0.9}), ("m (1)", {"value": 0.5, "low": None, "high": None}),
            ("x", {"value": None})]  # fmt: skip
    text = words(forest_figure(rows, overall=0.7, name="AUROC"))
    assert "f (3)" in text and "m (1)" in text and "all: 0.7" in text and "x" not in text.split()


def test_the_threshold_is_marked_and_parts_the_confusion():
    targets, scores = [0, 0, 1, 1], [0.1, 0.3, 0.35, 0.9]
    options = {"scores": scores, "classes": ["no", "yes"]}
    for draw in (roc_figure, pr_figure):
        assert "at 0.32" in words(draw(targets, **options, marks={"": 0.32}))
        both = words(draw(targets, **options, marks={"best F1": 0.32, "Youden's J": 0.4}))
        assert "best F1: 0.32" in both and "Youden's J: 0.4" in both
        assert "best F1, Youden's J: 0.32" in words(
            draw(targets, **options, marks={"best F1": 0.32, "Youden's J": 0.32})
        )
        assert "at 0" not in words(draw(targets, **options))
    assert words(confusion_figure(targets, **options, threshold=0.32)).count("100%") == 2
    assert words(confusion_figure(targets, **options)).count("100%") == 1


@pytest.mark.slow
def test_a_table_that_names_its_targets(tmp_path):
    pq.write_table(made_predictions({"a": "regression", "b": "multiclass"}).table, tmp_path / "p.parquet")
    page = Page(table_page(tmp_path / "p.parquet", out=tmp_path / "x" / "p.html", unit="patient").read_text())
    assert of(NUMBERS, "_a") | of(CLASSES, "_b") == set(page.downloads)


def test_baselines_stand_in_a_table_with_a_sentence_each(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "binary"})
    (folder / "baselines.json").write_text(json.dumps(made_baselines("ef")))
    page = Page(run_page(folder).read_text())
    assert page.faults == []
    assert "test, 15 patients; took 3 s" in page.text
    assert "Thumbnaillinear SVC, C 0.10.830 (0.730 to 0.930)" in page.text and "-0.030 (-0.090 to 0.040)" in page.text
    assert "Better than guessing by 30 points of AUROC (20 to 40)." in page.text
    assert "No better than the thumbnail: the difference is -3 points of AUROC (-9 to 4)." in page.text
    assert "Nuisance columns: container, rate_hz." in page.text
    (folder / "baselines.json").write_text(json.dumps({"note": "[evaluate] baselines = false", "seconds": 0.0}))
    assert "No baselines: [evaluate] baselines = false." in Page(run_page(folder).read_text()).text
    (folder / "baselines.json").write_text(json.dumps({"note": ""}))
    assert "No baselines" not in Page(run_page(folder).read_text()).text


def test_the_head_of_the_page_calls_a_guess_a_guess_and_names_target_data_and_date(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "binary"})
    (folder / "log.jsonl").write_text('{"event": "epoch", "time": 1.0}\n{"event": "epoch", "time": 1772366400.0}\n')
    (folder / "baselines.json").write_text(json.dumps(made_baselines("ef")))
    html = run_page(folder).read_text()
    assert (
        "<h1><span>ef</span> · <span>demo</span> · <span>2026-03-01</span></h1>" in html
        and "Training run · run" in html
    )
    head = html.partition('<section id="results">')[0]
    assert "<dt>AUROC on 40 test patients, " in head and "No better than" not in head
    assert "<dt>AUROC of the thumbnail alone</dt><dd>0.830</dd>" in head
    assert "no better than the thumbnail (0.830).</p>" in head
    (folder / "baselines.json").write_text(json.dumps(made_baselines("ef", guess=(0.02, -0.1, 0.14))))
    head = run_page(folder).read_text().partition('<section id="results">')[0]
    assert "<dd>No better than guessing</dd>" in head and "<dt>test: AUROC " in head
