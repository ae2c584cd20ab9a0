"""Weights, checkpoints and clips with a flipped bit are an error, never other numbers."""

import io
import json

import keras
import numpy as np
import pytest
from made_run import make_manifest, make_run, settings_for

from cinefeed.core.errors import CinefeedError, TrainingError
from cinefeed.reports.folder import _clips, _settings
from cinefeed.training.checkpoint import _read, _write
from cinefeed.training.evaluate import evaluate
from cinefeed.training.export import export
from cinefeed.training.frame_encoder import encoder_of_run
from cinefeed.training.predict import predict
from cinefeed.training.run import read_run, write_arrays
from cinefeed.training.weights import load_weights, save_weights


def network(value=0.0):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.set_weights([each + np.float32(value) for each in model.get_weights()])
    return model


def flips(raw, *, seed, count):
    """Yield bytes with a bit changed, from the first byte to the last."""
    rng = np.random.default_rng(seed)
    for place in [0, len(raw) - 1, *rng.integers(0, len(raw), count)]:
        changed = bytearray(raw)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def test_any_flipped_bit_in_weights_is_an_error(tmp_path):
    path, model = tmp_path / "a.weights.h5", network(0.5)
    save_weights(model, path)
    raw, other = path.read_bytes(), network()
    load_weights(other, path)
    other.load_weights(path)  # Keras itself takes them too
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    damaged = [*flips(raw, seed=3, count=300), raw[:-1], raw[: len(raw) // 2], b"", raw + b"\0"]
    for changed in damaged:
        path.write_bytes(changed)
        with pytest.raises(TrainingError, match=r"a\.weights\.h5 is damaged"):
            load_weights(other, path)
    model.save_weights(path)
    with pytest.raises(TrainingError, match="digest differs"):
        load_weights(other, path)


def test_every_use_of_a_run_names_damaged_weights(tmp_path):
    settings = settings_for(make_manifest(tmp_path))
    run = make_run(settings).folder
    raw = bytearray((run / "best.weights.h5").read_bytes())
    raw[len(raw) // 2] ^= 4
    (run / "best.weights.h5").write_bytes(raw)
    uses = [
        lambda: evaluate(run),
        lambda: predict(run, paths=[tmp_path / "00.npy"]),
        lambda: export(run, format="keras"),
        lambda: encoder_of_run(run),
    ]
    for use in uses:
        with pytest.raises(TrainingError, match=r"best\.weights\.h5 is damaged"):
            use()


def test_any_flipped_bit_in_a_checkpoint_is_an_error(tmp_path):
    path, rng = tmp_path / "checkpoint.npz", np.random.default_rng(0)
    arrays = {f"model {n}": rng.random((5, 7)).astype(np.float32) for n in range(4)}
    _write(path, {"metadata": np.frombuffer(json.dumps({"epoch": 3}).encode(), np.uint8), **arrays})
    content, variables = _read(path)
    assert content == {"epoch": 3} and all(np.array_equal(variables[name], each) for name, each in arrays.items())
    for changed in flips(path.read_bytes(), seed=5, count=300):
        path.write_bytes(changed)
        with pytest.raises(TrainingError, match=r"checkpoint\.npz is damaged \(its digest differs"):
            _read(path)


def test_any_flipped_bit_in_clips_leaves_them_out_of_the_report(tmp_path):
    path, clips = tmp_path / "clips.npz", np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 1), np.uint8)
    write_arrays(path, clips=clips, captions=np.array(["a", "b"]))
    assert np.array_equal(_clips(path)[0], clips)
    for changed in flips(path.read_bytes(), seed=6, count=300):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="its digest differs"):
            _clips(path)


def test_the_contents_of_an_archive_are_not_guarded_by_zip_itself(tmp_path):
    """Why checkpoints have a digest: there are flips with which a member is missing, and no error."""
    path = tmp_path / "a.npz"
    np.savez(path, **{f"model {n}": np.ones(3) for n in range(4)})
    lost = 0
    for changed in flips(path.read_bytes(), seed=5, count=400):
        try:
            with np.load(io.BytesIO(changed), allow_pickle=False) as stored:
                lost += len([stored[name] for name in stored.files]) < 4
        except Exception:
            continue
    assert lost


@pytest.mark.parametrize("name", ["settings.toml", "spec.json"])
def test_any_flipped_bit_in_settings_or_spec_is_an_error(tmp_path, name):
    run = make_run(settings_for(make_manifest(tmp_path))).folder
    path, original = run / name, read_run(run)[:2]
    raw = path.read_bytes()
    messages = []
    for changed in flips(raw, seed=7, count=300):
        path.write_bytes(changed)
        try:
            assert read_run(run)[:2] == original, "only where the mark of the digest itself was hit"
        except CinefeedError as error:
            assert name in str(error)
            messages.append(str(error))
    assert len(messages) > 200 and sum("its digest differs" in message for message in messages) > 200


def test_settings_that_were_edited_say_how_to_use_them(tmp_path):
    run = make_run(settings_for(make_manifest(tmp_path))).folder
    path, (settings, spec, _) = run / "settings.toml", read_run(run)
    text = path.read_text()
    edited = text.replace(f"seed = {settings.feed.seed}", f"seed = {settings.feed.seed + 1}", 1)
    assert edited != text
    path.write_text(edited)
    with pytest.raises(TrainingError, match=r"settings\.toml is not as training wrote it.*delete its last line"):
        read_run(run)
    with pytest.raises(ValueError, match="its digest differs"):
        _settings(path)  # of the report, which leaves its section out
    path.write_text(edited[: edited.rstrip().rindex("\n") + 1])
    assert read_run(run)[0] != settings
    text = (run / "spec.json").read_text()
    (run / "spec.json").write_text(json.dumps({k: v for k, v in json.loads(text).items() if "sha256" not in k}))
    assert read_run(run)[1] == spec, "a run that was made before there were digests"
