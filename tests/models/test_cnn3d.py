"""Convolutions over space and time."""

import dataclasses

import keras
import numpy as np
import pytest
from model_specs import TASKS, clips_of, padding_changes_nothing, predict, trained

from cinefeed.core.errors import SettingError
from cinefeed.models import cnn3d

SPEC = dataclasses.replace(TASKS["binary"], clip_shape=(8, 16, 24, 1))


def size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_r2plus1d_18_has_the_parameters_of_the_paper():
    spec = dataclasses.replace(
        TASKS["multiclass"], clip_shape=(8, 16, 16, 3), classes=tuple(f"{number:03}" for number in range(400))
    )
    model = cnn3d(spec, size="r2plus1d_18", dense=0)
    assert size(model.trainable_weights) == 31_505_325  # torchvision's r2plus1d_18, 400 classes of Kinetics
    assert model.output_shape == (None, 400)
    kernels = [tuple(each.kernel_size) for each in model.layers if isinstance(each, keras.layers.Conv3D)]
    assert (kernels.count((1, 3, 3)), kernels.count((3, 1, 1)), kernels.count((1, 1, 1))) == (16, 17, 3)


def torchvision_names(filters=(64, 128, 256, 512)):
    """Return the shapes of the tensors of torchvision's r2plus1d_18, without its classes, by name."""
    shapes = {}

    def add(convolution, norm, outputs, inputs, *size):
        shapes[f"{convolution}.weight"] = (outputs, inputs, *size)
        for end in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{end}"] = (outputs,)

    add("stem.0", "stem.1", 45, 3, 1, 7, 7)
    add("stem.3", "stem.4", 64, 45, 3, 1, 1)
    inputs = 64
    for stage, outputs in enumerate(filters, start=1):
        for block in (0, 1):
            between = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
            for number, source in ((1, inputs), (2, outputs)):
                start = f"layer{stage}.{block}.conv{number}"
                add(f"{start}.0.0", f"{start}.0.1", between, source, 1, 3, 3)
                add(f"{start}.0.3", f"{start}.1", outputs, between, 3, 1, 1)
            if stage > 1 and block == 0:
                add(f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1", outputs, inputs, 1, 1, 1)
            inputs = outputs
    return shapes


def test_weights_of_torchvision_are_loaded_and_checked(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.rand(shape) * 0.1 for name, shape in torchvision_names().items()}
    torch.save(state | {"fc.weight": torch.zeros(400, 512)}, tmp_path / "a.pth")
    spec = dataclasses.replace(SPEC, clip_shape=(8, 16, 24, 3))
    model = cnn3d(spec, size="r2plus1d_18", weights=str(tmp_path / "a.pth"))
    kernels = [each.kernel for each in model.layers if isinstance(each, keras.layers.Conv3D)]
    sums = sorted(float(keras.ops.convert_to_numpy(each).sum()) for each in kernels)
    expected = sorted(float(each.sum()) for name, each in state.items() if each.ndim == 5)
    np.testing.assert_allclose(sums, expected, rtol=1e-4)
    grey = cnn3d(SPEC, size="r2plus1d_18", weights=str(tmp_path / "a.pth"))
    first = next(each.kernel for each in grey.layers if isinstance(each, keras.layers.Conv3D))
    kernel = state["stem.0.weight"].sum(dim=1, keepdim=True).permute(2, 3, 4, 1, 0).numpy()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(first), kernel, rtol=1e-5)
    torch.save({name: each for name, each in state.items() if "layer3" not in name}, tmp_path / "b.pth")
    with pytest.raises(SettingError, match=r"lacks 45 tensors of torchvision's r2plus1d_18"):
        cnn3d(spec, size="r2plus1d_18", weights=str(tmp_path / "b.pth"))
    with pytest.raises(SettingError, match="leave them out, or choose that size"):
        cnn3d(spec, weights=str(tmp_path / "a.pth"))
    floats = dataclasses.replace(spec, dtype=np.dtype("float32"))
    with pytest.raises(SettingError, match="found float32"):
        cnn3d(floats, size="r2plus1d_18", weights=str(tmp_path / "a.pth"))


