"""Two processes on the CPU train one network, as two GPUs would."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
import numpy as np
import pyarrow.parquet as pq
import pytest

from cinefeed.config import to_toml
from cinefeed.core.errors import SettingError
from cinefeed.data.sampling import Natural
from cinefeed.training import distributed
from cinefeed.training.distributed import any_rank, process_group, rank_and_size
from cinefeed.training.evaluate import evaluate
from cinefeed.training.threads import restored_threads, use_threads

sys.path.insert(0, str(Path(__file__).parent))
from resumable import settings_for

RANKS = """
import json, sys
from os import environ, getpid, kill
from signal import SIGUSR1
import keras
from cinefeed.config import read_settings
from cinefeed.training import fit, network

toml, out, sgd = sys.argv[1:]

class Keep(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if [environ.get("RANK"), str(self.epoch), str(batch)] == environ.get("LEAVE", "").split():
            kill(getpid(), SIGUSR1)

    def on_epoch_end(self, epoch, logs=None):
        kept.append([float(logs["loss"]), [each.tolist() for each in self.model.get_weights()]])

def compile_with_sgd(model, settings, spec, **how):
    network.compile_model(model, settings, spec, **how)
    model.compile(keras.optimizers.SGD(0.00005), loss=model.loss)

kept = []
if sgd == "sgd":
    fit.compile_model = compile_with_sgd
result = fit.train(read_settings(toml), callbacks=[Keep()])
rank = environ.get("RANK", "0")
open(f"{out}{rank}.json", "w").write(json.dumps({"kept": kept, "metrics": result.metrics, "epochs": result.epochs}))
"""


def run(settings, folder, *, ranks, sgd="sgd", leave=""):
    """Train in `ranks` processes; return what each of them has kept."""
    folder.mkdir(exist_ok=True)
    (folder / "s.toml").write_text(to_toml(settings))
    (folder / "ranks.py").write_text(RANKS)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "29513"]
    command = start if ranks > 1 else [sys.executable]
    words = [folder / "ranks.py", folder / "s.toml", folder / "rank", sgd]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LEAVE": leave}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture
def rows(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def plain_settings(rows, folder, *, batch_size, **train):
    """Settings without dropout, and with 8 rows to train with: batches without a rest."""
    settings = settings_for(rows, out=folder / "run", epochs=3, **train)
    model = {"filters": [4, 4], "units": 4, "dense": 4}
    split = replace(settings.data.split, val=0.15, test=0.15)
    return replace(
        settings,
        model=replace(settings.model, options=model),
        feed=replace(settings.feed, batch_size=batch_size),
        data=replace(settings.data, split=split),
        sampler=Natural(),  # others balance each rank's batch, so that the batches would be of other rows
    )


@pytest.mark.slow
def test_two_ranks_do_what_one_does_with_batches_twice_as_large(rows, tmp_path):
    two = run(plain_settings(rows, tmp_path / "two", batch_size=2), tmp_path / "two", ranks=2)
    one = run(plain_settings(rows, tmp_path / "one", batch_size=4), tmp_path / "one", ranks=1)
    assert two[0]["kept"] == two[1]["kept"]  # losses and weights, every bit
    for (loss, weights), (same_loss, same_weights) in zip(two[0]["kept"], one[0]["kept"], strict=True):
        assert loss == pytest.approx(same_loss, rel=1e-5)
        for each, same in zip(weights, same_weights, strict=True):
            np.testing.assert_allclose(each, same, rtol=1e-4, atol=1e-6)
    assert two[0]["kept"][0][1] != two[0]["kept"][2][1]
    assert str(two[0]["metrics"]) == str(two[1]["metrics"])  # some are NaN
    assert (tmp_path / "two" / "run" / "run.json").exists()
    must_equal_one_process(tmp_path / "two" / "run")


def must_equal_one_process(folder):
    """Require that the predictions which ranks shared out are those of one process, every bit."""
    merged = pq.read_table(folder / "predictions.parquet")
    with restored_threads():
        use_threads(1)  # as the ranks had
        tables = [evaluate(folder, part=part).predictions for part in ("val", "test")]
    for name in ("id", "split", "clip", "target", "score"):
        assert merged[name].to_pylist() == [value for table in tables for value in table[name].to_pylist()], name


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
def test_a_run_of_two_ranks_resumes_on_another_number(ranks, rows, tmp_path):
    settings = plain_settings(rows, tmp_path / "a", batch_size=1)
    run(settings, tmp_path / "a", ranks=2, sgd="adam", leave="1 1 1")  # after two of the four batches of epoch 2
    again = run(settings, tmp_path / "a", ranks=ranks, sgd="adam")
    assert again[0]["epochs"] == 3 and all(each["kept"][-1] == again[0]["kept"][-1] for each in again)
    must_equal_one_process(tmp_path / "a" / "run")


@pytest.mark.slow
def test_all_ranks_stop_when_rank_0_says_so(rows, tmp_path):
    settings = plain_settings(rows, tmp_path / "a", batch_size=2, patience=1, learning_rate=1e-9, reduce_lr_patience=0)
    settings = replace(settings, train=replace(settings.train, epochs=20))
    result = run(settings, tmp_path / "a", ranks=2, sgd="adam")
    assert result[0]["epochs"] == result[1]["epochs"] < 20
    assert len(result[0]["kept"]) == len(result[1]["kept"])


@pytest.mark.slow
def test_what_one_rank_is_told_all_do_and_they_go_on_together(rows, tmp_path):
    whole = run(plain_settings(rows, tmp_path / "a", batch_size=1), tmp_path / "a", ranks=2, sgd="adam")
    settings = plain_settings(rows, tmp_path / "b", batch_size=1)
    first = run(settings, tmp_path / "b", ranks=2, sgd="adam", leave="1 1 1")
    assert [len(each["kept"]) for each in first] == [1, 1]
    assert first[0]["metrics"] == first[1]["metrics"] == {}
    again = run(settings, tmp_path / "b", ranks=2, sgd="adam")
    assert again[0]["kept"][1:] == whole[0]["kept"][2:]  # of the epoch within which they left, each rank's loss is
    assert again[0]["kept"][0][1] == whole[0]["kept"][1][1]  # that of rank 0 before, so only the weights are the same
    assert again[1]["kept"] == again[0]["kept"]


def test_alone_nothing_is_shared(monkeypatch):
    with process_group():
        assert rank_and_size() == (0, 1)
        assert any_rank(True) and not any_rank(False)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.keras.config, "backend", lambda: "jax")
    with pytest.raises(SettingError, match="KERAS_BACKEND=torch"), process_group():
        pass
