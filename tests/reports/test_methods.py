import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_baselines, made_predictions, write_run

from cinefeed.core.errors import SettingError
from cinefeed.metrics.assess import assess
from cinefeed.reports import run_page
from cinefeed.reports.data import Counts, Labels, PageData, Pictures
from cinefeed.reports.folder import run_data
from cinefeed.reports.methods import keep_methods, methods_of
from cinefeed.reports.page import render

NUMBER, CLASS = {"ef": "regression"}, {"ef": "binary"}
TRIPOD = (
    "1 2 3a-c 4 5a 5b 6a 6b 6c 7 8a-c 9a-c 10 11 12a 12b 12c 12d 12e 12f-g 13 14 15 16 17 18a-d 18e 18f 19 20a".split()
)
TRIPOD += "20b-c 21 22 23a 23b 24 25 26 27a-c".split()


def items(folder):
    return {item.name: item.text for _, section in methods_of(run_data(folder)).sections for item in section}


def test_every_item_is_there_once(tmp_path):
    methods = methods_of(run_data(write_run(tmp_path / "run", tasks=NUMBER)))
    listed = [item for _, section in methods.sections for item in section]
    assert sorted(item.number for item in listed if item.number != "CLAIM") == sorted(TRIPOD)
    assert len(listed) == len(TRIPOD) + 6 and all(item.text for item in listed)
    assert len(methods.sections) == 7


def test_items_of_the_run_are_filled_in(tmp_path):
    texts = items(write_run(tmp_path / "run", tasks={"sick": "binary"}, balanced=True))
    assert "disjoint by patient <1>" in texts["Use of the data"] and "15 % validation" in texts["Use of the data"]
    assert "Rotate (degrees 25)" in texts["Handling of predictors"]
    assert "124,321 parameters" in texts["Model and training"]
    assert "epoch 17 of 20" in texts["Choice of the final model"]
    assert "one score per patient, the mean over 3 clips of each video." in texts["Measures of performance"]
    assert "50 bootstrap samples of patients" in texts["Measures of performance"]
    assert "sex, centre" in texts["Fairness"]
    assert re.search(r"AUROC 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)", texts["Performance"])
    assert "train: 50 patient <1>s, 50 studies, 100 videos" in texts["Sample size"]
    assert "videos found: 812" in texts["Flow of participants"]
    assert "threshold 0." in texts["Output of the model"]
    assert "Occlusion" in texts["Explanation of single predictions"]
    assert texts["Dates"].startswith("author:") and texts["Ethics"].startswith("author:")


def items_of(toml, **fields):
    """Return the texts of all items by name, for a page with some settings and fields."""
    page = PageData(title="t", kind="k", settings=toml, **fields)
    return {item.name: item.text for _, section in methods_of(page).sections for item in section}


def test_class_weights_count_as_balancing():
    texts = items_of('[sampler]\nname = "Natural"\n[train]\nclass_weights = "balanced"')["Class imbalance"]
    assert "No balancing" not in texts and "inversely proportional to the frequency" in texts
    assert "No balancing" in items_of('[sampler]\nname = "Natural"')["Class imbalance"]


def test_the_training_is_that_of_the_settings():
    recipe = """[train]
learning_rate = 0.003
warmup_epochs = 2
schedule = "cosine"
weight_decay = 0.05
label_smoothing = 0.1
[feed.mixing]
name = "MixUp"
alpha = 0.2
"""
    text = items_of(recipe)["Model and training"]
    for words in (
        "AdamW, weight decay 0.05, learning rate 0.003, rising over 2 epochs, schedule cosine",
        "label smoothing 0.1; MixUp of the clips of a batch (",
        "alpha 0.2",
    ):
        assert words in text, text
    assert (
        "Adam, learning rate 0.01, schedule plateau" in items_of("[train]\nlearning_rate = 0.01")["Model and training"]
    )


