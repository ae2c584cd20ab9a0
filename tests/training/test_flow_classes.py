"""A class that training does not have, parts of few groups, short videos, missing covariates: said, or refused."""

import numpy as np
import pytest
from made_run import make_manifest

from cinefeed import Clip, Feed, Frame, Inputs, Manifest
from cinefeed.cli import main
from cinefeed.config import parse
from cinefeed.core.errors import LabelError, SplitError
from cinefeed.training.setup import make_parts

KINDS = ["alpha", "beta"] * 11 + ["alpha", "rare"]
PARTS = ["train"] * 16 + ["val"] * 4 + ["test"] * 4


@pytest.mark.parametrize(("part", "rows"), [("test", [23]), ("val", [16, 17])])
def test_a_class_that_training_lacks_names_class_rows_and_part(tmp_path, part, rows):
    kinds = ["alpha", "beta"] * 12
    for row in rows:
        kinds[row] = "rare"
    path = make_manifest(tmp_path, kind=kinds, split=PARTS)
    data = {"target": "kind", "split": {"column": "split", "group": False}}
    manifest = Manifest.read(path)
    words = rf"class 'rare' of 'kind' .*{len(rows)} rows? of the {part} part \({rows[0]:02}\.npy"
    words += ".*--where kind=alpha,beta, .*--classes alpha,beta,rare"
    with pytest.raises(LabelError, match=words):
        make_parts(manifest, _settings(path, data))
    named = _settings(path, {**data, "classes": ["alpha", "beta", "rare"]})
    assert len(make_parts(manifest, named).train) == 16
    two = _settings(path, {**data, "target": ["kind", "age"]})
    with pytest.raises(LabelError, match="--classes kind=alpha,beta,rare"):
        make_parts(manifest, two)


def _settings(path, data):
    return parse(
        {
            "data": {"manifest": str(path), **data},
            "clip": {"frames": 4},
            "frame": {"height": 8, "width": 8, "channels": 1},
            "train": {"out": str(path.parent / "run")},
        }
    )


def test_split_warns_before(tmp_path, capsys):
    path = make_manifest(tmp_path, kind=KINDS)
    split = ["split", path, "--no-group", "--seed", 3, "--out", tmp_path / "s.parquet"]
    codes = [main([*map(str, split), "--seed", str(seed)]) for seed in range(6)]
    content = capsys.readouterr().err
    assert codes == [0] * 6
    assert "class 'rare' of 'kind' is only in test (1 row)" in content or "is only in val (1 row)" in content
    assert "--stratify kind" in content and "'path'" not in content


def test_one_group_in_training_and_too_few_groups_propose_folds(tmp_path):
    two = Manifest.read(make_manifest(tmp_path, patients=3))
    parts = two.split(val=0.3, test=0.3, group="patient")
    assert "warning: the training part has only 1 value of 'patient'" in str(parts) and "--folds 3" in str(parts)
    two = two.where("patient", ["p0", "p1"])
    with pytest.raises(SplitError, match=r"3 parts need at least 3 groups; there are 2 values of 'patient'.*--folds 2"):
        two.split(val=0.3, test=0.3, group="patient")
    assert "warning" not in str(two.split(val=0.3, test=0.3, group=None))


def test_a_class_of_the_test_alone_is_a_warning_of_the_balance(tmp_path):
    manifest = Manifest.read(make_manifest(tmp_path, kind=KINDS, split=PARTS))
    assert "class 'rare' of 'kind' is only in test (1)" in str(manifest.parts(stratify="kind"))


def test_clips_longer_than_most_videos_and_missing_covariates_are_said_once(tmp_path, caplog):
    frame = Frame(height=8, width=8, channels=1)
    for row in range(6):
        np.save(tmp_path / f"{row}.npy", np.zeros((8 if row else 40, 12, 12), np.uint8))
    labels = {
        "stem": [*range(6)],
        "age": [20.5 + row for row in range(6)],
        "weight_kg": [70.0, None, 80.0, 75.0, 61.0, 72.0],
    }
    manifest = Manifest.scan(tmp_path, labels=labels, progress=False)
    feed = Feed(
        manifest, target="age", clip=Clip(frames=16), frame=frame, inputs=Inputs(covariates=["weight_kg"]), workers=0
    )
    feed.evaluation(manifest).batch(0)
    output = [each.message for each in caplog.records]
    assert len(output) == 2
    assert "longer than 5 of 6 videos: their last frame is repeated" in output[0] and "short='pad'" in output[0]
    assert "'weight_kg' is missing in 1 of 6 rows, which get the mean, 71.6" in output[1]
    caplog.clear()
    Feed(manifest, target="age", clip=Clip(frames=16, short="pad"), frame=frame, workers=0)
    Feed(manifest, target="age", clip=Clip(frames=8), frame=frame, workers=0)
    assert not caplog.records
