"""The model card that `export` writes: facts of a run alone, read by Hugging Face's own library."""

import json

import pytest
from made_runs import made_baselines, write_run

from cinefeed.reports import write_card
from cinefeed.reports.card import CARD, model_card
from cinefeed.reports.data import PageData

SPEC = {"clip_shape": [16, 64, 48, 1], "dtype": "uint8", "views": [], "padded": True, "covariates": [{"name": "sex"}]}


def card_of(run, suffix="onnx"):
    path = run / f"model.{suffix}"
    path.touch()
    return write_card(run, model=path, verification="On 8 clips its scores differ by at most 1e-06.")


def test_every_result_of_the_test_part_is_in_the_head(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    run = write_run(tmp_path / "run", tasks={"ef": "regression", "sick": "binary"})
    card = hub.ModelCard(card_of(run, "keras").read_text())
    assert (card.data.library_name, card.data.pipeline_tag) == ("keras", None)
    assert card.data.license is None and "mae" in card.data.metrics
    assessment = json.loads((run / "assessment.json").read_text())["parts"]["test"]
    values = {(each.task_name, each.metric_name.partition(" (")[0]): each for each in card.data.eval_results}
    mae = values["ef from video", "MAE"]
    assert (mae.metric_type, mae.dataset_split, mae.task_type) == ("mae", "test", "video-regression")
    assert mae.metric_value == assessment["ef"]["metrics"]["mae"]["value"]
    assert values["sick from video", "AUROC"].metric_value == assessment["sick"]["metrics"]["auroc"]["value"]
    assert f"({assessment['ef']['metrics']['mae']['low']:.3g}"[:4] in mae.metric_name


def test_facts_are_there_and_everything_else_is_left_to_the_user(tmp_path):
    run = write_run(tmp_path / "run", tasks={"sick": "binary"}, balanced=True)
    (run / "spec.json").write_text(json.dumps(json.loads((run / "spec.json").read_text()) | SPEC))
    (run / "baselines.json").write_text(json.dumps(made_baselines("sick")))
    text = card_of(run).read_text()
    assert "`clips` (batch x 16 x 64 x 48 x 1" in text and "`sex`; `valid`" in text and "124,321" in text
    assert "| train | 50 | 50 | 100 |" in text and "disjoint by patient" in text
    assert "The model is " in text and "Rotate (degrees 25)" in text and "cinefeed 0.1.0" in text
    assert "author:" not in text and text.count("**To fill in:**") == 4
    assert "No evaluation" not in text and "On 8 clips its scores differ" in text


def test_an_edited_card_and_the_readme_of_somebody_stay(tmp_path):
    run = write_run(tmp_path / "run", tasks={"ef": "regression"})
    path = card_of(run)
    assert path == run / CARD and card_of(run) == path
    edited = path.read_text().replace("**To fill in:** intended users", "For cardiologists")
    path.write_text(edited)
    assert card_of(run) is None and path.read_text() == edited


def test_no_folder_of_this_machine_and_no_name_of_private_data(tmp_path):
    settings = (
        '[data]\nmanifest = "/home/me/ward7.parquet"\n[model]\nname = "cnn3d"\nweights = "/home/me/r3d.safetensors"\n'
    )
    settings += '[train]\nout = "/home/me/runs/a"\n'
    page = PageData(title="a", kind="Training run", data="ward7", private=True, settings=settings, target="ef")
    text = model_card(page, spec=SPEC, model="model.onnx")
    assert "/home" not in text and "ward7" not in text and "private data" in text
    assert "Those of r3d.safetensors; the rest random" in text and "No evaluation is recorded" in text
    assert "ward7" in model_card(PageData(title="a", kind="k", data="ward7"), spec={}, model="model.onnx")


def test_names_cannot_break_the_head_or_the_text(tmp_path):
    yaml = pytest.importorskip("yaml")
    name = 'a": [x]\n---\n<b>\x07#'
    metrics = {"mae": {"value": 1.5, "low": 1.0, "high": 2.0}, "r2": {"value": None, "reason": "one sample"}}
    result = {"task": "regression", "classes": [], "units": 3, "metrics": metrics}
    assessment = {"unit": name, "level": 0.95, "resamples": 10, "parts": {"test": {name: result}}}
    page = PageData(title=name, kind="k", data=name, target=name, assessment=assessment)
    text = model_card(page, spec=SPEC, model="model.onnx")
    head = yaml.safe_load(text.split("\n---\n")[0])
    assert [each["type"] for each in head["model-index"][0]["results"][0]["metrics"]] == ["mae"]
    assert (
        text.count("\n---\n") == 1 and "<b>" not in text.partition("\n---\n")[2] and "not defined, one sample" in text
    )
