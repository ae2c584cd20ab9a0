"""A small run that can be broken off: `python resumable.py settings.toml [kill|term|usr1 epoch batch]`.

Each batch's loss goes to losses.txt beside the settings, in hexadecimal, every bit of it.
"""

import os
import signal
import sys
from pathlib import Path

import keras

from cinefeed.config import parse, read_settings
from cinefeed.training.fit import train


def settings_for(manifest, *, out, **train):
    """Return settings with all that has a state: a sampler, dropout, callbacks that count, a rate that falls."""
    return parse(
        {
            "data": {"manifest": str(manifest), "target": "age", "split": {"group": False, "val": 0.2, "test": 0.2}},
            "clip": {"frames": 4},
            "frame": {"height": 8, "width": 8, "channels": 1},
            "transforms": [{"name": "Shift", "pixels": 2}],
            "sampler": {"name": "UniformLabels"},
            "feed": {"batch_size": 2, "seed": 7, "workers": 0},
            "model": {"filters": [4, 4], "units": 4, "dense": 4, "dropout": 0.5},
            "train": {
                "out": str(out),
                "epochs": 4,
                "learning_rate": 0.05,
                "patience": 3,
                "reduce_lr_patience": 1,
                "save_minutes": 1e-9,
                **train,
            },
        }
    )


class Losses(keras.callbacks.Callback):
    """Writes each batch's loss, then maybe sends its own process a signal."""

    def __init__(self, path, *, number=None, epoch=-1, batch=-1):
        super().__init__()
        self.path, self.number, self.at = Path(path), number, (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        with self.path.open("a") as file:
            file.write(f"{self.epoch} {float(logs['loss']).hex()}\n")
        if (self.epoch, batch) == self.at:
            os.kill(os.getpid(), self.number)


if __name__ == "__main__":
    toml, *how = sys.argv[1:]
    stop = {}
    if how:
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1}[how[0]]
        stop = {"number": number, "epoch": int(how[1]), "batch": int(how[2])}
    result = train(read_settings(toml), callbacks=[Losses(Path(toml).with_name("losses.txt"), **stop)])
    print(result.stopped)
