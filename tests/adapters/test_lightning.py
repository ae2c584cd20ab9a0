"""A Lightning Trainer resumes in mid-epoch: its checkpoint carries the state of the loader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader

pl = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed: pip install pytorch-lightning")
# Lightning 2.6 with torch 2.13: raised by every Trainer, nothing a user can act on
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Rotate(degrees=20), cf.Normalize(mode="range", low=0, high=255)],
        "batch_size": 4,
        "seed": 7,
        "workers": 2,
    }
    return cf.Feed(manifest, **{**settings, **changes})


class Ended(Exception):
    """The program ends here."""


class Model(pl.LightningModule):
    """Notes the clips and targets of every step; after some of them it writes a checkpoint, and the program ends.

    `at_end` writes it at the end of the epoch, as Lightning's own callback does, not at that of the step.
    """

    def __init__(self, *, save_after=None, path=None, at_end=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4 * 16 * 16, 1)
        self.batches = []
        self.save_after, self.path, self.at_end = save_after, path, at_end

    def training_step(self, item, index):
        inputs, targets, weights = item
        self.batches.append((inputs["clips"].clone(), targets.clone()))
        error = self.layer(inputs["clips"].flatten(1))[:, 0] - targets
        return (weights * error**2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6, momentum=0.9)

    def on_train_batch_end(self, outputs, item, index):
        self.save(at_end=False)

    def on_train_epoch_end(self):
        self.save(at_end=True)

    def save(self, *, at_end):
        if len(self.batches) == self.save_after and at_end == self.at_end:
            self.trainer.save_checkpoint(self.path)
            raise Ended


def trainer(epochs=3, **options):
    return pl.Trainer(
        **options,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(manifest, *, epochs=3, resume=None, save_after=None, loader=FeedLoader, **saving):
    """Train, and return the model; what was seen is in it. A checkpoint is plain data: no pickled object is read."""
    model = Model(save_after=save_after, **saving)
    try:
        trainer(epochs).fit(model, loader(make(manifest)), ckpt_path=resume, weights_only=True)
    except Ended:
        assert len(model.batches) == save_after
    return model


def batches_of(manifest, epochs):
    """Return the clips and targets of whole epochs, from the feed itself."""
    feed = make(manifest, workers=0)
    return [(batch.clips.copy(), batch.targets.copy()) for _ in range(epochs) for batch in feed]


def same(result, expected):
    pairs = zip(result, expected, strict=False)
    return len(result) == len(expected) and all(
        np.array_equal(one, other) for pair in pairs for one, other in zip(*pair, strict=True)
    )


def test_one_epoch_is_the_feeds(manifest):
    model = fit(manifest, epochs=1)
    assert same(model.batches, batches_of(manifest, 1)) and not same(model.batches[::-1], batches_of(manifest, 1))


def test_the_epochs_are_the_feeds(manifest):
    assert same(fit(manifest).batches, batches_of(manifest, 3))


@pytest.mark.parametrize("batches_read", [1, 2])
def test_a_trainer_resumes_in_mid_epoch(manifest, tmp_path, batches_read):
    """Of three batches an epoch; the weights of the model are those of a training that was never interrupted."""
    whole = fit(manifest, epochs=1)
    first = fit(manifest, epochs=1, save_after=batches_read, path=tmp_path / "model.ckpt")
    again = fit(manifest, epochs=1, resume=tmp_path / "model.ckpt")
    assert same(first.batches + again.batches, batches_of(manifest, 1))
    assert len(again.batches) == 3 - batches_read
    assert torch.equal(again.layer.weight, whole.layer.weight)


@pytest.mark.parametrize(
    ("batches_read", "at_end"), [*((batches_read, False) for batches_read in range(1, 9)), (3, True), (6, True)]
)
def test_a_trainer_resumes_in_any_epoch(manifest, tmp_path, batches_read, at_end):
    whole = fit(manifest)
    first = fit(manifest, save_after=batches_read, path=tmp_path / "model.ckpt", at_end=at_end)
    again = fit(manifest, resume=tmp_path / "model.ckpt")
    assert same(first.batches + again.batches, batches_of(manifest, 3))
    assert torch.equal(again.layer.weight, whole.layer.weight)


def numbers(manifest, batches):
    """Return (epoch, index) of the batches that a model was given."""
    feed = make(manifest, workers=0)
    address_of = {
        feed.batch(index, epoch=epoch).clips.tobytes(): (epoch, index) for epoch in range(6) for index in range(3)
    }
    return [address_of[clips.numpy().tobytes()] for clips, _ in batches]


def loader_after_a_glance(manifest):
    """A loader of which somebody has looked at a batch, and gone through a part of an epoch."""
    loader = FeedLoader(make(manifest))
    next(iter(loader))
    list(zip(range(2), loader, strict=False))
    return loader


def fresh_loader(manifest):
    return FeedLoader(make(manifest))


@pytest.mark.parametrize("loader_of", [fresh_loader, loader_after_a_glance])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limited_epochs_are_different_ones(manifest, limit, loader_of):
    model = Model()
    trainer(limit_train_batches=limit).fit(model, loader_of(manifest))
    assert numbers(manifest, model.batches) == [(epoch, index) for epoch in range(3) for index in range(limit)]


def test_a_second_fit_begins_at_lightnings_first_epoch(manifest):
    loader = fresh_loader(manifest)
    for limit in (2, 3):
        model = Model()
        trainer(2, limit_train_batches=limit).fit(model, loader)
        assert numbers(manifest, model.batches) == [(epoch, index) for epoch in range(2) for index in range(limit)]


@pytest.mark.parametrize("batches_read", range(1, 6))
def test_limited_epochs_are_resumed(manifest, tmp_path, batches_read):
    def fitted(**options):
        model = Model(**options)
        resume = None if options else tmp_path / "model.ckpt"
        try:
            fitting = trainer(limit_train_batches=2)
            fitting.fit(model, fresh_loader(manifest), ckpt_path=resume, weights_only=True)
        except Ended:
            pass
        return numbers(manifest, model.batches)

    first = fitted(save_after=batches_read, path=tmp_path / "model.ckpt")
    assert first + fitted() == [(epoch, index) for epoch in range(3) for index in range(2)]


class Validated(Model):
    """Notes the ids' places of what is validated, and makes its loaders anew, of the same feeds."""

    def __init__(self, manifest):
        super().__init__()
        self.feed = make(manifest)
        self.val = self.feed.evaluation(manifest)
        self.validated = []

    def train_dataloader(self):
        return FeedLoader(self.feed)

    def val_dataloader(self):
        return FeedLoader(self.val)

    def on_validation_start(self):
        self.validated.append([])

    def validation_step(self, item, index):
        self.validated[-1] += item[1].tolist()


