import re

import numpy as np
import pytest
from made_runs import made_predictions, write_assessed_run, write_run

from cinefeed.errors import SettingError
from cinefeed.metrics.assess import assess
from cinefeed.report import run_page
from cinefeed.report.data import Labels, PageData, Pictures
from cinefeed.report.folder import run_data
from cinefeed.report.methods import keep_methods, methods_of

TRIPOD = (
    "1 2 3a-c 4 5a 5b 6a 6b 6c 7 8a-c 9a-c 10 11 12a 12b 12c 12d 12e 12f-g 13 14 15 16 17 18a-d 18e 18f 19 20a".split()
)
TRIPOD += "20b-c 21 22 23a 23b 24 25 26 27a-c".split()


def items(folder):
    return {each.name: each.text for _, found in methods_of(run_data(folder)).sections for each in found}


def test_every_item_is_there_once(tmp_path):
    methods = methods_of(run_data(write_run(tmp_path / "run", task="regression")))
    numbers = [each.number for _, found in methods.sections for each in found if each.number != "CLAIM"]
    assert sorted(numbers) == sorted(TRIPOD)
    assert all(each.text for _, found in methods.sections for each in found)


def test_what_the_run_knows_is_filled_in(tmp_path):
    found = items(write_assessed_run(tmp_path / "run", tasks={"sick": "binary"}, balanced=True))
    assert "disjoint by patient <1>" in found["Use of the data"] and "15 % validation" in found["Use of the data"]
    assert "Rotate (degrees 25)" in found["Handling of predictors"]
    assert "124,321 parameters" in found["Model and training"]
    assert "epoch 17 of 20" in found["Choice of the final model"]
    assert "50 bootstrap samples of patients" in found["Measures of performance"]
    assert "sex, centre" in found["Fairness"]
    assert re.search(r"AUROC 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)", found["Performance"])
    assert "train: 50 patient <1>s, 50 studies, 100 videos" in found["Sample size"]
    assert "videos found: 812" in found["Flow of participants"]
    assert "threshold 0." in found["Output of the model"]
    assert "Occlusion" in found["Explanation of single predictions"]
    assert found["Dates"].startswith("author:") and found["Ethics"].startswith("author:")


def told(toml, **known):
    page = PageData(title="t", kind="k", settings=toml, **known)
    return {each.name: each.text for _, found in methods_of(page).sections for each in found}


def test_class_weights_are_balancing():
    found = told('[sampler]\nname = "Natural"\n[train]\nclass_weights = "balanced"')["Class imbalance"]
    assert "Nothing was balanced" not in found and "the rarer its class" in found
    assert "Nothing was balanced" in told('[sampler]\nname = "Natural"')["Class imbalance"]


def test_folds_are_no_three_parts():
    settings = '[data.split]\ngroup = "p"\nseed = 7\nval = 0.2\ntest = 0.3\n[train]\nmonitor = '
    found = told(settings + '"val_loss"', folds={"folds": 5})
    assert "5 folds drawn by seed 7" in found["Use of the data"] and "20 % are validation" in found["Use of the data"]
    assert "30 %" not in found["Use of the data"] and "Validation chooses the epoch;" in found["Use of the data"]
    assert "its own validation part chose" in found["Choice of the final model"]
    found = told(settings + '"loss"', folds={"folds": 5})
    assert "Validation chooses nothing" in found["Use of the data"]
    assert "the epoch of the least training loss" in found["Choice of the final model"]


def test_what_the_training_loss_chose():
    run = {"best_epoch": 9, "epochs": 9, "monitor": "loss", "stopped": "all 9 epochs are done"}
    found = told('[train]\nmonitor = "loss"', classes=("no", "yes"), task="binary", run=run)
    assert "Validation chooses the threshold;" in found["Use of the data"]
    assert "the least training loss" in found["Choice of the final model"]


def test_clips_of_the_whole_video_have_no_stride():
    found = told('[clip]\nframes = 8\nstride = 1\nposition = "spread"')["Preparation of the data"]
    assert "Clips of 8 frames, spread evenly over the whole video" in found and "stride" not in found


@pytest.mark.parametrize("measured", [True, False])
def test_every_target_is_told(measured):
    known = {"target": "ef", "others": {"sick": Labels(raw=np.zeros(1), fed=np.zeros(1), classes=("no", "yes"))}}
    if measured:
        predictions = made_predictions({"ef": "regression", "sick": "binary"}, parts=("val", "test"))
        known = {"target": "ef", "assessment": assess(predictions, resamples=2), "scored": predictions}
    found = told('[data]\ntarget = ["ef", "sick"]', **known)
    assert found["Output of the model"].startswith("A number in the unit of ef. The probability of yes of sick")
    assert ("threshold 0." in found["Output of the model"]) == measured
    assert "sick, one of two classes, in the order no, yes (positive: yes)" in found["Outcome and reference standard"]
    assert "the epoch and the threshold" in found["Use of the data"]
    assert "No row without any label" in found["Missing data"] and "may lack some" in found["Missing data"]


def test_files_that_failed_are_told_where_labels_may_be_missing():
    failures = [{"id": "a", "path": "a", "error": "b"}]
    found = told('[data]\ntarget = "ef"\nmissing = "drop"', failures=failures, flow=[("found", 3)])["Missing data"]
    assert found == "Rows without a label are left out, and counted below. 1 file failed, listed in the report."


def test_pictures_are_counted():
    few = Pictures(clips=np.zeros((3, 1, 1, 1, 1), np.uint8))
    found = told("", worst=few, saliency=few)
    assert "the 3 worst test videos" in found["Failures"]
    assert "on 3 test videos" in found["Explanation of single predictions"]


def test_an_author_may_write_in_another_encoding(tmp_path):
    path, words = tmp_path / "methods.md", "Müller".encode("latin-1")
    path.write_bytes(words)
    keep_methods(methods_of(PageData(title="t", kind="k")), path)
    assert path.read_bytes() == words


@pytest.mark.parametrize("lacks", ["settings.toml", "everything"])
def test_a_run_that_lacks_files_still_has_methods(tmp_path, lacks):
    folder = write_run(tmp_path / "run", task="regression")
    for path in folder.iterdir():
        if lacks == "everything" and path.name != "settings.toml":
            path.unlink()
    found = items(folder)
    assert found["Measures of performance"] and found["Performance"] == "In the report."


def test_an_author_s_words_are_never_written_over(tmp_path):
    folder = write_assessed_run(tmp_path / "run", tasks={"ef": "regression"})
    run_page(folder)
    path = folder / "methods.md"
    first = path.read_text()
    assert first.startswith("# Methods and results of run") and "- **Sample size** (10). train: 50 patient" in first
    (folder / "flow.json").write_text('[["videos found", 4711]]')
    keep_methods(methods_of(run_data(folder)), path)  # nobody changed it: it follows the run
    assert path.read_text() != first and "4,711" in path.read_text()
    path.write_text(path.read_text().replace("author: first and last examination.", "2011 to 2019."))
    kept = path.read_text()
    (folder / "flow.json").write_text('[["videos found", 42]]')
    keep_methods(methods_of(run_data(folder)), path)
    assert path.read_text() == kept


def test_a_file_that_is_not_ours_stays(tmp_path):
    (tmp_path / "methods.md").write_text("mine")
    keep_methods(methods_of(run_data(write_run(tmp_path / "run", task="binary"))), tmp_path / "methods.md")
    assert (tmp_path / "methods.md").read_text() == "mine"


def test_no_place_for_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        keep_methods(methods_of(run_data(write_run(tmp_path / "run", task="binary"))), tmp_path / "file" / "methods.md")