def test_the_small_one_is_small():
    model = cnn3d(SPEC)
    assert model.count_params() < 100_000
    last = [each for each in model.layers if isinstance(each, keras.layers.Conv3D)][-1]
    assert last.output.shape == (None, 2, 1, 2, 64)
    ordered = cnn3d(SPEC, pooling="ordered")
    assert ordered.count_params() == model.count_params() + 64 * 64, "the features of two time steps, not their mean"


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_trained_one_saves_and_loads_in_safe_mode(task, tmp_path):
    spec = dataclasses.replace(TASKS[task], clip_shape=SPEC.clip_shape)
    model = trained(cnn3d(spec, dropout=0.2), spec)
    scores = predict(model, clips_of(SPEC, seed=1))
    assert scores.shape == (4, 3 if task == "multiclass" else 1) and np.ptp(scores) > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(predict(again, clips_of(SPEC, seed=1)), scores)


def test_padding_changes_nothing_and_saves(tmp_path):
    spec = dataclasses.replace(SPEC, padded=True)
    for pooling in ("mean", "ordered"):
        padding_changes_nothing(lambda pooling=pooling: cnn3d(spec, pooling=pooling), spec)
    model = cnn3d(spec)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    inputs = {"clips": clips_of(spec), "valid": np.arange(8) < np.array([[8], [5], [1], [0]])}
    assert np.array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_all_frames_valid_is_the_same_as_no_mask():
    model, masked = cnn3d(SPEC), cnn3d(dataclasses.replace(SPEC, padded=True))
    clips = clips_of(SPEC)
    for each, inputs in ((model, {"clips": clips}), (masked, {"clips": clips, "valid": np.ones((4, 8), np.bool_)})):
        each.compile(optimizer="sgd", loss="binary_crossentropy")
        each.train_on_batch(inputs, np.array([0, 1, 1, 0]))  # batch norm's statistics are of valid frames
    assert predict(masked, clips, valid=np.ones((4, 8), np.bool_)) == pytest.approx(predict(model, clips), abs=1e-5)


def test_the_order_of_frames_counts():
    model, clips = cnn3d(SPEC), clips_of(SPEC, seed=3)
    assert np.abs(predict(model, clips) - predict(model, clips[:, ::-1].copy())).max() > 1e-3


@pytest.mark.slow
def test_r2plus1d_18_trains_heeds_padding_and_sees_time():
    spec = dataclasses.replace(SPEC, padded=True)
    padding_changes_nothing(lambda: cnn3d(spec, size="r2plus1d_18"), spec)
    model, clips = cnn3d(SPEC, size="r2plus1d_18"), clips_of(SPEC, seed=3)
    assert np.abs(predict(model, clips) - predict(model, clips[:, ::-1].copy())).max() > 1e-4


def test_the_seed_fixes_the_first_weights():
    first, again, other = (cnn3d(SPEC, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {"clip_shape": (3, 16, 16, 1)},
            {},
            r"3 frames of 16 x 16.*4 over time and 16 over height.*4 frames of 16 x 16",
        ),
        ({"clip_shape": (7, 64, 64, 1)}, {"size": "r2plus1d_18"}, "7 frames .* 8 over time"),
        ({"clip_shape": (8, 15, 64, 1)}, {}, "15 x 64"),
        ({"task": "clip"}, {}, "use the autoencoder"),
        ({}, {"size": "r2plus1d18"}, "did you mean 'r2plus1d_18'"),
        ({}, {"dense": -1}, "dense=-1"),
        ({}, {"pooling": "order"}, "pooling='order'.* did you mean 'ordered'"),
    ],
)
def test_what_cannot_fit_is_refused(change, options, message):
    with pytest.raises(SettingError, match=message):
        cnn3d(dataclasses.replace(SPEC, **change), **options)