def test_folds_are_not_three_parts():
    settings = '[data.split]\ngroup = "p"\nseed = 7\nval = 0.2\ntest = 0.3\n[train]\nmonitor = '
    texts = items_of(settings + '"val_loss"', folds={"folds": 5})
    use, model = texts["Use of the data"], texts["Choice of the final model"]
    assert "5 folds drawn with seed 7" in use and "20 % are its validation part" in use and "30 %" not in use
    assert "The validation part is used to choose the epoch;" in use
    assert "the epoch chosen on its own validation part" in model
    texts = items_of(settings + '"loss"', folds={"folds": 5})
    assert "Nothing is chosen on the validation part;" in texts["Use of the data"]
    assert "the epoch with the lowest training loss" in texts["Choice of the final model"]


def test_selection_by_the_training_loss():
    run = {"best_epoch": 9, "epochs": 9, "monitor": "loss", "stopped": "all 9 epochs are done"}
    texts = items_of('[train]\nmonitor = "loss"', classes=("no", "yes"), task="binary", run=run)
    assert "used to choose the threshold;" in texts["Use of the data"]
    assert "the lowest training loss" in texts["Choice of the final model"]


def test_clips_of_the_whole_video_have_no_stride():
    texts = items_of('[clip]\nframes = 8\nstride = 1\nposition = "spread"')["Preparation of the data"]
    assert "Clips of 8 frames, evenly spaced over the whole video" in texts and "stride" not in texts


@pytest.mark.parametrize("measured", [True, False])
def test_every_target_is_items_of(measured):
    fields = {"target": "ef", "other_labels": {"sick": Labels(raw=np.zeros(1), fed=np.zeros(1), classes=("no", "yes"))}}
    if measured:
        predictions = made_predictions({"ef": "regression", "sick": "binary"}, parts=("val", "test"))
        fields = {"target": "ef", "assessment": assess(predictions, resamples=2), "predictions": predictions}
    texts = items_of('[data]\ntarget = ["ef", "sick"]', **fields)
    assert texts["Output of the model"].startswith("A number in the unit of ef. The probability of yes of sick")
    assert ("threshold 0." in texts["Output of the model"]) == measured
    assert "sick, one of two classes, in the order no, yes (positive: yes)" in texts["Outcome and reference standard"]
    assert "the epoch and the threshold" in texts["Use of the data"]
    assert (
        "Rows without any label are not accepted" in texts["Missing data"] and "may lack some" in texts["Missing data"]
    )


def test_files_that_failed_are_counted_with_missing_labels():
    failures = [{"id": "a", "path": "a", "error": "b"}]
    toml = '[data]\ntarget = "ef"\nmissing = "drop"'
    texts = items_of(toml, failures=failures, flow=[("rows", 3)])
    assert texts["Who is included"].startswith("All readable rows of the manifest, if they have a label. author:")
    where = items_of(toml + '\nwhere = { site = ["x"] }')["Who is included"]
    assert where.startswith("Rows with site = x, if they have a label. author:")
    text = texts["Missing data"]
    assert text.startswith("Rows without a label are left out and counted below. 1 file could not be read to the end")
    assert "those without a frame that can be read are left out, the others are used" in text


def test_pictures_are_counted():
    few = Pictures(clips=np.zeros((3, 1, 1, 1, 1), np.uint8))
    texts = items_of("", worst=few, saliency=few)
    assert "The report shows the 3 worst test videos" in texts["Failures"]
    assert "on 3 test videos" in texts["Explanation of single predictions"]


def test_a_file_in_another_encoding_stays(tmp_path):
    path, words = tmp_path / "methods.md", "Müller".encode("latin-1")
    path.write_bytes(words)
    keep_methods(methods_of(PageData(title="t", kind="k")), path)
    assert path.read_bytes() == words


def test_settings_alone_are_enough(tmp_path):
    (tmp_path / "settings.toml").write_bytes((write_run(tmp_path / "run", tasks=NUMBER) / "settings.toml").read_bytes())
    texts = items(tmp_path)
    assert texts["Measures of performance"] and texts["Performance"] == "No part was evaluated."