@pytest.mark.parametrize("options", [{}, {"reload_dataloaders_every_n_epochs": 1}, {"val_check_interval": 1}])
def test_each_validation_begins_at_the_first_row(manifest, options):
    model = Validated(manifest)
    trainer(limit_train_batches=2, limit_val_batches=2, num_sanity_val_steps=1, **options).fit(model)
    ages = [20.0 + row * row for row in range(11)]
    validations = 6 if "val_check_interval" in options else 3
    assert model.validated == [ages[:4], *[ages[:8]] * validations]
    assert numbers(manifest, model.batches) == [(epoch, index) for epoch in range(3) for index in range(2)]
    assert model.val.epoch == 0


class Forgetful:
    """A loader without a state."""

    def __init__(self, feed):
        self.loader = FeedLoader(feed)

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_loader_that_forgets_is_found(manifest, tmp_path):
    first = fit(manifest, epochs=1, save_after=1, path=tmp_path / "model.ckpt", loader=Forgetful)
    again = fit(manifest, epochs=1, resume=tmp_path / "model.ckpt", loader=Forgetful)
    assert not same(first.batches + again.batches, batches_of(manifest, 1))


def test_two_ranks_share_each_epoch(manifest, tmp_path):
    """DistributedDataParallel on two processes: training, validation, limits, resume."""
    manifest.write(tmp_path / "m.parquet")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("lightning_ranks.py"), tmp_path / "m.parquet", tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(cf.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    ages = sorted(20.0 + row * row for row in range(11))
    for kind in ("train", "val"):
        for epoch in range(2):  # of three batches on each rank
            batches = [batch for result in ranks for batch in result["whole"][kind][3 * epoch : 3 * epoch + 3]]
            assert sorted(age for batch in batches for age in batch) == ages
    for result in ranks:
        assert result["first"]["train"] + result["again"]["train"] == result["whole"]["train"]
        assert result["again"]["weights"] == result["whole"]["weights"] == ranks[0]["whole"]["weights"]
        assert result["limited"]["train"] == result["whole"]["train"][:2]
        assert result["limited"]["val"] == result["whole"]["val"][:1]
        assert "make the feed after init_process_group" in result["too early"]


def test_validate_test_and_predict(manifest):
    model, loader = Validated(manifest), FeedLoader(make(manifest).evaluation(manifest))
    model.test_step = model.validation_step
    model.on_test_start = model.on_validation_start
    model.predict_step = lambda batch, batch_idx: model.layer(batch[0]["clips"].flatten(1))[:, 0]
    ages = [20.0 + row * row for row in range(11)]
    trainer().validate(model, loader, verbose=False)
    trainer().test(model, loader, verbose=False)
    assert model.validated == [ages, ages]
    assert [len(each) for each in trainer().predict(model, loader)] == [4, 4, 3]
