import json

import numpy as np
import pytest

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.transforms.base import ClipInfo
from cinefeed.transforms.mixing import CutMix, MixUp

INFO = ClipInfo(3, 20, 30, 1)


def batch(dtype="uint8", size=8):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")  # by which NumPy gets to know the name
    top = {"uint8": 256, "uint16": 65536}.get(dtype, 256)
    return np.random.default_rng(0).integers(0, top, (size, 3, 20, 30, 1)).astype(dtype)


@pytest.mark.parametrize("kind", [MixUp, CutMix])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16", "bfloat16"])
def test_mixing_is_pure_and_plain(kind, dtype):
    clips, mix = batch(dtype), kind(alpha=1.0)
    before = clips.copy()
    parameters = mix.sample(np.random.default_rng(3), INFO, size=8)
    assert json.loads(json.dumps(parameters)) == parameters == mix.sample(np.random.default_rng(3), INFO, size=8)
    assert sorted(parameters["partners"]) == list(range(8)) and all(0.5 <= share <= 1 for share in parameters["shares"])
    mixed = mix.apply(clips, parameters)
    assert np.array_equal(clips, before) and mixed.dtype == clips.dtype and mixed.shape == clips.shape
    assert np.array_equal(mix.apply(clips, parameters), mixed) and not np.array_equal(mixed, clips)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_mixup_blends_by_its_shares(dtype):
    clips, mix = batch(dtype), MixUp(alpha=1.0)
    parameters = mix.sample(np.random.default_rng(1), INFO, size=8)
    shares = np.array(parameters["shares"]).reshape(-1, 1, 1, 1, 1)
    expected = shares * clips + (1 - shares) * clips[parameters["partners"]].astype(np.float64)
    assert np.abs(mix.apply(clips, parameters) - expected).max() <= (0.51 if dtype != "float32" else 1e-3)


def test_cutmix_shares_are_those_of_the_pixels():
    mix, clips = CutMix(alpha=1.0), batch()
    clips[:] = np.arange(8, dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
    for seed in range(20):
        parameters = mix.sample(np.random.default_rng(seed), INFO, size=8)
        mixed = mix.apply(clips, parameters)
        for row, (partner, share) in enumerate(zip(parameters["partners"], parameters["shares"], strict=True)):
            own = (mixed[row] == row).mean(axis=(1, 2, 3))
            assert (own == own[0]).all()  # the same box in all frames
            assert partner == row or abs(own[0] - share) < 1e-9
            assert set(np.unique(mixed[row])) <= {row, partner}


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_soft_targets_of_classes(kind):
    mix = kind()
    parameters = {"partners": [1, 2, 0], "shares": [0.75, 0.5, 1.0], "boxes": [[0, 0, 1, 1]] * 3}
    soft = mix.targets(np.array([0, 2, 2]), parameters, task="multiclass", classes=4)
    assert soft.dtype == np.float32
    assert soft.tolist() == [[0.75, 0, 0.25, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert mix.targets(np.array([0, 1, 1]), parameters, task="binary").tolist() == [0.25, 1.0, 1.0]
    with pytest.raises(LabelError, match="-1 is not one of 4"):
        mix.targets(np.array([0, -1, 2]), parameters, task="multiclass", classes=4)


def test_rules_for_numbers():
    parameters = {"partners": [1, 0], "shares": [0.75, 1.0], "boxes": [[0, 0, 1, 1]] * 2}
    ages = np.array([20.0, 60.0], np.float32)
    assert MixUp().targets(ages, parameters, task="regression").tolist() == [30.0, 60.0]
    assert CutMix(regression="blend").targets(ages, parameters, task="regression").tolist() == [30.0, 60.0]
    for mix in (CutMix(), MixUp(regression="error")):
        with pytest.raises(LabelError, match="regression='blend'"):
            mix.targets(ages, parameters, task="regression")


def test_padding_and_what_belongs_to_a_row():
    clips = batch(size=4)
    parameters = {"partners": [1, 0], "shares": [0.5, 0.75]}
    mixed = MixUp().apply(clips, parameters)
    assert np.array_equal(mixed[2:], clips[2:])
    weights = np.array([1, 3, 0, 0], np.float32)
    assert MixUp().numbers(weights, parameters).tolist() == [2.0, 2.5, 0, 0]
    assert MixUp().numbers(np.array([[0.0, 1.0], [1.0, 0.0]]), parameters).tolist() == [[0.5, 0.5], [0.75, 0.25]]
    valid = np.array([[True, True, False], [True, True, True], [False] * 3])
    assert MixUp().valid(valid, parameters).tolist() == [[True, True, False], [True, True, False], [False] * 3]


def test_a_small_alpha_mixes_little():
    rng = np.random.default_rng(0)
    little, much = (np.mean(MixUp(alpha=alpha).sample(rng, INFO, size=4000)["shares"]) for alpha in (0.1, 4.0))
    assert little > 0.93 and much < 0.65


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixUp(alpha=0), "positive"),
        (lambda: CutMix(alpha=float("inf")), "positive"),
        (lambda: MixUp(regression="blnd"), "did you mean 'blend'"),
        (lambda: CutMix(alpha=True), "must be a number"),
    ],
)
def test_settings_of_mixing(make, message):
    with pytest.raises(SettingError, match=message):
        make()