def test_an_edited_file_is_never_overwritten(tmp_path):
    folder = write_run(tmp_path / "run", tasks=NUMBER)
    run_page(folder)
    path = folder / "methods.md"
    first = path.read_text()
    assert first.startswith("# Methods and results of run") and "- **Sample size** (10). train: 50 patient" in first
    (folder / "flow.json").write_text('[["videos found", 4711]]')
    keep_methods(methods_of(run_data(folder)), path)  # unchanged, so it is rewritten
    assert path.read_text() != first and "4,711" in path.read_text()
    path.write_text(path.read_text().replace("author: first and last examination.", "2011 to 2019."))
    edited = path.read_text()
    (folder / "flow.json").write_text('[["videos found", 42]]')
    keep_methods(methods_of(run_data(folder)), path)
    assert path.read_text() == edited


def test_a_foreign_file_stays(tmp_path):
    (tmp_path / "methods.md").write_text("mine")
    keep_methods(methods_of(run_data(write_run(tmp_path / "run", tasks=CLASS))), tmp_path / "methods.md")
    assert (tmp_path / "methods.md").read_text() == "mine"


HOSTILE = "x\n- **Ethics** (17). forged\n## Section <img src=http://x> ![y](http://z) \x1b[2J\u202e"


def test_values_cannot_forge_items_or_markup():
    """Hostile values leave the items as they are, and Markdown without HTML, links and control characters."""
    plain = PageData(title="t", kind="k", settings="")
    names = json.dumps(HOSTILE)
    settings = f"[data]\nmanifest = {names}\ntarget = {names}\nwhere = {{{names} = [{names}]}}\n"
    settings += f"[feed.inputs]\ncovariates = [{names}]\n"
    settings += f"[data.split]\ngroup = {names}\nstratify = {names}\n[model]\nname = {names}\n[frame]\nfit = {names}\n"
    settings += f"[[transforms]]\nname = {names}\ndegrees = {names}\n[sampler]\nname = {names}\nx = {names}\n"
    page = PageData(
        title=HOSTILE,
        kind="k",
        settings=settings,
        target=HOSTILE,
        task="binary",
        classes=("no", HOSTILE),
        flow=[(HOSTILE, 3)],
        counts=Counts(names=[HOSTILE], parts=[(HOSTILE, [1])]),
        labels=Labels(raw=np.array([HOSTILE]), fed=np.array([HOSTILE]), classes=(HOSTILE,)),
        versions={HOSTILE: HOSTILE},
        run={"best_epoch": 1, "epochs": HOSTILE, "stopped": HOSTILE, "monitor": HOSTILE, "fingerprint": HOSTILE},
    )
    methods = methods_of(page)
    heads = [
        [(name, [item[:2] for item in items]) for name, items in each.sections] for each in (methods, methods_of(plain))
    ]
    assert heads[0] == heads[1]
    text = methods.markdown()
    assert text.count("\n- **") == len([item for _, items in methods.sections for item in items])
    assert text.count("forged") > 20 and "<img" not in text and "\x1b" not in text and "![" not in text
    html = " ".join(render(page).split())
    assert "<img src=http" not in html and "forged" in html


def test_an_unreadable_file_is_an_error(tmp_path, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "methods.md").write_text("")
    methods = methods_of(PageData(title="t", kind="k"))
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(SettingError, match=r"methods\.md cannot be read: Permission denied; delete it"):
        keep_methods(methods, tmp_path / "methods.md")


def test_an_impossible_path_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        keep_methods(methods_of(run_data(write_run(tmp_path / "run", tasks=CLASS))), tmp_path / "file" / "methods.md")


def test_baselines_are_described_and_compared(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "binary"})
    (folder / "baselines.json").write_text(json.dumps(made_baselines("ef")))
    text = methods_of(run_data(folder)).markdown()
    assert "nuisance columns (container, rate_hz)" in text and "160 videos; paired differences" in text
    assert "ef: the model is better than guessing by 30 points of AUROC (20 to 40);" in text
    assert "no better than the thumbnail: the difference is -3 points of AUROC (-9 to 4)." in text
    (folder / "baselines.json").write_text(json.dumps({"note": "[evaluate] baselines = false", "seconds": 0}))
    assert "No baselines: \\[evaluate\\] baselines = false." in methods_of(run_data(folder)).markdown()
