"""What is written and shown while a network trains."""

import csv
import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np
import pytest

from cinefeed.core.errors import MissingExtraError
from cinefeed.feed.stats import Stats
from cinefeed.training.logging import History, JsonLines, Progress, TensorBoard


def fit(*callbacks, epochs=2):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    x = np.ones((12, 1), np.float32)
    return model.fit(x, x, batch_size=1, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def test_history_has_a_line_an_epoch(tmp_path):
    result = fit(History(tmp_path / "h.csv"))
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [float(row["loss"]) for row in rows] == result["loss"]
    assert [each.name for each in tmp_path.iterdir()] == ["h.csv"]


def test_what_an_epoch_lacks_is_na(tmp_path):
    history = History(tmp_path / "h.csv")
    history.on_epoch_end(0, {"loss": 1.0, "val_r2": 0.5})
    history.on_epoch_end(1, {"loss": float("nan")})
    assert (tmp_path / "h.csv").read_text() == "epoch,loss,val_r2\n0,1.0,0.5\n1,nan,NA\n"


def test_a_json_line_for_each_event(tmp_path):
    lines = JsonLines(tmp_path / "log.jsonl")
    fit(lines)
    lines.on_epoch_end(2, {"loss": float("nan")})
    result = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [each["event"] for each in result] == ["fit", "batch", "epoch", "batch", "epoch", "epoch"]
    assert (result[1]["epoch"], result[1]["batch"]) == (1, 10)
    assert result[-1]["loss"] is None


def test_tensorboard_reads_what_was_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    losses = fit(TensorBoard(tmp_path), epochs=3)["loss"]
    result = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [each.step for each in result] == [1, 2, 3]
    assert [each.value for each in result] == pytest.approx(losses)


def test_without_tensorboard_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cinefeed\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_progress_is_plain_lines_without_a_terminal(capsys):
    progress = Progress(metrics=("val_r2",))
    progress.set_params({"epochs": 4, "steps": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(1)
    progress.on_train_batch_end(0, {"loss": 1.0})
    progress.on_epoch_end(1, {"loss": 0.5, "val_loss": 2.0, "val_r2": 0.25, "val_mae": 9.0})
    progress.on_train_end()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("epoch 2/4  loss 0.5  val_loss 2  val_r2 0.25  (")


def test_progress_is_a_table_and_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress()
    progress.set_params({"epochs": 1, "steps": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    progress.on_train_batch_end(0, {"loss": 1.0})
    progress.on_epoch_end(0, {"loss": 0.5})
    progress.close()
    output = capsys.readouterr().err
    assert "epoch" in output and "loss" in output and "0.5" in output.splitlines()[-2]


class Fed:
    """A feed that has given as many clips as it was asked for its figures."""

    def __init__(self):
        self.count = 0

    def __len__(self):
        return 4

    def stats(self):
        self.count += 1
        return Stats(clips=self.count, elapsed_seconds=self.count, decode_seconds=self.count, workers=2)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_what_the_feed_does(capsys, monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    progress = Progress(feed=Fed())
    progress.set_params({"epochs": 1, "steps": 8})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    for batch in range(8):
        progress.on_train_batch_end(batch, {"loss": 1.0})
    content = "1 clips/s, waits 0 %, workers idle 50 %: the model is the bottleneck"
    assert not terminal or progress._bar.tasks[-1].description == "epoch 1/1 · loss 1"
    progress.on_epoch_end(0, {"loss": 0.5})
    progress.close()
    assert content in " ".join(capsys.readouterr().err.split())


def test_the_table_of_epochs_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    names = ("val_auroc", "val_average_precision", "val_f1", "val_balanced_accuracy")
    progress = Progress(feed=Fed(), metrics=names)
    progress.set_params({"epochs": 2, "steps": 1})
    progress.on_train_begin()
    for epoch in range(2):
        progress.on_epoch_begin(epoch)
        progress.on_epoch_end(epoch, {"loss": 0.6948, "val_loss": 0.6342, **dict.fromkeys(names, 0.5845)})
    progress.close()
    output = capsys.readouterr().err
    rows = [line for line in output.splitlines() if line.count("0.5845") == len(names)]
    assert len(rows) >= 2 and all(len(row.rstrip()) <= 80 for row in rows)
    assert "…" not in output and "precision" in output and "waits" in output
